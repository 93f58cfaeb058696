"""Closed loop: an episode depends on its seed, not on its neighbours; every one is counted."""

from dataclasses import replace

import numpy as np
import pytest

from diffpolicy import environment, latency
from diffpolicy.latency import LatencyProfile
from diffpolicy.policy import Policy
from diffpolicy.rollout import RolloutOptions, episode_noise, run_episodes

ENV = "diffpolicy.envs:Balance-v0"
OPTIONS = RolloutOptions(control_dt_s=0.02, envs=16, batch=16)
JITTER = LatencyProfile(np.random.default_rng(3).uniform(1, 90, 200), "test")


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
        def __call__(self, observation_history, noise=None):
            actions = super().__call__(observation_history, noise)
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
