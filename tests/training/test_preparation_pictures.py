"""Preparation of pictures: by key, as bytes, in the order asked for; refusals of other data."""

from dataclasses import replace
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from stores import write_plainly

from diffpolicy.data.normalizer import fit_gaussian, fit_limits, pixels
from diffpolicy.data.windows import make_windows
from diffpolicy.errors import DiffpolicyError
from diffpolicy.specification import FLAT, Horizons, ObservationSpec, picture
from diffpolicy.training.config import TrainConfig
from diffpolicy.training.preparation import fingerprint, prepare, split_episodes

ENDS, SIDE = np.array([5, 16, 25, 27]), 16
PICTURE = spaces.Box(0, 255, (SIDE, SIDE, 3), np.uint8)
DEPTH = spaces.Box(0, np.inf, (SIDE, SIDE, 1), np.float32)
LINE = spaces.Box(-np.inf, np.inf, (2,), np.float32)


class Seen(gymnasium.Env):
    """A position and a picture of it; recorded elsewhere as `img` and `state`."""

    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012
    control_dt_s, demonstration_arrays = 0.1, ("img", "state")
    action_space = LINE

    def __init__(
        self, image=True, mapped=True, mistake=None, render_mode=None, depth=False, parts=()
    ):
        keys = {"agent_pos": LINE, "image": PICTURE} if image else dict.fromkeys(parts, LINE)
        keys |= {"depth": DEPTH} if depth else {}
        self.observation_space = spaces.Dict(keys) if keys else LINE
        self.mistake, self.render_mode = mistake, render_mode
        if not mapped or not image:
            self.demonstration_arrays = None

    def observations_from(self, arrays):
        if arrays["img"].shape[1:] != PICTURE.shape:
            raise ValueError(f"each row of img must be {PICTURE.shape}")
        if self.mistake == "floats":
            return {"image": arrays["img"] / 255, "agent_pos": arrays["state"][:, :2]}
        if self.mistake == "signed":
            image = np.rint((arrays["img"] + 1) / 2 * 255).astype(np.uint8)
            return {"image": image, "agent_pos": arrays["state"][:, :2]}
        rows = 5 if self.mistake == "rows" else None
        return {"image": arrays["img"], "agent_pos": arrays["state"][:rows, :2]}

    def reset(self, *, seed=None, options=None):
        return self.observation_space.sample(), {}

    def render(self):
        return np.zeros((32, 32, 3), np.uint8)


gymnasium.register("Seen-v0", entry_point=Seen, max_episode_steps=9)


def arrays(side=SIDE, channels=3):
    """As recorded elsewhere."""
    rng = np.random.default_rng(side)
    return {
        "img": rng.integers(0, 256, (27, side, side, channels)).astype(np.float32),
        "state": rng.standard_normal((27, 5), np.float32),
        "action": rng.standard_normal((27, 2), np.float32),
    }


def by_key(**changes):
    """As recorded by key."""
    found = arrays()
    keys = {"image": found["img"], "agent_pos": found["state"][:, :2], "action": found["action"]}
    return {name: x for name, x in {**keys, **changes}.items() if x is not None}


@pytest.fixture
def config(tmp_path):
    """A configuration for arrays and options."""

    def make(found, kwargs="{}", **options):
        data = write_plainly(tmp_path / "store", found, ENDS)
        return TrainConfig(
            data=data, out=tmp_path / "run", env="Seen-v0", env_kwargs=kwargs, **options
        )

    return make


