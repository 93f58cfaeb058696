"""Closed loop: an episode depends on its seed, not on its neighbours; every one is counted."""

import re
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from faulty import TICKS, make_faulty

from diffpolicy import environment
from diffpolicy.control import latency
from diffpolicy.control.episode import RolloutOptions
from diffpolicy.control.latency import LatencyProfile
from diffpolicy.control.noise import episode_noise
from diffpolicy.control.ranges import TrainingRange, far_outside
from diffpolicy.control.rollout import episodes, run_episodes, stream
from diffpolicy.data.normalizer import Normalizer
from diffpolicy.environment.monitored import EnvironmentFailure, seeds_repeat
from diffpolicy.policy import Policy
from diffpolicy.specification import FLAT
from diffpolicy.terminal import progress
from diffpolicy.terminal.progress import EpisodeBar

ENV = "diffpolicy.envs:Balance-v0"
OPTIONS = RolloutOptions(control_dt_s=0.02, envs=16, batch=16)
JITTER = LatencyProfile(np.random.default_rng(3).uniform(1, 90, 200), "test")


@pytest.fixture
def bar():
    with EpisodeBar("episodes", len(SEEDS), TICKS) as opened:
        yield opened


def make():
    return environment.make(ENV, {}, max_steps=80)


@pytest.fixture(scope="module")
def policy(tiny_run):
    return Policy.load(tiny_run, ddim_steps=2)


@pytest.mark.parametrize("profile", [latency.PAUSED, JITTER], ids=["paused", "simulated"])
def test_one_result_for_each_seed_whether_1_or_16_run_at_a_time(policy, profile):
    seeds = range(20)
    together = run_episodes(policy, make, seeds, profile, OPTIONS)
    alone = run_episodes(policy, make, seeds, profile, replace(OPTIONS, envs=1))
    assert together == alone
    assert [e.seed for e in together] == list(seeds)
    backwards = run_episodes(policy, make, seeds[::-1], profile, OPTIONS)
    assert backwards[::-1] == together


def test_no_latency_is_the_paused_clock(policy):
    paused = run_episodes(policy, make, range(4), latency.PAUSED, OPTIONS)
    declared = run_episodes(policy, make, range(4), latency.declared(0.0, 2), OPTIONS)
    assert paused == declared
    assert {age for e in paused for age in e.ages} == set(range(policy.horizons.action))
    assert all(e.starved_ticks == 0 for e in paused)


