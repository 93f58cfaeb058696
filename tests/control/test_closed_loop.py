"""Another's environment, with habits, from the recording to the result."""

import json
import shutil
from dataclasses import replace

import gymnasium
import numpy as np
import pytest
import zarr
from gymnasium import spaces
from matplotlib import pyplot as plt

from diffpolicy import environment
from diffpolicy.checkpoint import load_policy
from diffpolicy.control.episode import Episode, RolloutOptions
from diffpolicy.control.latency import PAUSED
from diffpolicy.control.rollout import run_episodes
from diffpolicy.control.wall import run_on_wall_clock
from diffpolicy.errors import DiffpolicyError
from diffpolicy.eval.measure.result_files import DelaysResult, read_result
from diffpolicy.eval.measure.rows import make_row
from diffpolicy.eval.measure.tally import tally_of
from diffpolicy.eval.report.plots import success_against_delay, success_against_latency
from diffpolicy.policy import Policy

LINE = spaces.Box(-np.inf, np.inf, (1,), np.float32)
TICKS = 30


class DriftEnv(gymnasium.Env):
    """A point that drifts past 0; success while it is near; one buffer for all observations."""

    control_dt_s = 0.1
    action_space = spaces.Box(-1, 1, (1, 1), np.float64)

    def __init__(self, order="vx", late=False, raises=None):
        self.observation_space = spaces.Dict([(key, LINE) for key in order])
        self.late, self.raises = late, raises
        self.buffer = {"x": np.zeros(1, np.float32), "v": np.zeros(1, np.float32)}

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.tick = 0
        self.buffer["x"][:], self.buffer["v"][:] = self.np_random.uniform(-1, -0.5), 1
        return self.buffer, {}

    def step(self, action):
        assert self.action_space.contains(action)
        if self.tick == self.raises:
            raise RuntimeError("no power")
        self.tick += 1
        self.buffer["x"] += 0.1 * self.buffer["v"]
        self.buffer["v"][:] = 1 + 0.1 * action[0, 0]
        near, over = bool(abs(self.buffer["x"][0]) < 0.2), self.tick == TICKS
        info = {"success": near, "score": 100 - 60 * float(abs(self.buffer["x"][0]))}
        return self.buffer, -1.0, False, over, info if over or not self.late else {}

    def expert(self, rng):
        return lambda observation: [[observation[1] / 3]]


gymnasium.register("Drift-v0", entry_point=DriftEnv, max_episode_steps=TICKS)
DRIFT = "test_closed_loop:Drift-v0"
QUICK = ("--ddim-steps", 1, "--engine", "eager", "--workers", 1, "--threads", 1)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    from diffpolicy.config import RecordConfig
    from diffpolicy.record import record

    out = tmp_path_factory.mktemp("drift") / "drift.zarr"
    record(RecordConfig(DRIFT, episodes=3, out=out))
    return out


@pytest.fixture(scope="module")
def run(store):
    from diffpolicy.training.config import TrainConfig
    from diffpolicy.training.train import train

    out = store.parent / "run"
    train(TrainConfig(data=store, out=out, steps=5, hidden=16, blocks=1, device="cpu"))
    return out


@pytest.fixture
def evaluated(call, run, tmp_path):
    """evaluated("--success", "at-end") is the header and the record of an evaluation."""

    def evaluate(*options):
        path = tmp_path / "result.json"
        done = call("eval", "--run", run, "--episodes", 3, *QUICK, "--json", path, *options)
        assert done.code == 0, done.errors
        result = json.loads(path.read_text())
        return result["header"], result["records"][0]

    return evaluate


class Spy(Policy):
    """Keeps the histories that it is asked about."""

    def __call__(self, observation, noise=None):
        self.__dict__.setdefault("seen", []).append(np.array(observation["observation"][0]))
        return super().__call__(observation, noise)


@pytest.mark.parametrize("loop", ["paused", "wall"])
def test_the_policy_sees_the_past_as_it_was(run, loop):
    policy = Spy.load(run, ddim_steps=1)
    options = RolloutOptions(0.01, envs=1, batch=1)

    def make():
        return environment.make(DRIFT, {})

    if loop == "paused":
        run_episodes(policy, make, [0], PAUSED, options)
    else:
        run_on_wall_clock(policy, make, [0], options)
    first, *later = policy.seen
    np.testing.assert_array_equal(first[0], first[1])
    assert later
    for history in later:
        assert 0.05 < history[1, 1] - history[0, 1] < 0.15  # x goes on, 0.1 a tick


# Success and score


def test_success_is_what_the_option_says_and_stands_in_the_result(evaluated):
    header, touched = evaluated()
    assert header["success"] == "at-any-tick" and touched["success_rate"] == 1
    outcomes = touched["outcomes"]
    assert all(0 < tick < 15 for tick in outcomes["success_tick"])
    header, last = evaluated("--success", "at-end")
    assert header["success"] == "at-end" and last["success_rate"] == 0
    assert last["outcomes"]["success_tick"] == outcomes["success_tick"]
    assert evaluated("--success", "held:2")[1]["success_rate"] == 1
    assert evaluated("--success", "held:9")[1]["success_rate"] == 0