@pytest.mark.parametrize("normalizer", ["limits", "gaussian"])
@pytest.mark.parametrize("source", [arrays, by_key])
def test_pictures_stay_bytes_and_vectors_are_normalised_by_the_training_rows(
    config, source, normalizer
):
    prepared = prepare(config(source(), normalizer=normalizer))
    seen, task = prepared.training.observations, prepared.specification.task
    assert task.observations == {
        "agent_pos": ObservationSpec((2,), normalizer=normalizer),
        "image": picture(SIDE, SIDE),
    }
    assert list(seen) == list(prepared.observation_normalizers) == list(task.observations)
    assert seen["image"].dtype == np.uint8
    np.testing.assert_array_equal(seen["image"], arrays()["img"])
    train, held_out = split_episodes(4, 0.02, 0)
    rows = np.repeat(np.isin(np.arange(4), train), np.diff(ENDS, prepend=0))
    vectors = arrays()["state"][:, :2]
    fitted = {"limits": fit_limits, "gaussian": fit_gaussian}[normalizer](vectors[rows])
    np.testing.assert_array_equal(seen["agent_pos"], fitted.normalize(vectors))
    found = prepared.observation_normalizers["image"]
    np.testing.assert_array_equal(found.scale, pixels(3).scale)
    assert prepared.validation and prepared.validation.observations["image"] is seen["image"]
    assert len(held_out) == 1


@pytest.mark.parametrize(
    "keys", [("image", "agent_pos"), ("agent_pos", "image"), ("image",), ("agent_pos",)]
)
@pytest.mark.parametrize("source", [arrays, by_key])
def test_obs_chooses_keys_and_their_order(config, source, keys):
    prepared = prepare(config(source(), obs=keys))
    assert tuple(prepared.specification.task.observations) == keys
    assert tuple(prepared.training.observations) == keys


def test_keys_of_the_store_need_no_mapping(config):
    prepared = prepare(config(by_key(), '{"mapped": false}'))
    assert list(prepared.training.observations) == ["agent_pos", "image"]


def test_channels_first_are_turned(config):
    whole = prepare(config(by_key(image=arrays()["img"].transpose(0, 3, 1, 2))))
    np.testing.assert_array_equal(whole.training.observations["image"], arrays()["img"])


def test_windows_hold_two_pictures_of_one_episode():
    images = np.arange(27, dtype=np.uint8)[:, None, None, None] * np.ones((8, 8, 3), np.uint8)
    actions = np.zeros((27, 2), np.float32)
    windows = make_windows({"image": images}, actions, ENDS, Horizons(2, 8, 4))
    seen, _, _ = windows.gather(np.array([0, 4, 5, 6, 26]))
    assert seen["image"].dtype == np.uint8 and seen["image"].shape == (5, 2, 8, 8, 3)
    assert seen["image"][:, :, 0, 0, 0].tolist() == [[0, 0], [3, 4], [5, 5], [5, 6], [25, 26]]
    assert windows.to("cpu").gather(np.array([4]))[0]["image"][0, :, 0, 0, 0].tolist() == [3, 4]


def test_the_fingerprint_is_of_the_bytes(config):
    first = prepare(config(by_key())).specification.training["fingerprint"]
    found = by_key()
    expected = (found["agent_pos"], found["image"].astype(np.uint8), found["action"], ENDS)
    assert first == fingerprint(*expected)


def test_the_memory_of_pictures_is_told_before_they_are_read(config, caplog):
    caplog.set_level("INFO", "diffpolicy")
    found = by_key(image=np.zeros((27, 16, 16, 3), np.uint8))
    prepare(config(found))
    [line] = [record.getMessage() for record in caplog.records]
    assert line.endswith("store: pictures: 0 MB in memory")


def test_the_camera_of_an_option_or_of_the_store_is_part_of_the_task(config):
    found = by_key(observation=arrays()["state"][:, :2], pixels=arrays()["img"])
    kwargs = '{"image": false}'
    chosen = config(found, kwargs, camera=SIDE)
    prepared = prepare(chosen)
    assert prepared.specification.task.camera == SIDE
    assert prepared.specification.task.observations["pixels"] == picture(SIDE, SIDE)
    (chosen.data / ".zattrs").write_text(f'{{"camera": {SIDE}}}')
    again = prepare(replace(chosen, camera=None))
    assert again.specification.task == prepared.specification.task


