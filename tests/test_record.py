"""Recording: successes only, the same by seed whatever interrupts it, and honest about the rest."""

import itertools
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import zarr
from gymnasium import spaces
from pictured import LOOK, SIDE, make_look

from diffpolicy import environment
from diffpolicy.config import RecordConfig
from diffpolicy.data.demonstration import OUTCOMES
from diffpolicy.data.demonstration_writer import DemonstrationWriter
from diffpolicy.data.demonstrations import open_demonstrations
from diffpolicy.data.formats import open_source
from diffpolicy.environment.outcome import new_outcome
from diffpolicy.errors import DiffpolicyError
from diffpolicy.record import record, run_expert

BALANCE = "diffpolicy.envs:Balance-v0"
TOSS = "test_record:Toss-v0"


class TossEnv(gymnasium.Env):
    """Succeeds where the last action and a hidden coin agree: about every other time."""

    control_dt_s = 0.1
    observation_space = spaces.Box(-1, 1, (2,), np.float64)
    action_space = spaces.Box(-1, 1, (1,), np.float32)

    def __init__(self, length=5):
        self.length = length

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.coin, self.tick = self.np_random.choice([-1, 1]), 0
        return self.np_random.uniform(-1, 1, 2), {}

    def step(self, action):
        self.tick += 1
        won = self.tick == self.length and bool(action[0] * self.coin > 0)
        info = {"success": won, "tails": self.tick == self.length and self.coin < 0}
        return self.np_random.uniform(-1, 1, 2), 0.0, self.tick == self.length, False, info

    def expert(self, rng):
        return lambda observation: rng.uniform(-1, 1, 1)


gymnasium.register("Toss-v0", entry_point=TossEnv, max_episode_steps=20)


def toss(out, episodes, **options):
    record(RecordConfig(TOSS, episodes=episodes, out=out, **options))
    return open_demonstrations(out)


def assert_same_store(one: Path, other: Path):
    a, b = open_demonstrations(one), open_demonstrations(other)
    assert a.attributes == b.attributes
    assert set(a.arrays) == set(b.arrays)
    np.testing.assert_array_equal(a.episode_ends, b.episode_ends)
    for name, values in a.arrays.items():
        np.testing.assert_array_equal(values, b.arrays[name])
    assert seeds_of(one) == seeds_of(other)


def seeds_of(path: Path) -> list[int]:
    attributes = open_demonstrations(path).attributes
    attributes.pop("format_version")
    return DemonstrationWriter(path, attributes).seeds


# What is kept


def test_only_successes_are_kept_and_the_dropped_are_counted(tmp_path, capsys):
    store = toss(tmp_path / "a.zarr", 20)
    seeds = seeds_of(tmp_path / "a.zarr")
    assert len(store.episode_ends) == len(seeds) == 20
    tried = seeds[-1] + 1
    assert tried > 20
    told = f"20 episodes kept, {tried - 20} of {tried} tried were dropped"
    assert told in capsys.readouterr().out
    env = gymnasium.make(TOSS).unwrapped
    for number, seed in enumerate(seeds):
        env.reset(seed=seed)
        assert store.action[store.episode_ends[number] - 1, 0] * env.coin > 0


def test_a_full_store_is_told_and_stays_as_it_is(tmp_path, capsys, snapshot):
    toss(tmp_path / "a.zarr", 3)
    before = snapshot(tmp_path)
    capsys.readouterr()
    toss(tmp_path / "a.zarr", 2)
    assert "holds 3 episodes already; none was recorded" in capsys.readouterr().out
    assert snapshot(tmp_path) == before


def test_row_t_of_the_actions_answers_row_t_of_the_observations(balance_store):
    store = open_demonstrations(balance_store)
    env = gymnasium.make(BALANCE)
    observation, _ = env.reset(seed=seeds_of(balance_store)[0])
    for row in range(store.episode_ends[0]):
        np.testing.assert_array_equal(store.arrays["observation"][row], np.float32(observation))
        observation, *_ = env.step(store.action[row])


def test_the_store_says_how_it_was_made(balance_store):
    attributes = open_demonstrations(balance_store).attributes
    assert attributes["env_id"] == BALANCE
    assert attributes["env_kwargs"] == {}
    assert attributes["control_dt_s"] == 0.02
    assert attributes["position_targets"] is False


