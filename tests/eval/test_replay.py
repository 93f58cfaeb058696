"""Open-loop replay: a recorded store repeats to the bit, and changes are found."""

import json
import shutil

import gymnasium
import numpy as np
import pytest
import zarr

HUMAN = "pusht_human/pusht_cchi_v7_replay.zarr"


def test_a_recorded_store_repeats_to_the_bit(balance_store, tmp_path, call):
    file = tmp_path / "replay.json"
    code, out, errors = call("replay", balance_store, "--json", file)
    assert (code, errors) == (0, [])
    assert "6 of 6 episodes succeed: 100.0%, 95 % interval 61.0% to 100.0%" in out
    assert "observation: equal to the recording in all 6 episodes" in out
    result = json.loads(file.read_text())
    assert (result["format"], result["successes"], result["episodes"]) == ("replay", 6, 6)
    for number, row in enumerate(result["records"]):
        assert (row["episode"], row["seed"], row["ticks"]) == (number, number, row["actions"])
        [difference] = row["differences"]
        assert difference["first_tick"] is None and difference["largest"] == 0
    lines = (tmp_path / "replay_episodes.csv").read_text().splitlines()
    assert len(lines) == 7 and "observation.far_tick" in lines[0]


def test_a_replay_is_drawn_again(balance_store, tmp_path, call):
    first = call("replay", balance_store, "--episodes", 2, "--json", tmp_path / "r.json").out
    again = call("report", tmp_path / "r.json", "--out", tmp_path / "again").out
    assert first.splitlines()[:-1] == again.splitlines()[1:-1]
    assert (tmp_path / "again/r_episodes.csv").read_bytes() == (
        tmp_path / "r_episodes.csv"
    ).read_bytes()


def test_the_tick_of_a_changed_action_is_found(balance_store, tmp_path, call):
    shutil.copytree(balance_store, tmp_path / "store")
    group = zarr.open_group(tmp_path / "store", mode="r+")
    group["data/action"][20] = 1 - group["data/action"][20]
    file = tmp_path / "replay.json"
    call("replay", tmp_path / "store", "--episodes", 2, "--json", file)
    first, second = (row["differences"][0] for row in json.loads(file.read_text())["records"])
    assert first["first_tick"] == 21 <= first["far_tick"]
    assert first["largest"] > 0 and second["first_tick"] is None


def test_a_store_without_seeds_is_refused(balance_store, tmp_path, refused):
    shutil.copytree(balance_store, tmp_path / "store")
    zarr.open_group(tmp_path / "store", mode="r+")["meta/episode_seeds"][:] = -1
    message = refused("replay", tmp_path / "store")
    assert "holds no reset seeds" in message and "--start" in message


def test_episodes_without_a_seed_are_left_out(balance_store, tmp_path, call):
    shutil.copytree(balance_store, tmp_path / "store")
    zarr.open_group(tmp_path / "store", mode="r+")["meta/episode_seeds"][1] = -1
    out = call("replay", tmp_path / "store", "--episodes", 3).out
    assert "2 of 2 episodes succeed" in out and "left out: 1 episodes without a seed" in out


def test_episodes_that_are_asked_for_without_seeds_are_refused(balance_store, tmp_path, refused):
    """Also if later ones have seeds."""
    shutil.copytree(balance_store, tmp_path / "store")
    zarr.open_group(tmp_path / "store", mode="r+")["meta/episode_seeds"][:2] = -1
    message = refused("replay", tmp_path / "store", "--episodes", 2)
    assert "holds no reset seeds of its first 2 episodes" in message


def test_attributes_that_the_replay_needs_are_checked(balance_store, tmp_path, call, refused):
    shutil.copytree(balance_store, tmp_path / "store")
    attributes = zarr.open_group(tmp_path / "store", mode="r+").attrs
    attributes["max_steps"] = "many"
    message = refused("replay", tmp_path / "store")
    assert "give --max-steps; the attribute max_steps must be" in message
    attributes.update(max_steps=None, control_dt_s=0.1)
    out = call("replay", tmp_path / "store", "--episodes", 1).out
    assert "recorded at a control period of 0.1 s" in out and "has 0.02 s" in out


class Drawn(gymnasium.Env):
    """Starts where it is told, and shows noise of its seed."""

    action_space = gymnasium.spaces.Box(-1, 1, (1,))
    observation_space = gymnasium.spaces.Box(-9, 9, (2,))

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.float32([options["start"][0], self.np_random.normal()]), {}

    def step(self, action):
        return np.float32([0, self.np_random.normal()]), 0.0, False, False, {"success": True}


class Divided(Drawn):
    """A simulation that gives inf."""

    def step(self, action):
        return np.float32([np.inf, 0]), 0.0, False, False, {"success": True}


gymnasium.register("Divided-v0", Divided, max_episode_steps=9)
gymnasium.register("Drawn-v0", Drawn, max_episode_steps=9)


def test_a_replay_from_a_start_repeats_noise_included(tmp_path, call, refused):
    from stores import write_plainly

    arrays = {"observation": np.ones((5, 2)), "start": np.ones((5, 1)), "action": np.ones((5, 1))}
    store = write_plainly(tmp_path / "s", arrays, [2, 5])
    largest = []
    for name in ("a", "b"):
        file = tmp_path / f"{name}.json"
        call("replay", store, "--env", "Drawn-v0", "--start", "start", "--json", file)
        rows = json.loads(file.read_text())["records"]
        largest.append([row["differences"][0]["largest"] for row in rows])
    assert largest[0] == largest[1] and len(set(largest[0])) == 2
    message = refused("replay", store, "--env", "Divided-v0", "--start", "start")
    assert "observation of episode 0 is not finite (NaN or inf) at tick 1" in message


def test_human_push_t_starts_from_its_states(demos, tmp_path, call):
    file = tmp_path / "replay.json"
    start = ["--env", "diffpolicy.envs:PushT-v0", "--start", "state", "--episodes", 3]
    success = ["--success-from", "coverage>0.8"]
    code, out, _ = call("replay", demos / HUMAN, *start, *success, "--json", file)
    assert code == 0 and "3 of 3 episodes succeed" in out
    for row in json.loads(file.read_text())["records"]:
        assert row["seed"] is None
        assert row["differences"][0]["first_tick"] != 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--env", "diffpolicy.envs:PushT-v0"), "takes actions of 2 numbers; the store has 1"),
        (("--start", "nothing"), "--start: episode 0 has no nothing; it holds: "),
        (("--success-from", "nothing"), "info has no nothing"),
        (("--success", "often"), "--success must be at-any-tick"),
    ],
)
def test_what_does_not_fit_is_refused(balance_store, refused, options, words):
    assert words in refused("replay", balance_store, *options)


def test_data_without_an_environment_are_refused(tmp_path, refused):
    from stores import write_plainly

    path = write_plainly(tmp_path / "s", {"action": np.ones((4, 1))}, [4])
    assert "names no environment; give --env ID" in refused("replay", path)