@pytest.mark.parametrize(
    ("image", "keys", "camera"),
    [
        ("false", ("observation",), None),
        ("true", ("image", "agent_pos"), None),
        ("true", ("agent_pos",), None),
        ("true", ("image", "pixels"), SIDE),
        ("false", ("observation", "pixels"), SIDE),
    ],
)
def test_a_camera_that_no_key_needs_is_not_part_of_the_task(config, image, keys, camera):
    found = by_key(observation=arrays()["state"][:, :2], pixels=arrays()["img"])
    chosen = config(found, f'{{"image": {image}}}', obs=keys)
    (chosen.data / ".zattrs").write_text(f'{{"camera": {SIDE}}}')
    task = prepare(chosen).specification.task
    assert task.camera == camera and tuple(task.observations) == keys


def test_a_dict_without_a_picture_of_its_own_keeps_the_camera_for_its_keys(config):
    found = by_key(agent_pos=None, image=None, a=np.ones((27, 2)), b=np.ones((27, 2)))
    chosen = config(found, '{"image": false, "parts": ["a", "b"]}', obs=("b",), camera=SIDE)
    task = prepare(chosen).specification.task
    assert task.camera == SIDE and tuple(task.observations) == ("b",)


def test_a_picture_of_no_use_may_be_left_out_with_obs(config):
    kwargs = '{"depth": true}'
    chosen = config(by_key(), kwargs)
    for obs in (("image", "agent_pos"), ("agent_pos",)):
        task = prepare(replace(chosen, obs=obs)).specification.task
        assert tuple(task.observations) == obs
    for obs in ((), ("depth", "agent_pos")):
        with pytest.raises(DiffpolicyError, match=r"observation\['depth'\] has the shape of a pic"):
            prepare(replace(chosen, obs=obs))


def test_numbers_in_the_shape_of_pictures_are_mapped_by_the_environment(config):
    found = {**arrays(), "img": 2 * arrays()["img"] / 255 - 1}
    prepared = prepare(config(found, '{"mistake": "signed"}'))
    np.testing.assert_array_equal(prepared.training.observations["image"], arrays()["img"])
    [note] = prepared.notes
    assert note.startswith("read as float32: data/img does not hold pictures")


def test_an_environment_without_pictures_has_its_joined_vector(config):
    found = {**arrays(), "a": np.ones((27, 1)), "b": np.arange(27.0)}
    prepared = prepare(config(found, '{"image": false}', obs=("b", "a")))
    assert list(prepared.specification.task.observations) == [FLAT]
    joined = np.stack([np.arange(27), np.ones(27)], axis=1).astype(np.float32)
    fitted = prepared.observation_normalizers[FLAT]
    seen = prepared.training.observations[FLAT]
    np.testing.assert_array_equal(seen, fitted.normalize(joined))
    expected = fingerprint(joined, found["action"], ENDS)
    assert prepared.specification.training["fingerprint"] == expected


@pytest.mark.parametrize(
    "option",
    [
        {"encoder": "resnet18"},
        {"keypoints": 4},
        {"share_encoder": True},
        {"crop": 0.5},
        {"colour_jitter": 0.1},
        {"encoder_weights": Path("weights")},
    ],
)
@pytest.mark.parametrize("image", ["false", "true"])
def test_options_about_pictures_are_refused_without_pictures(config, option, image):
    name = "--" + next(iter(option)).replace("_", "-")
    chosen = config(by_key(), f'{{"image": {image}}}', obs=("agent_pos",))
    with pytest.raises(DiffpolicyError, match=f"^{name} needs pictures; .* made of agent_pos"):
        prepare(replace(chosen, **option))