def test_outcomes_final_observation_and_success_are_stored(balance_store):
    env = gymnasium.make(BALANCE)
    episodes, seeds = open_source(balance_store).episodes(), seeds_of(balance_store)
    for episode, seed in zip(episodes, seeds, strict=True):
        env.reset(seed=seed)
        steps = [env.step(action) for action in episode.arrays["action"]]
        for column, name in enumerate(OUTCOMES, 1):
            expected = np.float32([step[column] for step in steps])
            np.testing.assert_array_equal(episode.outcomes[name], expected)
        np.testing.assert_array_equal(episode.final["observation"], np.float32(steps[-1][0]))
        assert episode.success is True


def test_a_store_of_before_there_were_outcomes_is_continued_without_them(tmp_path):
    toss(tmp_path / "new.zarr", 4)
    attributes = open_demonstrations(tmp_path / "new.zarr").attributes
    with closing(DemonstrationWriter(tmp_path / "old.zarr", attributes)) as writer:
        episodes = open_source(tmp_path / "new.zarr").episodes()
        seeds = seeds_of(tmp_path / "new.zarr")
        for episode, seed in itertools.islice(zip(episodes, seeds, strict=True), 2):
            writer.append(episode.arrays, seed)
    toss(tmp_path / "old.zarr", 4)
    assert_same_store(tmp_path / "old.zarr", tmp_path / "new.zarr")
    assert not any(e.outcomes or e.final for e in open_source(tmp_path / "old.zarr").episodes())


def test_success_is_read_from_the_named_key(tmp_path):
    toss(tmp_path / "a.zarr", 5, success_from="tails")
    env = gymnasium.make(TOSS).unwrapped
    for seed in seeds_of(tmp_path / "a.zarr"):
        env.reset(seed=seed)
        assert env.coin < 0


def test_arguments_reach_the_environment(tmp_path):
    store = toss(tmp_path / "a.zarr", 3, env_kwargs='{"length": 7}')
    np.testing.assert_array_equal(np.diff(store.episode_ends, prepend=0), 7)


# The same seed, the same store


def test_recording_is_determined_by_the_seed(tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1000)):
        toss(tmp_path / name, 8, seed=seed)
    assert_same_store(tmp_path / "a", tmp_path / "b")
    assert seeds_of(tmp_path / "c")[0] >= 1000


def test_recording_in_parts_equals_recording_at_once(tmp_path):
    for episodes in (1, 4, 4, 9):
        toss(tmp_path / "parts", episodes)
    toss(tmp_path / "whole", 9)
    assert_same_store(tmp_path / "parts", tmp_path / "whole")


