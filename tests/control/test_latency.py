"""Latencies become delays the same way every time, and claim only what their samples support."""

import math
from fractions import Fraction
from itertools import islice, pairwise, product

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from diffpolicy.checkpoint import Checkpoint
from diffpolicy.config import ModelConfig, Sampling
from diffpolicy.control.latency import (
    BLOCK,
    PAUSED,
    LatencyProfile,
    declared,
    delay_ticks,
    percentiles,
)
from diffpolicy.data.normalizer import identity
from diffpolicy.denoisers import build
from diffpolicy.eval.measure import load
from diffpolicy.eval.measure.timing import WANTED_SAMPLES, measure
from diffpolicy.policy import Policy
from diffpolicy.specification import FLAT, Horizons, Specification, Task, flat_observation

seeds = st.integers(0, 2**32)
periods_s = st.sampled_from([0.001, 0.002, 0.005, 0.01, 0.02, 1 / 60, 0.033, 0.05, 0.1])

# Delays


@given(st.integers(0, 100_000), periods_s)
def test_whole_ticks_stay_whole_and_anything_more_is_one_more(ticks, dt):
    assert delay_ticks(ticks * 1000 * dt, dt) == ticks
    assert delay_ticks((ticks + 1e-3) * 1000 * dt, dt) == ticks + 1
    assert delay_ticks((ticks + 0.999) * 1000 * dt, dt) == ticks + 1


@pytest.mark.parametrize(("steps", "ticks"), [(1, 1), (10, 1), (11, 2), (20, 2), (100, 10)])
def test_two_milliseconds_a_step_at_fifty_hertz(steps, ticks):
    assert delay_ticks(declared(2.0, steps).samples_ms[0], 0.02) == ticks


def test_decimal_costs_make_whole_ticks():
    """0.1 ms · tenths · steps at a tick of 10 ms, where binary fractions miss by a last bit."""
    for steps, tenths in product(range(1, 101), repeat=2):
        delay = next(declared(tenths / 10, steps).delays(0, 0.01))
        assert delay == math.ceil(Fraction(steps * tenths, 100))


def test_a_paused_world_never_waits():
    assert set(islice(PAUSED.delays(3, 0.02), 100)) == {0}


def first_delays(profile: LatencyProfile, seed: int, count: int) -> list[int]:
    return list(islice(profile.delays(seed, 0.02), count))


@given(seeds)
def test_one_seed_gives_one_sequence(seed):
    profile = LatencyProfile(20.0 * np.arange(1000), "counted")
    assert first_delays(profile, seed, 100) == first_delays(profile, seed, 100)
    assert first_delays(profile, seed, 100) != first_delays(profile, seed + 1, 100)


@given(seeds, st.integers(1, 200))
def test_samples_come_in_the_blocks_that_were_measured(seed, samples):
    profile = LatencyProfile(20.0 * np.arange(samples), "counted")
    drawn = first_delays(profile, seed, 20 * BLOCK)
    for before, after in pairwise(drawn):
        ends_here = before % BLOCK == BLOCK - 1 or before == samples - 1
        assert after % BLOCK == 0 if ends_here else after == before + 1
    if samples == 200:
        assert len({d for d in drawn if d % BLOCK == 0}) > 3


def test_every_sample_is_drawn_equally_often():
    profile = LatencyProfile(20.0 * np.arange(50), "counted")
    counts = np.bincount(first_delays(profile, 0, 3200 * BLOCK), minlength=50)
    assert counts / counts.sum() == pytest.approx([0.02] * 50, rel=0.15)


# Percentiles


@pytest.mark.parametrize(("samples", "known"), [(2, False), (298, False), (299, True), (999, True)])
def test_p99_needs_299_samples(samples, known):
    assert (
        percentiles(LatencyProfile(np.linspace(1, 2, samples), "test"))["p99"] is not None
    ) == known
    assert 1 - 0.99**298 < 0.95 < 1 - 0.99**299


def test_percentiles_of_a_hundred_and_one_numbers():
    found = percentiles(LatencyProfile(np.arange(101.0), "test"))
    assert found == {
        **{"p50": 50, "p90": 90, "p99": None, "p99.9": None, "max": 100},
        **{"jitter": None, "samples": 101},
    }


def test_a_declared_constant_is_known_without_samples():
    assert percentiles(declared(2.0, 10))["p99"] == 20


# Measuring


class RecordedPolicy(Policy):
    """A policy that writes down who was called, and with what."""

    calls: list[tuple["RecordedPolicy", tuple[int, ...]]]

    def __call__(self, observation, noise=None):
        self.calls.append((self, np.shape(observation[FLAT])))
        return super().__call__(observation, noise)


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    """No other process disturbs these tests."""
    monkeypatch.setattr(load, "snapshot", lambda ours=(): None)


@pytest.fixture
def policies() -> list[RecordedPolicy]:
    model = ModelConfig(hidden=8, blocks=1, condition=8, train_timesteps=4)
    horizons, task = Horizons(2, 4, 2), Task("none", 0.02, False, flat_observation(3), 1)
    torch.manual_seed(0)
    weights = build(model, horizons, 3, 1).state_dict()
    specification = Specification(model, horizons, task, 1.0, {})
    checkpoint = Checkpoint(specification, weights, {FLAT: identity(3)}, identity(1))
    RecordedPolicy.calls = []
    return [RecordedPolicy(checkpoint, Sampling(k)) for k in (1, 4)]


def test_measuring_takes_the_samples_that_p99_needs(policies):
    profiles = measure(policies, seconds=1e6)
    for profile in profiles:
        assert len(profile.samples_ms) == WANTED_SAMPLES
        assert (profile.samples_ms > 0).all()
        assert percentiles(profile)["p99"] is not None
        assert profile.source == "measured"


def test_budgets_are_measured_in_turns_at_batch_1(policies):
    measure(policies, seconds=1e6)
    callers, shapes = zip(*RecordedPolicy.calls, strict=True)
    assert set(shapes) == {(1, 2, 3)}
    order = [policies.index(c) for c in callers[-2 * WANTED_SAMPLES :]]
    blocks = np.reshape(order, (-1, 2, BLOCK))
    assert (blocks == blocks[:, :, :1]).all()  # a block is of one budget
    assert (np.sort(blocks[:, :, 0]) == [0, 1]).all()
    assert 0 < blocks[:, 0, 0].sum() < len(blocks)  # neither always comes first


def test_without_time_one_sample_is_taken(policies):
    assert [len(p.samples_ms) for p in measure(policies, seconds=0)] == [1, 1]
