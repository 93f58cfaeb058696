"""The wall clock: real threads, the same contract; and profiles that are replayed."""

import json

import numpy as np
import pytest

from diffpolicy import environment
from diffpolicy.control.episode import RolloutOptions
from diffpolicy.control.wall import run_on_wall_clock
from diffpolicy.errors import DiffpolicyError
from diffpolicy.eval.config import EvalConfig, LatencyConfig, SweepConfig
from diffpolicy.eval.evaluate import evaluate_budget
from diffpolicy.eval.latency import latency
from diffpolicy.eval.measure.profiles import profiles_of, replay
from diffpolicy.policy import Policy

BALANCE = "diffpolicy.envs:Balance-v0"
SMALL = {"episodes": 2, "envs": 2, "batch": 2, "max_steps": 25, "engine": "eager"}


def make_env():
    return environment.make(BALANCE, {}, max_steps=25)


def run(policy, **options):
    return run_on_wall_clock(policy, make_env, [5, 6], RolloutOptions(0.02, **options))


@pytest.fixture
def policy(tiny_run) -> Policy:
    return Policy.load(tiny_run, ddim_steps=2)


@pytest.mark.parametrize("cold_start", [False, True])
def test_every_tick_is_accounted_for(policy, cold_start):
    episodes = run(policy, cold_start=cold_start)
    assert [e.seed for e in episodes] == [5, 6]
    for e in episodes:
        assert len(e.ages) + e.starved_ticks == e.ticks <= 25
        assert cold_start or e.starved_ticks == 0 or max(e.delay_ticks) > 1
        assert all(delay >= 1 for delay in e.delay_ticks)
        arrived = len(e.delay_ticks)
        assert arrived <= len(e.latency_ms) <= arrived + 1  # one may be overtaken by the end
        assert min(e.latency_ms) > 0
        assert e.missed_ticks <= len(e.late_ms) == e.ticks - 1


def test_actions_that_are_not_finite_end_the_episode(policy):
    class Broken(type(policy)):
        def __call__(self, history, noise=None):
            return np.full_like(super().__call__(history, noise), np.nan)

    policy.__class__ = Broken
    episodes = run(policy)
    assert all(not e.success and "not finite" in (e.failure or "") for e in episodes)


def test_actions_of_another_size_are_refused(policy):
    class Wide(type(policy)):
        def __call__(self, history, noise=None):
            return np.repeat(super().__call__(history, noise), 2, axis=2)

    policy.__class__ = Wide
    with pytest.raises(DiffpolicyError, match="gives 2 numbers for an action; the environment tak"):
        run(policy)


def test_what_the_wall_clock_measured_can_be_replayed(tiny_run, tmp_path, policy):
    path = tmp_path / "wall.json"
    evaluate_budget(EvalConfig(run=tiny_run, ddim_steps=2, clock="wall", json=path, **SMALL))
    [record] = json.loads(path.read_text())["records"]
    assert record["clock"] == "wall" and record["latency_source"] == "wall clock"
    assert record.keys() >= {"tick_late_ms", "missed_ticks", "deadline_misses", "seam_jump"}
    [profile] = replay(path, [policy])
    np.testing.assert_allclose(profile.samples_ms, record["samples_ms"])
    again = EvalConfig(
        run=tiny_run, ddim_steps=2, clock="simulated", latency_from=path, json=path, **SMALL
    )
    evaluate_budget(again)
    assert json.loads(path.read_text())["records"][0]["latency_source"] == "replayed, eager"


@pytest.mark.parametrize(("late", "made"), [("cut:0.000001", 1.0), ("cut:1000000", 2.0)])
def test_evaluations_that_a_deadline_left_are_in_the_result(tiny_run, tmp_path, late, made):
    path = tmp_path / "wall.json"
    evaluate_budget(
        EvalConfig(run=tiny_run, ddim_steps=2, late=late, clock="wall", json=path, **SMALL)
    )
    assert json.loads(path.read_text())["records"][0]["evaluations_mean"] == made


@pytest.fixture(scope="module")
def profile_file(tiny_run, tmp_path_factory):
    path = tmp_path_factory.mktemp("profile") / "latency.json"
    latency(LatencyConfig(run=tiny_run, ddim_steps=(1, 2), engine=("eager",), json=path))
    return path


def test_a_profile_of_another_budget_or_network_is_refused(tiny_run, profile_file, tmp_path):
    with pytest.raises(DiffpolicyError, match="no latencies of 3 evaluations of a network of"):
        replay(profile_file, [Policy.load(tiny_run, ddim_steps=3)])
    result = json.loads(profile_file.read_text())
    for record in result["records"]:
        record["parameters"] += 1
    other = tmp_path / "other.json"
    other.write_text(json.dumps(result))
    with pytest.raises(DiffpolicyError, match="parameters in bfloat16"):
        replay(profile_file, [Policy.load(tiny_run, ddim_steps=2, precision="bfloat16")])
    with pytest.raises(DiffpolicyError, match="no latencies of 2 evaluations"):
        replay(other, [Policy.load(tiny_run, ddim_steps=2)])


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"records": 3}',
        '{"records": [{"engine": "eager", "samples_ms": [1, -1]}]}',
        '{"records": [{"engine": "eager", "samples_ms": [1, NaN]}]}',
        '{"records": [{"engine": "eager", "samples_ms": [1]}]}',
        '{"records": [{"engine": "eager", "samples_ms": [[1]], "network_evals": 2}]}',
    ],
)
def test_what_is_no_profile_is_refused(tmp_path, text, policy):
    path = tmp_path / "bad.json"
    path.write_text(text)
    with pytest.raises(DiffpolicyError, match="is not a latency profile"):
        replay(path, [policy])
    path.write_text('{"records": []}')
    with pytest.raises(DiffpolicyError, match="holds no latency samples"):
        replay(path, [policy])
    with pytest.raises(DiffpolicyError, match="there is no such file"):
        replay(tmp_path / "nowhere.json", [policy])


@pytest.mark.parametrize(
    ("options", "expected", "source"),
    [
        ({"ms_per_step": 3.0}, [3, 6], "declared, 3 ms a step"),
        ({"latency_ms": 7.0}, [7, 7], "constant, 7 ms"),
        ({"latency_ticks": 2}, [40, 40], "constant, 2 ticks"),
    ],
)
def test_constants_in_every_unit(tiny_run, options, expected, source):
    policies = [Policy.load(tiny_run, ddim_steps=k) for k in (1, 2)]
    profiles = profiles_of(policies, SweepConfig(run=tiny_run, **options), 0.02, ["simulated"])
    assert [p.samples_ms.tolist() for p in profiles] == [[ms] for ms in expected]
    assert {p.source for p in profiles} == {source}


def test_two_sources_of_latencies_are_refused(tiny_run):
    with pytest.raises(DiffpolicyError, match="not --latency-ms and --latency-ticks"):
        SweepConfig(run=tiny_run, latency_ms=3.0, latency_ticks=1)