def command(out: Path, episodes: int) -> subprocess.Popen:
    """The real command, in a process of its own."""
    code = "from diffpolicy.cli import main; main()"
    options = ["--env", TOSS, "--episodes", str(episodes), "--out", str(out)]
    return subprocess.Popen(
        [sys.executable, "-c", code, "record", *options],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def finished(out: Path) -> int:
    """Number of episodes that a reader sees now."""
    try:
        return len(open_demonstrations(out).episode_ends)
    except DiffpolicyError:  # there is no store yet, or no episode in it
        return 0


def stop(process: subprocess.Popen, out: Path, episodes: int, number: int) -> str:
    """Signals the process once the store holds so many episodes; its stderr."""
    while finished(out) < episodes and process.poll() is None:
        time.sleep(0.001)
    process.send_signal(number)
    return process.communicate()[1]


def test_recording_killed_at_ten_moments_and_repeated_equals_recording_at_once(tmp_path):
    rng, episodes = random.Random(0), 100
    moments = sorted(rng.sample(range(episodes - 30), 10))
    for moment in moments:
        process = command(tmp_path / "killed.zarr", episodes)
        stop(process, tmp_path / "killed.zarr", moment, signal.SIGKILL)
        assert process.returncode == -signal.SIGKILL
    process = command(tmp_path / "killed.zarr", episodes)
    process.communicate()
    assert process.returncode == 0
    toss(tmp_path / "whole.zarr", episodes)
    assert_same_store(tmp_path / "killed.zarr", tmp_path / "whole.zarr")


def test_control_c_says_so_and_leaves_a_store_that_goes_on(tmp_path):
    process = command(tmp_path / "a.zarr", 10_000)
    errors = stop(process, tmp_path / "a.zarr", 3, signal.SIGINT)
    assert process.returncode == 130
    assert errors.splitlines()[-1] == "interrupted" and "Traceback" not in errors
    kept = finished(tmp_path / "a.zarr")
    assert 3 <= kept < 10_000
    toss(tmp_path / "a.zarr", kept + 2)
    toss(tmp_path / "whole.zarr", kept + 2)
    assert_same_store(tmp_path / "a.zarr", tmp_path / "whole.zarr")


# Anybody's policy

POLICIES = """
import numpy as np

def right(observation):
    return np.array([1.0])

def two(observation):
    return [0.0, 0.0]

def text(observation):
    return "left"

def nan(observation):
    return [float("nan")]

number = 1.0
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A working directory with a module of policies, and one that does not parse."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "policies_here.py").write_text(POLICIES)
    (tmp_path / "broken_here.py").write_text("def right(:")
    yield tmp_path
    sys.modules.pop("policies_here", None)


def test_policy_names_a_function_of_a_module_in_the_working_directory(here):
    store = toss(here / "a.zarr", 5, policy="policies_here:right")
    assert np.all(store.action == 1)
    assert store.attributes["expert"] == "policies_here:right"


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        ("policies_here", "must be module:function"),
        ("policies_here:left", "no attribute 'left'"),
        ("policies_here:number", "must be module:function"),
        ("nowhere_at_all:right", "No module named"),
        ("broken_here:right", "invalid syntax"),
        (":right", "must be module:function"),
        (".policies_here:right", "must be module:function"),
        ("policies_here:two", r"the expert gives \(2,\); actions are \(1,\)"),
        ("policies_here:text", "the expert gives no numbers: 'left'"),
        ("policies_here:nan", "not finite"),
    ],
)
def test_a_policy_that_cannot_act_is_refused(here, policy, message):
    with pytest.raises(DiffpolicyError, match=message):
        toss(here / "a.zarr", 5, policy=policy)
    assert not (here / "a.zarr").exists()


def test_an_expert_that_never_succeeds_is_no_endless_loop(tmp_path):
    with pytest.raises(DiffpolicyError, match="no success in 50 consecutive episodes"):
        toss(tmp_path / "a.zarr", 5, max_steps=3)
    assert not (tmp_path / "a.zarr").exists()


# A store made otherwise


@pytest.mark.parametrize(
    "options",
    [
        {"seed": 1},
        {"env_kwargs": '{"length": 7}'},
        {"control_dt": 0.5},
        {"max_steps": 10},
        {"success_from": "tails"},
        {"policy": "test_record:always_right"},
    ],
)
def test_a_store_made_otherwise_is_refused_and_untouched(tmp_path, snapshot, options):
    toss(tmp_path / "a.zarr", 3)
    before = snapshot(tmp_path)
    with pytest.raises(DiffpolicyError, match=r"was made with .*; choose another --out"):
        toss(tmp_path / "a.zarr", 5, **options)
    assert snapshot(tmp_path) == before


def always_right(observation):
    return np.ones(1)


def test_a_rule_of_success_is_kept_and_an_older_store_goes_on(tmp_path):
    toss(tmp_path / "a.zarr", 2)
    assert open_demonstrations(tmp_path / "a.zarr").attributes["success"] is None
    with pytest.raises(DiffpolicyError, match="was made with success = None, not 'at-end'"):
        toss(tmp_path / "a.zarr", 3, success="at-end")
    del zarr.open_group(tmp_path / "a.zarr").attrs["success"]
    assert len(toss(tmp_path / "a.zarr", 3).episode_ends) == 3
    store = toss(tmp_path / "b.zarr", 2, success="at-end")
    assert store.attributes["success"] == "at-end"
    with pytest.raises(DiffpolicyError, match="no success in 50 consecutive episodes"):
        toss(tmp_path / "c.zarr", 1, success="held:2")


# Environments and experts with habits


class SlideEnv(TossEnv):
    """A point that the action moves; gives one array, written anew at each step."""

    observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float64)
    action_space = spaces.Box(-0.3, 0.3, (1,), np.float64)

    def __init__(self, wrong=None, at=3, **options):
        super().__init__(**options)
        self.buffer, self.wrong, self.at = np.zeros(2), wrong, at
        self.applied = []

    def reset(self, *, seed=None, options=None):
        self.tick, self.seed = 0, seed
        self.applied.clear()
        self.buffer[:] = seed, 0
        return self.buffer, {}

    def step(self, action):
        self.tick += 1
        self.applied.append(action.copy())
        self.buffer += action
        action[:] = 9
        if self.seed == 2 and self.tick == self.at and self.wrong:
            self.buffer[1] = float(self.wrong)
        over = self.tick == self.length
        return self.buffer, 0.0, over, False, {"is_success": True} if over else {}

    def expert(self, rng):
        answer = np.zeros(1)

        def act(observation):
            answer[:] = 0.1 + observation[1] / 7  # the same array every time
            observation[:] = 5
            return answer

        return act


class SlideDictEnv(SlideEnv):
    observation_space = spaces.Dict({"x": spaces.Box(-9, 9, (1,)), "a": spaces.Box(-9, 9, (1,))})

    def _as_dict(self, outcome):
        return ({"x": outcome[0][:1], "a": outcome[0][1:]}, *outcome[1:])

    def reset(self, **options):
        return self._as_dict(super().reset(**options))

    def step(self, action):
        return self._as_dict(super().step(action))


gymnasium.register("Slide-v0", entry_point=SlideEnv, max_episode_steps=20)
gymnasium.register("SlideDict-v0", entry_point=SlideDictEnv, max_episode_steps=20)
SLIDE = "test_record:Slide-v0"


def slide(out, episodes=4, env=SLIDE, **options):
    record(RecordConfig(env, episodes=episodes, out=out, **options))
    return open_demonstrations(out)


def test_every_row_is_a_copy(tmp_path):
    """The environment writes into its observation and into the action; the expert does so too."""
    store = slide(tmp_path / "a.zarr", 2)
    observation, action = store.arrays["observation"], store.action
    np.testing.assert_allclose(np.diff(observation[:5, 1]), action[:4, 0], atol=1e-6)
    np.testing.assert_allclose(observation[:5, 0] - observation[:5, 1], 0, atol=1e-6)
    np.testing.assert_allclose(action[:, 0], 0.1 + observation[:, 1] / 7, atol=1e-6)
    assert len(np.unique(observation[:5], axis=0)) == 5


def test_the_action_that_is_stored_is_the_one_that_was_applied(tmp_path):
    """A space of float64 does not see digits that the store has not."""
    env = environment.make(SLIDE, {})
    outcome = new_outcome(env, None, "at-any-tick")
    arrays = run_expert(env, env.unwrapped.expert(None), 0, outcome).arrays
    applied = np.array(env.unwrapped.applied)
    assert applied.dtype == np.float64 and arrays["action"].dtype == np.float32
    np.testing.assert_array_equal(applied, arrays["action"].astype(np.float64))


def test_the_order_of_a_dict_is_written_and_told(tmp_path, call):
    store = slide(tmp_path / "a.zarr", 2, "test_record:SlideDict-v0")
    assert store.attributes["observation_keys"] == ["a", "x"]
    np.testing.assert_allclose(store.arrays["observation"][5:, 1][:1], 1.0)  # x begins at the seed
    assert "observation_keys: ['a', 'x']" in call("info", tmp_path / "a.zarr").out


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("nan", "the environment observes nan at index 1, tick 3 of seed 2; expected finite"),
        ("inf", "the environment observes inf at index 1, tick 3 of seed 2"),
        (
            "1e39",
            r"observes 1e\+39 at index 1, tick 3 of seed 2; expected .* that float32 can hold",
        ),
    ],
)
def test_an_observation_that_cannot_be_stored_is_named_and_costs_no_episode(
    tmp_path, recwarn, wrong, message
):
    kwargs = f'{{"wrong": "{wrong}"}}'
    with pytest.raises(DiffpolicyError, match=message):
        slide(tmp_path / "a.zarr", env_kwargs=kwargs)
    assert seeds_of(tmp_path / "a.zarr") == [0, 1]
    assert not [w for w in recwarn if "overflow" in str(w.message)]


EXPERTS = """
import numpy as np

def act(observation):
    if observation[0] >= 2:
        raise KeyError("gripper")
    return np.full(1, 0.1)

def slow(observation):
    return np.full(1, 0.1) if observation[0] < 2.25 else [np.inf]
"""


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("act", r"the expert failed at tick 0 of seed 2: KeyError: 'gripper' \(.*experts.py:6\)"),
        ("slow", r"an action that is not finite: \[inf\], tick 3 of seed 2"),
    ],
)
def test_an_expert_that_fails_is_named_and_costs_no_episode(here, refused, name, message):
    (here / "experts.py").write_text(EXPERTS)
    line = refused(
        "record", "--env", SLIDE, "--episodes", 4, "--out", "a.zarr", "--policy", f"experts:{name}"
    )
    sys.modules.pop("experts", None)
    assert re.search(message, line)
    assert seeds_of(here / "a.zarr") == [0, 1]


def test_an_expert_that_cannot_be_imported_is_named(here):
    (here / "dead_here.py").write_text("1 / 0")
    with pytest.raises(DiffpolicyError, match=r"ZeroDivisionError.*dead_here.py:1\)"):
        slide(here / "a.zarr", policy="dead_here:act")


# Pictures


def look(out, **options):
    record(RecordConfig(LOOK, episodes=2, out=out, **options))
    root = zarr.open_group(out, mode="r")
    return {name: root[f"data/{name}"][:] for name in root["data"]}, dict(root.attrs)


def test_every_key_of_a_dict_with_pictures_is_stored_under_its_name(tmp_path):
    arrays, attributes = look(tmp_path / "a.zarr", env_kwargs='{"layout": "chw"}')
    assert set(arrays) == {"image", "place", "action", *OUTCOMES}
    assert arrays["image"].dtype == np.uint8 and arrays["image"].shape[1:] == (SIDE, SIDE, 3)
    assert arrays["place"].dtype == np.float32
    assert attributes["observation_keys"] is None and attributes["camera"] is None
    env = make_look()
    seen, _ = env.reset(seed=seeds_of(tmp_path / "a.zarr")[0])
    np.testing.assert_array_equal(arrays["image"][0], seen["image"])
    np.testing.assert_array_equal(arrays["image"][1], env.step(arrays["action"][0])[0]["image"])


def test_a_camera_is_stored_and_told(tmp_path):
    out = tmp_path / "a.zarr"
    arrays, attributes = look(
        out, env_kwargs='{"layout": ""}', camera=8, policy="test_record:seeing"
    )
    assert set(arrays) == {"observation", "pixels", "action", *OUTCOMES}
    assert arrays["pixels"].shape[1:] == (8, 8, 3) and attributes["camera"] == 8
    with pytest.raises(DiffpolicyError, match="made with camera = 8, not None"):
        look(out, env_kwargs='{"layout": ""}', policy="test_record:seeing")


@pytest.mark.parametrize("kwargs", ['{"layout": ""}', '{"layout": "hwc"}'])
def test_the_environment_s_own_expert_needs_no_camera(tmp_path, kwargs):
    """It is given what the environment observes by itself, and acts as without the camera."""
    arrays, _ = look(tmp_path / "a.zarr", env_kwargs=kwargs, camera=8)
    plain, _ = look(tmp_path / "b.zarr", env_kwargs=kwargs)
    assert set(arrays) == {*plain, "pixels"}
    np.testing.assert_array_equal(arrays["action"], plain["action"])


def seeing(observation):
    """An expert that is given both keys."""
    return -np.sign(observation["observation"])


def test_a_store_from_before_cameras_is_continued(tmp_path):
    out = tmp_path / "a.zarr"
    toss(out, 2)
    attributes = json.loads((out / ".zattrs").read_text())
    del attributes["camera"]
    (out / ".zattrs").write_text(json.dumps(attributes))
    assert len(toss(out, 3).episode_ends) == 3


def test_recording_continues_after_all_stored_seeds(tmp_path):
    """An episode whose seed is unknown, as after `filter --idle`, does not start over."""
    with closing(DemonstrationWriter(tmp_path / "s.zarr", {})) as writer:
        assert writer.next_seed(5) == 5
        for seed in (5, 8, -1):
            writer.append({"action": np.zeros((2, 1))}, seed)
        assert writer.next_seed(5) == 9
