"""Pictures of denoising: the demonstrations behind it, the scene, and the files of the command."""

from contextlib import closing
from pathlib import Path
from shutil import copytree

import numpy as np
import pytest
from conftest import rewrite
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from diffpolicy import environment
from diffpolicy.eval.data_config import DenoiseConfig
from diffpolicy.eval.measure.denoising import (
    NEAREST,
    Denoising,
    Trajectory,
    nearest,
    scene_of,
    trace,
)
from diffpolicy.eval.measure.held_out import HeldOut
from diffpolicy.eval.report.denoising import COLUMNS, DPI, images, label, moments, strip
from diffpolicy.eval.report.figure import png
from diffpolicy.training.config import TrainConfig
from diffpolicy.training.train import train


@given(st.integers(1, 200))
def test_the_strip_begins_with_noise_and_stops_before_the_actions(steps):
    found = moments(steps)
    assert found[0] == 0 and found[-1] < steps
    assert len(found) == min(steps, COLUMNS) == len(set(found))
    assert found == sorted(found)


def held(observations, lengths):
    """Demonstrations whose action is the number of their row."""
    ends, rows = np.cumsum(lengths), len(observations)
    actions = np.arange(rows, dtype=np.float32)[:, None]
    return HeldOut(Path(), {"state": observations}, actions, ends, np.arange(len(ends)), "all")


def test_the_nearest_row_of_each_episode_gives_its_actions_the_nearest_episode_first():
    data = held(np.array([[0.0], [5.0], [2.0], [9.0], [4.0], [30.0]]), [3, 3])
    found = nearest(data, {"state": np.array([4.1])}, ticks=2)
    assert [actions.ravel().tolist() for actions in found] == [[4, 5], [1, 2]]
    [first, *_] = nearest(data, {"state": np.array([31.0])}, ticks=9)
    assert first.ravel().tolist() == [5]  # to the end of its episode


def test_each_number_counts_in_its_standard_deviation():
    rng = np.random.default_rng(0)
    rows, unit = rng.normal(size=(60, 3)), np.array([1.0, 1e3, 1e-3])
    seen = rng.normal(size=3)
    ours = nearest(held(rows, [3] * 20), {"state": seen}, 4)
    scaled = nearest(held(rows * unit, [3] * 20), {"state": seen * unit}, 4)
    assert len(ours) == NEAREST
    for one, other in zip(ours, scaled, strict=True):
        np.testing.assert_array_equal(one, other)


def test_pictures_alone_have_no_distance(capsys):
    found = nearest(held(np.zeros((4, 1)), [4]), {"camera": np.zeros((8, 8, 3), np.uint8)}, 4)
    assert found == [] and "observes pictures alone" in capsys.readouterr().out


@pytest.mark.parametrize("task", ["PushT-v0", "Detour-v0"])
def test_an_action_is_drawn_where_the_cursor_of_it_is(task):
    """Straight for PushT, through the joints of an arm for Detour: around the robot, in reach."""
    env = environment.make(f"diffpolicy.envs:{task}", {}, render_mode="rgb_array")
    with closing(env):
        env.reset(seed=0)
        scene = scene_of(env)
        assert scene is not None
        cursors = env.unwrapped.cursor + np.random.default_rng(0).uniform(-0.05, 0.05, (40, 2))
        actions = np.array([env.unwrapped.action_from_cursor(c) for c in cursors])
        np.testing.assert_allclose(scene.place(actions), cursors, atol=0.005)
        assert np.isnan(scene.place(actions + 1e6)).all()


def test_a_scene_needs_no_cursor_and_one_that_fails_is_told(monkeypatch, capsys):
    env = environment.make("diffpolicy.envs:PushT-v0", {}, render_mode="rgb_array")
    with closing(env):
        env.reset(seed=0)
        monkeypatch.setattr(type(env.unwrapped), "cursor", None)
        assert scene_of(env) is not None
        monkeypatch.setattr(type(env.unwrapped), "action_from_cursor", lambda *_: 1 / 0)
        assert scene_of(env) is None
    assert "no scene behind the chunks: division by zero" in capsys.readouterr().out


def test_an_environment_without_places_has_no_scene():
    env = environment.make("diffpolicy.envs:Balance-v0", {}, render_mode="rgb_array")
    with closing(env):
        env.reset(seed=0)
        assert scene_of(env) is None


@pytest.mark.parametrize("store", ["balance", "pusht"])
def test_the_command_draws_every_step_of_two_budgets(store, tiny_run, tmp_path, call, request):
    """One action drawn over the ticks, two as paths in the scene."""
    run = tiny_run
    if store == "pusht":
        run = tmp_path / "run"
        data = request.getfixturevalue("demos") / "pusht_human" / "pusht_cchi_v7_replay.zarr"
        env = "diffpolicy.envs:PushT-v0"
        small = {"steps": 2, "hidden": 16, "blocks": 1, "device": "cpu"}
        train(TrainConfig(data=data, env=env, out=run, **small))
    out = tmp_path / "pictures" / "denoise.webp"
    done = call("denoise", "--run", run, "--out", out, "--ddim-steps", 1, 5, "--chunks", 3)
    assert done.code == 0 and "5 steps: 5 network evaluations" in done.out
    for absent in ("no demonstrations", "no scene", "no environment"):
        assert absent not in done.out
    with Image.open(out) as film, Image.open(out.with_suffix(".png")) as strip:
        assert film.n_frames == 6 and strip.size[0] > 500
    assert sorted(path.name for path in out.parent.iterdir()) == ["denoise.png", "denoise.webp"]


def test_paths_without_a_scene_are_drawn_in_equal_units_and_nothing_is_said(caplog):
    """Two actions whose ranges differ twentyfold; matplotlib keeps the limits, or would warn."""
    rng = np.random.default_rng(0)
    xs, x0s = rng.normal(size=(3, 2, 4, 2)), rng.normal(size=(2, 2, 4, 2)) * [1, 20]
    found = Denoising([Trajectory("2 steps", [99, 49], xs, x0s)], [])
    png(strip(found), DPI)
    images(found)
    assert caplog.messages == []


def test_every_budget_starts_from_the_same_noise_and_ends_at_its_prediction(tiny_run):
    few, many = trace(DenoiseConfig(run=tiny_run, ddim_steps=(2, 7), chunks=3)).trajectories
    np.testing.assert_array_equal(few.xs[0], many.xs[0])
    assert (len(few.xs), len(few.x0s), few.times) == (3, 2, [99, 49])
    assert (len(many.xs), len(many.x0s)) == (8, 7)
    np.testing.assert_array_equal(many.xs[-1], many.x0s[-1])
    assert label(few, 0) == "noise, t = 99" and label(few, 1) == "after 1, t = 49"
    assert label(few, 2) == "after 2 steps: actions"


def test_without_the_data_of_training_there_are_no_demonstrations_and_a_line_says_so(
    tiny_run, tmp_path, capsys
):
    config = DenoiseConfig(run=tiny_run, ddim_steps=(1,), chunks=2)
    assert len(trace(config).demonstrated) == 6
    moved = copytree(tiny_run, tmp_path / "run")

    def forget(header, tensors):
        header["specification"]["training"]["config"]["data"] = "gone.zarr"

    rewrite(moved / "policy.safetensors", forget)
    found = trace(DenoiseConfig(run=moved, ddim_steps=(1,), chunks=2))
    assert found.demonstrated == [] and len(found.trajectories) == 1
    assert "no demonstrations behind the chunks" in capsys.readouterr().out
