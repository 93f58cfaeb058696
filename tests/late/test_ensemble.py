"""Temporal ensembling: the weighted mean of all chunks that have an action for the tick."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffpolicy.config import ModelConfig, Sampling
from diffpolicy.control.receding_horizon import RecedingHorizon
from diffpolicy.errors import DiffpolicyError
from diffpolicy.late import parse_late
from diffpolicy.late.ensemble import RATE, Ensemble, ensembled
from diffpolicy.sampling.chain import WITHOUT_NOISE, make_chain

USABLE, TICKS = 6, 30


def values(tick, usable=USABLE):
    """A chunk [usable, 1] that differs from all others."""
    return np.sin(7.0 * tick + np.arange(usable))[:, None] * (tick + 1)


def run(delays, usable=USABLE):
    """The executed actions, and the ticks at which chunks were observed and arrived."""
    late = Ensemble()
    controller = RecedingHorizon(
        late.action_horizon(4), delays, lambda last: np.array([np.nan]), late=late
    )
    flights, executed = [], []
    for tick in range(TICKS):
        controller.deliver(tick)
        if controller.wants_observation(tick):
            controller.begin(tick)
            controller.finish(values(tick, usable))
            flights.append((tick, tick + (controller.delay or 0)))
        executed.append(controller.act(tick).item())
    return executed, flights, controller


@given(st.lists(st.integers(0, 8), min_size=TICKS, max_size=TICKS), st.integers(1, 9))
def test_every_tick_executes_the_mean_of_all_chunks_that_have_arrived_for_it(delays, usable):
    """The equation of the paper, tick by tick: weights e^{-0.01 i}, i = 0 for the oldest."""
    executed, flights, controller = run(iter(delays), usable)
    ages = iter(controller.ages)
    for tick, action in enumerate(executed):
        have = [at for at, arrival in flights if arrival <= tick < at + usable]
        if not have:
            assert np.isnan(action)
            continue
        weights = [np.exp(-RATE * i) for i in range(len(have))]
        found = [values(at, usable)[tick - at, 0] for at in sorted(have)]
        assert action == pytest.approx(np.average(found, weights=weights), abs=1e-9)
        assert next(ages) == round(tick - np.mean(have))
    assert controller.starved_ticks == np.isnan(executed).sum()


def test_a_chunk_begins_at_every_tick_or_as_soon_as_the_last_one_is_done():
    _, flights, _ = run(iter([0] * TICKS))
    assert [at for at, _ in flights] == [*range(TICKS)]
    _, flights, _ = run(iter([3] * TICKS))
    assert [at for at, _ in flights] == [0, *range(1, TICKS, 3)]


def test_one_chunk_alone_is_itself_and_equal_ones_stay_what_they_are():
    chunk = np.float32([[0.1], [0.2], [0.3]])
    np.testing.assert_array_equal(ensembled([chunk]), chunk)
    np.testing.assert_allclose(ensembled([chunk[:1], chunk[:2], chunk]), chunk, rtol=1e-6)
    assert ensembled([chunk]).dtype == np.float32


def test_the_golden_mean_of_three():
    """(1 + 2 e^{-0.01} + 4 e^{-0.02}) / (1 + e^{-0.01} + e^{-0.02})."""
    found = ensembled([np.array([[1.0]]), np.array([[2.0]]), np.array([[4.0], [5.0]])])
    np.testing.assert_allclose(found, [[2.3233391], [5.0]], atol=1e-7)


def test_its_name_takes_nothing_else():
    assert parse_late("ensemble") == Ensemble()
    with pytest.raises(DiffpolicyError, match="'ensemble:2': ensemble takes nothing"):
        parse_late("ensemble:2")


@pytest.mark.parametrize(("objective", "name"), [("regression", "regression"), ("mip", "MIP")])
def test_it_is_part_of_the_name_of_a_budget_without_noise(objective, name):
    model = ModelConfig(objective=objective)
    steps = WITHOUT_NOISE[objective]
    assert make_chain(model, None, Sampling(steps)).name == name
    assert make_chain(model, None, Sampling(steps, late="ensemble")).name == f"{name}, ensemble"
