"""Third-party environments work without code of their own."""

import json
import pickle
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from diffpolicy import environment
from diffpolicy.data.demonstrations import open_demonstrations
from diffpolicy.environment.outcome import success_rule
from diffpolicy.errors import DiffpolicyError

DOOR = "gymnasium_robotics:AdroitHandDoor-v1"
RECIPES = Path(__file__).parents[2] / "datasets"


@pytest.fixture(scope="module")
def robotics():
    """Skip without Gymnasium-Robotics."""
    return pytest.importorskip("gymnasium_robotics", reason="gymnasium-robotics is not installed")


def test_door_is_recorded_trained_and_evaluated_by_the_command_line(
    robotics, call, demos, tmp_path, monkeypatch
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


def test_dict_observations_are_flattened(robotics):
    env = environment.make("gymnasium_robotics:PointMaze_UMaze-v3", {})
    observation, _ = env.reset(seed=0)
    assert env.observation_space.shape == observation.shape == (8,)
    assert env.observation_space.contains(observation)
    env.close()


@pytest.fixture(scope="module")
def human_door(robotics, demos, tmp_path_factory):
    """Module of the recipe and the store that it makes."""
    path = demos / "adroit_door_human" / "door-v0_demos.pickle"
    if not path.is_file():
        pytest.skip("DIFFPOLICY_DEMOS holds no adroit_door_human/")
    sys.path.insert(0, str(RECIPES))
    try:
        import adroit_door_human as recipe
    finally:
        sys.path.remove(str(RECIPES))
    store = tmp_path_factory.mktemp("door") / "door_human.zarr"
    recipe.convert(path, store)
    return recipe, store


def test_human_door_replays_as_it_was_recorded(human_door):
    """The hinge reaches 1.0 rad in all 25 episodes, and 1.35 rad, success, in 8 (recorded: 7)."""
    recipe, store = human_door
    demonstrations = open_demonstrations(store, ["observation", "replayed"])
    assert len(demonstrations.episode_ends) == 25 and demonstrations.episode_ends[-1] == 6729
    ends = list(demonstrations.episode_ends)
    hinge = demonstrations.arrays["replayed"][:, recipe.HINGE]
    furthest = [hinge[a:b].max() for a, b in pairwise([0, *ends])]
    assert sum(rad >= 1.0 for rad in furthest) == 25
    assert sum(rad >= recipe.OPEN_RAD for rad in furthest) == 8


def test_human_door_starts_where_the_demonstrations_did(human_door):
    recipe, store = human_door
    env = recipe.HumanDoor(starts=str(store), success_rad=1.0)
    replayed = open_demonstrations(store, ["replayed"])
    observation, _ = env.reset(seed=0, options={"demonstration": 1})
    np.testing.assert_allclose(
        observation, replayed.arrays["replayed"][replayed.episode_ends[0]], atol=1e-6
    )
    seeded = [env.reset(seed=seed)[0] for seed in (3, 3, 4)]
    np.testing.assert_array_equal(seeded[0], seeded[1])
    assert np.any(seeded[0] != seeded[2])
    env.close()


def test_any_other_file_than_the_known_one_is_refused(human_door, tmp_path):
    recipe, store = human_door
    path = tmp_path / "other.pickle"
    with pytest.raises(DiffpolicyError, match="cannot read the demonstrations"):
        recipe.convert(path, tmp_path / "out.zarr")
    path.write_bytes(pickle.dumps([]))
    with pytest.raises(DiffpolicyError, match="is not the known file"):
        recipe.convert(path, tmp_path / "out.zarr")
    assert not (tmp_path / "out.zarr").exists()
    with pytest.raises(DiffpolicyError, match="exists; choose another"):
        recipe.convert(path, store)


TASKS = {
    "gymnasium_robotics:AdroitHandDoor-v1": (39, 28, "success"),
    "gymnasium_robotics:AdroitHandHammer-v1": (46, 26, "success"),
    "gymnasium_robotics:AdroitHandPen-v1": (45, 24, "success"),
    "gymnasium_robotics:AdroitHandRelocate-v1": (39, 30, "success"),
    "gymnasium_robotics:FrankaKitchen-v1": (93, 9, "tasks_to_complete"),
    "gymnasium_robotics:FetchReach-v4": (16, 4, "is_success"),
    "gymnasium_robotics:FetchPush-v4": (31, 4, "is_success"),
    "gymnasium_robotics:FetchSlide-v4": (31, 4, "is_success"),
    "gymnasium_robotics:FetchPickAndPlace-v4": (31, 4, "is_success"),
    "gymnasium_robotics:PointMaze_UMaze-v3": (8, 2, "success"),
    "Pusher-v5": (23, 7, "reward_dist>-0.1"),
    "Reacher-v5": (10, 2, "reward_dist>-0.05"),
}
UNTIMED = ("gymnasium_robotics:PointMaze", "gymnasium_robotics:FrankaKitchen")  # say it yourself


@pytest.mark.parametrize("env_id", TASKS)
def test_other_peoples_environments_need_no_code(env_id):
    """They have flat observations and actions, a control period, a limit and a success flag."""
    observations, actions, key = TASKS[env_id]
    try:
        env = environment.make(env_id, {})
    except DiffpolicyError as error:
        pytest.skip(f"not with these packages: {error}")
    condition = key if ">" in key else None
    observation, _ = env.reset(seed=0)
    assert observation.shape == env.observation_space.shape == (observations,)
    assert env.action_space.shape == (actions,)
    own = env_id.startswith(UNTIMED)
    assert environment.control_dt_s(env, 0.05 if own else None) > 0
    assert environment.episode_limit(env) > 0
    *_, info = env.step(env.action_space.sample())
    assert success_rule(condition)(info) in (True, False)
    env.close()


def test_metaworld_runs_where_it_is_importable():
    pytest.importorskip("metaworld", reason="metaworld is not installed")
    env = environment.make("Meta-World/MT1", {"env_name": "reach-v3"}, render_mode=None)
    observation, _ = env.reset(seed=0)
    assert observation.shape == (39,)
    *_, info = env.step(env.action_space.sample())
    assert success_rule(None)(info) in (True, False)
    env.close()