def test_success_that_comes_with_the_last_info_is_enough(evaluated):
    _, record = evaluated("--env-kwargs", '{"late": true}', "--success-from", "score<100")
    assert record["outcomes"]["success_tick"] == [TICKS] * 3


def test_a_score_is_what_was_asked_for(evaluated):
    header, plain = evaluated()
    assert header["score_from"] == "success, as 0 or 1" and plain["score_mean"] == 1
    header, points = evaluated("--score-from", "score")
    assert header["score_from"] == "score" and max(points["outcomes"]["score"]) < 0
    header, total = evaluated("--score-from", "return")
    assert header["score_from"] == "return" and total["score_mean"] == -TICKS


def test_our_tasks_declare_their_score(tiny_run, call, tmp_path):
    path = tmp_path / "r.json"
    assert call("eval", "--run", tiny_run, "--episodes", 2, *QUICK, "--json", path).code == 0
    result = json.loads(path.read_text())
    assert result["header"]["score_from"] == "score"
    assert 0 < result["records"][0]["score_mean"] < 1


def test_a_failed_episode_gains_nothing_by_its_end(run):
    def episode(seed, score, failure=None):
        return Episode(seed, False, score, 1, 1, 0, (), (), (), (), (), failure=failure)

    policy = Policy.load(run, ddim_steps=1)
    for scores, worst in (((-3.0, -7.0), -7.0), ((3.0, 7.0), 0.0), ((0.2, 1.0), 0.0)):
        episodes = [episode(k, score) for k, score in enumerate(scores)]
        episodes.append(episode(2, 0.0, "the policy's actions are not finite"))
        row = make_row(policy, "paused", PAUSED, tally_of(episodes), 0.1, "eager")
        assert row.outcomes.score == [*scores, worst]


def test_scores_beyond_0_to_1_are_drawn_whole(evaluated, tmp_path):
    evaluated("--score-from", "return")
    result = read_result(tmp_path / "result.json")
    figure = success_against_latency(result)
    success, score = figure.axes
    assert success.get_ylim() == (-0.03, 1.05)
    assert score.get_ylim()[0] < -TICKS < score.get_ylim()[1]
    late = DelaysResult(provenance=result.provenance, rows=[replace(result.rows[0], ticks=0)])
    delays = success_against_delay(late)
    assert [axis.get_ylim()[0] < -TICKS for axis in delays.axes] == [False, True]
    plt.close("all")


# The order of a Dict


def test_the_order_of_a_dict_is_kept_told_and_checked(run, refused, call):
    assert load_policy(run).specification.task.observation_keys == ("v", "x")
    told = json.loads(call("info", run, "--json", "-").out)
    assert told["task"]["observation_keys"] == ["v", "x"]
    line = refused("eval", "--run", run, "--episodes", 2, *QUICK, "--env-kwargs", '{"order": "xv"}')
    assert "Drift-v0 observes x, v, in this order; expected, as in the data, v, x" in line
    environment.check_fit(environment.make(DRIFT, {}), load_policy(run).specification.task)


def test_training_on_another_order_is_refused(store, tmp_path, refused):
    words = ("train", "--data", store, "--out", tmp_path / "run", "--steps", 1)
    line = refused(*words, "--env-kwargs", '{"order": "xv"}')
    assert "observes x, v, in this order; expected, as in the data, v, x" in line


def test_arrays_are_named_in_the_order_of_the_dict_that_they_make(store, tmp_path, refused, call):
    parts = tmp_path / "parts.zarr"
    shutil.copytree(store, parts)
    data = zarr.open_group(parts)["data"]
    for column, name in enumerate("vx"):
        data.create_array(name, data=data["observation"][:, column : column + 1])
    words = ("train", "--data", parts, "--out", tmp_path / "run", "--steps", 1, "--hidden", 16)
    line = refused(*words, "--obs", "x", "v")
    assert "observes v, x, in this order; expected, as in the data, x, v" in line
    assert call(*words, "--obs", "v", "x").code == 0


def test_the_order_of_a_dict_is_that_of_the_data_or_not_known():
    env = environment.make(DRIFT, {})
    assert (
        environment.fitting_keys(env, ["v", "x"])
        == ("v", "x")
        == environment.fitting_keys(env, None)
    )
    with pytest.raises(DiffpolicyError, match="observes v, x, in this order"):
        environment.fitting_keys(env, ["x", "v"])
    flat = environment.make("diffpolicy.envs:Balance-v0", {})
    assert environment.fitting_keys(flat, None) is None


def test_a_mapping_of_recorded_arrays_that_raises_is_one_line(
    store, tmp_path, refused, monkeypatch
):
    monkeypatch.setattr(DriftEnv, "demonstration_arrays", ("observation",), raising=False)
    monkeypatch.setattr(DriftEnv, "observations_from", lambda self, arrays: 1 / 0, raising=False)
    line = refused("train", "--data", store, "--out", tmp_path / "run", "--steps", 1)
    assert "observations_from of Drift-v0 failed: ZeroDivisionError: division by zero (" in line


def test_what_an_environment_raises_while_it_runs_is_one_line(run, refused):
    words = ("eval", "--run", run, "--episodes", 2, *QUICK)
    line = refused(*words, "--env-kwargs", '{"raises": 4}')
    assert "failed in step, tick 4 of seed 100000: RuntimeError: no power (" in line
    assert "test_closed_loop.py:" in line