SMALL = arrays(12)["img"]
REFUSED = [
    (
        by_key(image=SMALL),
        {},
        r"image has rows of uint8 .12, 12, 3.; expected pictures uint8 .16, ",
    ),
    (by_key(image=SMALL), {}, r"they are smaller, as if cropped: store whole pictures"),
    (arrays(12), {}, r"each row of img .*; they are smaller, as if cropped: store whole"),
    (arrays(20), {}, r"each row of img .*; store pictures of this size, or choose that of the"),
    (by_key(image=arrays(20)["img"]), {}, r".20, 20, 3.; expected .* store pictures of this size"),
    (by_key(image=arrays(channels=1)["img"]), {}, r"store pictures with the channels of the env"),
    (
        by_key(image=np.ones((27, 16, 16, 2))),
        {},
        r"image has rows of float32 .16, 16, 2.; expected",
    ),
    (by_key(image=np.ones((27, 4))), {}, r"image has rows of float32 .4.; expected pictures uint8"),
    (by_key(image=arrays()["img"] - 9), {}, r"data/image does not hold pictures; .* got -"),
    (by_key(image=arrays()["img"] / 2), {}, r"data/image does not hold pictures; .*\.5 at row 0"),
    (by_key(image=None), {}, r"no data/image, which the environment observes; it holds: action, "),
    (by_key(image=None), {}, r"store it as uint8 .N, 16, 16, 3., or choose other keys with --obs"),
    (by_key(agent_pos=None), {}, r"no data/agent_pos, which .* store it as numbers, or choose"),
    (by_key(agent_pos=np.ones((27, 3))), {}, r"has agent_pos of 3 numbers, Seen-v0 has 2; choose"),
    (by_key(), {"obs": ("img",)}, r"Seen-v0 does not observe img; it observes agent_pos, image; "),
    (arrays(), {"kwargs": '{"mistake": "rows"}'}, r"Seen-v0 gave agent_pos of shape .5, 2.; exp"),
    (
        arrays(),
        {"kwargs": '{"mistake": "floats"}'},
        r"image has rows of float64 .*, or one of uint8",
    ),
    (by_key(), {"camera": 16}, r"no data/pixels, which the environment observes"),
    (
        arrays(),
        {"kwargs": '{"image": false}', "obs": ("img",)},
        r"data/img holds pictures .16, 16, 3.; Seen-v0 observes one vector of 2 numbers; choose",
    ),
]


@pytest.mark.parametrize(("found", "options", "complaint"), REFUSED)
def test_pictures_that_do_not_fit_are_refused(config, found, options, complaint):
    with pytest.raises(DiffpolicyError, match=complaint):
        prepare(config(found, **options))


def test_more_pictures_than_memory_are_refused_before_they_are_read(config, monkeypatch):
    chosen = config(by_key())
    monkeypatch.setattr("diffpolicy.data.zarr_store.SHARE_OF_MEMORY", 9.0)
    monkeypatch.setattr("diffpolicy.data.zarr_store._memory_bytes", lambda: 27 * 768 - 1)
    with pytest.raises(DiffpolicyError, match=r"the pictures of .*store takes 0.0 GiB; this mach"):
        prepare(chosen)


def test_keys_that_push_t_lacks_are_refused_before_its_pictures_are_read(demos):
    path = demos / "pusht_human" / "pusht_cchi_v7_replay.zarr"
    options = {"env": "diffpolicy.envs:PushT-v0", "env_kwargs": '{"observation": "image"}'}
    with pytest.raises(DiffpolicyError, match="does not observe wrist; it observes agent_pos, im"):
        prepare(TrainConfig(data=path, out=path, obs=("image", "wrist"), **options))


@pytest.mark.parametrize("source", [arrays, by_key])
def test_a_small_picture_memory_leaves_them_on_disk_and_changes_nothing_else(
    config, source, caplog
):
    caplog.set_level("INFO", "diffpolicy")
    chosen = config(source())
    held = prepare(chosen)
    assert "pictures: 0 MB in memory" in caplog.text
    stored = prepare(replace(chosen, picture_memory=0.0))
    assert "read from disk in training (--picture-memory 0 GB)" in caplog.text
    assert held.training.in_memory and not stored.training.in_memory
    assert held.specification == stored.specification
    index = np.arange(len(held.training))
    for one, other in zip(held.training.gather(index), stored.training.gather(index), strict=True):
        for key in one if isinstance(one, dict) else [...]:
            np.testing.assert_array_equal(one[key], other[key], strict=True)
