"""A third-party environment with pictures works without code of its own."""

import json

import numpy as np
import pytest

from diffpolicy.data.demonstrations import contents

PUSHT = "gym_pusht:gym_pusht/PushT-v0"
CONTACT = ("--success-from", "n_contacts>0")  # the agent touches the block
GREY, SIDE, WIDTH = (119, 136, 153), 96, 512  # colour of the block; px of the picture and the plane


@pytest.fixture(scope="module", autouse=True)
def gym_pusht():
    """Skip without gym-pusht."""
    return pytest.importorskip("gym_pusht", reason="gym-pusht is not installed")


def to_the_block(observation):
    """Go to the middle of the grey block, as the picture shows it."""
    distance = np.abs(observation["pixels"].astype(int) - GREY).sum(-1)
    rows, columns = np.nonzero(distance < 30)
    if not len(rows):
        return observation["agent_pos"]
    return (np.array([columns.mean(), rows.mean()]) + 0.5) * WIDTH / SIDE


def evaluate(call, run, result):
    options = ("--episodes", 2, "--max-steps", 10, "--ddim-steps", 1, "--engine", "eager")
    done = call("eval", "--run", run, *options, *CONTACT, "--workers", 1, "--json", result)
    assert done.code == 0, done.errors
    [record] = json.loads(result.read_text())["records"]
    assert record["episodes"] == 2 and not record["failures"]
    return done


def train(call, store, run, *options):
    small = ("--steps", 4, "--batch", 8, "--hidden", 16, "--blocks", 1, "--keypoints", 4)
    done = call("train", "--data", store, "--out", run, *small, *options)
    assert done.code == 0, done.errors


def test_pixels_and_agent_pos_are_recorded_trained_and_evaluated(call, tmp_path):
    store, run, result = (tmp_path / name for name in ("a.zarr", "run", "eval.json"))
    kwargs = json.dumps({"obs_type": "pixels_agent_pos"})
    expert = ("--policy", "test_foreign_pictures:to_the_block", *CONTACT, "--control-dt", 0.1)
    length = ("--max-steps", 30, "--episodes", 2)
    given = ("--env", PUSHT, "--env-kwargs", kwargs, *expert, *length)
    done = call("record", *given, "--out", store)
    assert done.code == 0, done.errors
    found = contents(store)
    assert found.array("pixels")[0].dtype == np.uint8
    assert found.array("pixels")[0].shape[1:] == (SIDE, SIDE, 3)
    train(call, store, run)
    told = evaluate(call, run, result).out
    assert "memory of pictures" in told


def test_a_camera_is_recorded_trained_and_evaluated(call, tmp_path):
    store, run, result = (tmp_path / name for name in ("a.zarr", "run", "eval.json"))
    camera = ("--env", PUSHT, "--camera", 24, "--control-dt", 0.1, "--max-steps", 30)
    expert = ("--policy", "test_foreign_pictures:from_the_state", *CONTACT)
    done = call("record", *camera, *expert, "--episodes", 2, "--out", store)
    assert done.code == 0, done.errors
    train(call, store, run, "--obs", "pixels")
    evaluate(call, run, result)


def from_the_state(observation):
    """Go to the block, as the state tells: agent x, y, block x, y, angle."""
    return observation["observation"][2:4]
