"""Pictures that do not fit give every command one clear line, exit status 2 and no file."""

import json
import re

import numpy as np
import pytest
import zarr
from pictured import LOOK
from stores import write_plainly

SMALL = ("--steps", 2, "--batch", 4, "--hidden", 16, "--blocks", 1, "--device", "cpu")
QUICK = ("--episodes", 2, "--workers", 1, "--threads", 1, "--ddim-steps", 1, "--engine", "eager")


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """Arrays of a store of Look-v0, its attributes and its ends."""
    from diffpolicy.config import RecordConfig
    from diffpolicy.record import record

    store = tmp_path_factory.mktemp("look") / "store"
    record(RecordConfig(LOOK, episodes=2, out=store))
    root = zarr.open_group(store, mode="r")
    arrays = {name: root[f"data/{name}"][:] for name in root["data"]}
    return arrays, dict(root.attrs), root["meta/episode_ends"][:]


@pytest.fixture(scope="module")
def run(recorded, tmp_path_factory):
    """A policy of Look-v0 that sees pictures."""
    from diffpolicy.training.config import TrainConfig
    from diffpolicy.training.train import train

    folder = tmp_path_factory.mktemp("run")
    store = stored(folder / "store", recorded)
    out = folder / "run"
    train(TrainConfig(data=store, out=out, steps=2, batch=4, hidden=16, blocks=1, device="cpu"))
    return out


def stored(path, recorded, **arrays):
    found, attributes, ends = recorded
    write_plainly(path, {**found, **arrays}, ends)
    zarr.open_group(path, mode="a").attrs.update(attributes)
    return path


SPOILS = {  # of the pictures of a store: (change, message)
    "size": (lambda x: x.repeat(2, 1).repeat(2, 2), r"uint8 \[32, 32, 3\]; .* store pictures of"),
    "cropped": (lambda x: x[:, 1:-1, 1:-1], r"\[14, 14, 3\]; .*as if cropped: store whole"),
    "channels": (lambda x: x[..., :1], r"\[16, 16, 1\]; .*with the channels of the environment"),
    "rows": (lambda x: x.reshape(len(x), -1), r"expected pictures uint8 \[16, 16, 3\]"),
    "range": (lambda x: 3.0 * x, "does not hold pictures"),
    "negative": (lambda x: x.astype(np.int32) - 300, "does not hold pictures"),
    "nan": (lambda x: x * np.nan, r"data/image .*\bnan\b|not finite"),
}


@pytest.mark.parametrize("spoil", SPOILS)
def test_pictures_of_a_store_that_do_not_fit_are_not_trained_on(recorded, refused, tmp_path, spoil):
    change, message = SPOILS[spoil]
    store = stored(tmp_path / "store", recorded, image=change(recorded[0]["image"]))
    line = refused("train", "--data", store, "--out", tmp_path / "run", *SMALL)
    assert str(store) in line and re.search(message, line), line
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--obs", "camera"), "Look-v0 does not observe camera; it observes image, place"),
        (
            ("--camera", 8),
            r"no data/pixels, .*it holds: action, image, place; store it as uint8 \[N",
        ),
        (("--env-kwargs", '{"layout": ""}', "--obs", "image"), "data/image holds pictures"),
        (("--camera", 4), "--camera must be at least 8; got 4"),
    ],
)
def test_a_missing_camera_is_told_by_training(recorded, refused, tmp_path, options, message):
    store = stored(tmp_path / "store", recorded)
    line = refused("train", "--data", store, "--out", tmp_path / "run", *SMALL, *options)
    assert re.search(message, line), line
    assert not (tmp_path / "run").exists()


HABITS = [  # of the environment, and the message of both commands
    ({"habit": "wide"}, r"uint8 \[16, 15, 3\] from 0 to 255 in step, tick 2 of seed \d+; expected"),
    ({"habit": "other"}, r"gave as observation\['image'\] uint8 \[3, 16, 16\]"),
    ({"habit": "float"}, r"float64 \[16, 16, 3\] .* tick 2 of seed \d+; expected uint8"),
    ({"habit": "gone"}, r"expected observation\['image'\]"),
    ({"layout": "unit", "habit": "dark"}, r"from -1 to .*expected floats in \[0, 1\]"),
    ({"layout": "signed"}, r"observation\['image'\] has the shape of a picture, but not its range"),
]


@pytest.mark.parametrize(("kwargs", "message"), HABITS)
def test_recording_pictures_that_are_not_as_declared_is_refused(refused, tmp_path, kwargs, message):
    given = ("--env", LOOK, "--env-kwargs", json.dumps(kwargs), "--episodes", 1)
    line = refused("record", *given, "--out", tmp_path / "new")
    assert re.search(message, line), line
    assert not list(tmp_path.iterdir())


OTHERS = [  # environments than that of the policy, and the message
    (
        {"layout": ""},
        r"observes observation \(a vector of 1\); .* for image \(a picture of",
    ),
    ({"side": 24}, r"image \(a picture of 24 × 24 px .* trained for image \(a picture of 16 × 16"),
    ({"key": "eye"}, r"observes eye .* trained for image \(.*--env-kwargs '\{\}'"),
]


@pytest.mark.parametrize(("kwargs", "message"), [*HABITS, *OTHERS])
def test_evaluating_with_pictures_that_do_not_fit_is_refused(
    run, refused, snapshot, tmp_path, kwargs, message
):
    before, given = snapshot(run), ("--env-kwargs", json.dumps(kwargs))
    given = (*given, "--ms-per-step", 0, "--json", tmp_path / "result.json")
    line = refused("eval", "--run", run, *QUICK, *given)
    assert re.search(message, line), line
    assert snapshot(run) == before and not list(tmp_path.iterdir())


def test_a_camera_needs_an_environment_that_can_be_rendered(refused, tmp_path):
    given = ("--env", "test_record:Toss-v0", "--episodes", 1, "--out", tmp_path / "new")
    line = refused("record", *given, "--camera", 16)
    assert "a camera needs an environment with render_mode='rgb_array'" in line
    assert not list(tmp_path.iterdir())