def test_latency_ages_the_actions(policy):
    """Two ticks late with T_a = 2: chunks start every 2 ticks and are used at ages 2 and 3."""
    late = LatencyProfile(np.full(1, 40.0), "test")
    for episode in run_episodes(policy, make, range(4), late, OPTIONS):
        assert set(episode.delay_ticks) == {2}
        assert list(episode.ages) == [0, 1, *[2, 3] * 40][: episode.ticks]
        assert episode.replans == -(-episode.ticks // 2)


def test_cold_start_charges_the_first_chunk(policy):
    late = LatencyProfile(np.full(1, 60.0), "test")
    warm = run_episodes(policy, make, range(4), late, OPTIONS)
    cold = run_episodes(policy, make, range(4), late, replace(OPTIONS, cold_start=True))
    assert all(e.starved_ticks == 0 for e in warm)
    assert all(e.starved_ticks == 3 for e in cold)


def test_chunk_that_is_not_finite_ends_the_episode_as_a_counted_failure(tiny_run):
    class Broken(Policy):
        def __call__(self, observation, noise=None):
            actions = super().__call__(observation, noise)
            actions[0] = np.nan
            return actions

    policy = Broken.load(tiny_run, ddim_steps=1)
    options = replace(OPTIONS, envs=1)
    episodes = run_episodes(policy, make, range(3), latency.PAUSED, options)
    assert [e.success for e in episodes] == [False] * 3
    assert all("not finite at tick 0" in (e.failure or "") for e in episodes)


def test_noise_is_no_echo_of_the_environments_own_draws():
    """NumPy pads seeds with zeros: [seed, 0] is the stream that reset(seed=seed) draws from."""
    own = np.random.default_rng(7).standard_normal(8, np.float32)
    assert not np.isin(episode_noise(7, 0, (8,)), own).any()


def test_budgets_and_samplers_share_the_starting_noise():
    once = episode_noise(7, 16, (1, 24, 1))
    ancestral = episode_noise(7, 16, (101, 24, 1))
    np.testing.assert_array_equal(ancestral[0], once[0])


SEEDS = range(6)
FEW = replace(OPTIONS, envs=2, limit=TICKS)


def run(policy, habit, **options):
    make_env = partial(make_faulty, habit)
    return run_episodes(policy, make_env, SEEDS, latency.PAUSED, replace(FEW, **options))


@pytest.mark.parametrize(
    ("habit", "told"),
    [
        ("raise", "RuntimeError: the simulator says no"),
        ("leave", "failed in its step: SystemExit: 0"),
        ("old step", "expected step(action) -> (observation, reward,"),
        ("reset", "failed in reset(seed=1, options=None): RuntimeError: the reset says no"),
    ],
)
def test_what_an_environment_raises_names_its_line_the_tick_and_the_seed(policy, bar, habit, told):
    kept = []
    advances = episodes(policy, partial(make_faulty, habit), SEEDS, latency.PAUSED, FEW)
    with pytest.raises(EnvironmentFailure) as error:
        stream(advances, bar, kept.append)
    text = " ".join(str(error.value).split())
    assert told in text
    assert habit == "reset" or "tick 9 of seed 1" in text
    assert habit == "old step" or "faulty.py:" in text
    assert [e.seed for e in kept] in ([], [0])


def test_an_episode_that_ends_in_the_same_tick_is_not_lost(policy, bar):
    kept = []
    make_env = partial(make_faulty, "raise", at=5, ticks=5)
    advances = episodes(policy, make_env, SEEDS, latency.PAUSED, replace(FEW, limit=5))
    with pytest.raises(EnvironmentFailure):
        stream(advances, bar, kept.append)
    assert [(e.seed, e.ticks) for e in kept] == [(0, 5)]


@pytest.mark.parametrize("habit", ["raise", "leave", "old step", "reset"])
def test_a_failed_episode_is_counted_and_the_others_are_as_ever(policy, habit):
    good = run(policy, "")
    found = run(policy, habit, on_env_error="fail-episode")
    assert found[::2] == good[::2]
    for episode in found[1::2]:
        assert episode.broken and not episode.success and episode.score == 0
        assert re.search(rf"seed[ =]{episode.seed}", str(episode.failure))


def test_a_constructor_that_fails_ends_the_run_and_a_close_does_not(policy, capsys):
    with pytest.raises(
        EnvironmentFailure,
        match="RuntimeError: the constructor says no",
    ):
        run(policy, "constructor", on_env_error="fail-episode")
    assert run(policy, "close") == run(policy, "")
    assert "failed in close: RuntimeError: the close says no" in capsys.readouterr().err


def test_an_observation_that_is_not_finite_is_the_environments_failure(policy):
    found = run(policy, "nan")
    assert found[::2] == run(policy, "")[::2]
    for e in found[1::2]:
        said = f"observation is not finite at tick 10 (seed {e.seed}, dimension 2)"
        assert e.failure == f"the environment's {said}"
        assert (e.ticks, e.success, e.broken) == (10, False, False)


def test_a_huge_observation_is_named_before_the_policy_sees_it(policy):
    [_, e, *_] = run(policy, "huge")
    said = "observation 1e+30 overflows the network at tick 10 (seed 1, dimension 2)"
    assert e.failure == f"the environment's {said}"
    assert np.isfinite(e.highest).all()


def test_observations_far_outside_of_trainings_are_told_with_figures(policy):
    normalizer = Normalizer(np.array([2.0, 0.5, 0.0]), np.array([1.0, 0.0, 0.0]))  # last: constant
    trained = TrainingRange((FLAT,), normalizer, np.ones(3), np.full(3, 3.0))
    [base] = run_episodes(policy, make, [0], latency.PAUSED, OPTIONS)
    seen = {"lowest": (-5.0, -1.0, 0.0), "highest": (1.0, 1.0, 0.0), "observed": 100}
    one, two = (replace(base, far=far, **seen) for far in ((2, 1, 0), (1, 1, 0)))
    [row] = far_outside([one, two], trained)
    assert row == {
        "dimension": 0,
        "share": 0.015,
        "seen": [-3.0, 0.0],
        "training": [-1.0, 0.0],
    }
    assert far_outside([two], trained) == far_outside([one, two], None) == []


def test_ranges_are_those_of_what_the_policy_was_given(policy):
    given = []

    class Spy(Policy):
        def __call__(self, history, noise=None):
            given.extend(self.observation_normalizers[FLAT].normalize(history[FLAT][:1, -1]))
            return super().__call__(history, noise)

    spy = Spy.__new__(Spy)
    vars(spy).update(vars(policy))
    [e] = run_episodes(spy, make, [3], latency.PAUSED, replace(OPTIONS, envs=1))
    assert e.observed == len(given) == e.replans
    np.testing.assert_array_equal(e.lowest, np.min(given, 0))
    np.testing.assert_array_equal(e.highest, np.max(given, 0))
    np.testing.assert_array_equal(e.far, np.sum(np.abs(given) > 3, 0))


@pytest.mark.parametrize("task", ["PushT", "Balance", "Detour", "Catch"])
def test_seeds_of_our_tasks_repeat(task):
    assert seeds_repeat(lambda: environment.make(f"diffpolicy.envs:{task}-v0", {}), 5) is None


@pytest.mark.parametrize(
    ("habit", "when"), [("global seed", "at once"), ("residue", "at once"), ("", None)]
)
def test_seeds_that_are_ignored_are_told_with_figures(habit, when):
    told = seeds_repeat(partial(make_faulty, habit), 5)
    assert (told is None) == (when is None)
    if told:
        assert told.startswith("seeds do not repeat: reset(seed=5) and the same actions again")
        assert f"{when}, gave " in told and "at tick 0 (dimension 0)" in told


def test_progress_counts_ticks_and_ends_at_all_of_them(policy, monkeypatch):
    bars = []

    class Bar(progress.tqdm):
        def __init__(self, **options):
            super().__init__(**{**options, "disable": False})
            bars.append(self)

        def close(self):
            self.seen = (self.n, self.total)
            super().close()

    monkeypatch.setattr(progress, "tqdm", Bar)
    found = run(policy, "nan")
    assert any(e.ticks < TICKS for e in found)
    assert bars[0].seen == (TICKS * len(SEEDS), TICKS * len(SEEDS))
