"""Environments from elsewhere, without a line of code for them."""

import json
from pathlib import Path

import pytest

pytest.importorskip("gymnasium_robotics", reason="gymnasium-robotics is not installed")

from diffpolicy import environment
from diffpolicy.demonstrations import open_demonstrations

DOOR = "gymnasium_robotics:AdroitHandDoor-v1"
RECIPES = Path(__file__).parent.parent / "datasets"


def test_door_is_recorded_trained_and_evaluated_by_the_command_line(
    call, demos, tmp_path, monkeypatch
):
    if not (demos / "adroit_experts").is_dir():
        pytest.skip("DIFFPOLICY_DEMOS holds no adroit_experts/")
    monkeypatch.setenv("DIFFPOLICY_DEMOS", str(demos.resolve()))
    monkeypatch.chdir(RECIPES)
    store, run, result = (tmp_path / name for name in ("door.zarr", "run", "eval.json"))
    expert = ("--policy", "adroit_expert:door")
    assert call("record", "--env", DOOR, *expert, "--episodes", 2, "--out", store).code == 0
    attributes = open_demonstrations(store).attributes
    assert attributes["env_id"] == DOOR
    assert attributes["control_dt_s"] == pytest.approx(0.01)

    small = ("--steps", 20, "--hidden", 32, "--blocks", 1)
    assert call("train", "--data", store, "--out", run, *small).code == 0
    short = ("--episodes", 2, "--max-steps", 10, "--ddim-steps", 1, "--json", result)
    assert call("eval", "--run", run, *short).code == 0
    [record] = json.loads(result.read_text())["records"]
    assert record["episodes"] == 2


def test_dict_observations_are_flattened():
    env = environment.make("gymnasium_robotics:PointMaze_UMaze-v3", {})
    observation, _ = env.reset(seed=0)
    assert env.observation_space.shape == observation.shape == (8,)
    assert env.observation_space.contains(observation)
    env.close()
