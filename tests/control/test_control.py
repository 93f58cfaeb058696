"""Receding-horizon control keeps its clock, whatever an inference takes."""

from itertools import chain, repeat

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffpolicy.control.receding_horizon import RecedingHorizon, seam_jerks, seam_jumps, starves

TICKS = 60
STARVED = (-1, -1)

usables = st.integers(1, 12)
delay_lists = st.lists(st.integers(0, 15), min_size=1, max_size=10)


def neutral(last: np.ndarray | None) -> np.ndarray:
    return np.array(STARVED)


def drive(controller: RecedingHorizon, usable: int) -> list[tuple[int, int]]:
    """The executed actions; each one names the tick of its observation and its place."""
    executed = []
    for tick in range(TICKS):
        controller.deliver(tick)
        if controller.wants_observation(tick):
            controller.begin(tick)
            controller.finish(np.array([(tick, place) for place in range(usable)]))
        executed.append(tuple(controller.act(tick).tolist()))
    return executed


def by_hand(action_horizon, usable, delays, cold_start):
    """The same from the contract: all starts and arrivals first, then who is in force when."""
    delays = iter(delays)
    flights = [(0, next(delays) if cold_start else 0)]
    while flights[-1][0] < TICKS:
        start, arrival = flights[-1]
        start = max(start + action_horizon, arrival)
        flights.append((start, start + next(delays)))
    executed = []
    for tick in range(TICKS):
        arrived = [start for start, arrival in flights if start <= tick and arrival <= tick]
        age = tick - max(arrived, default=-TICKS)
        executed.append((tick - age, age) if age < usable else STARVED)
    return executed


@given(usables, delay_lists, st.booleans(), st.data())
def test_every_tick_executes_what_the_contract_says(usable, delays, cold_start, data):
    action_horizon = data.draw(st.integers(1, usable))
    endless = chain(delays, repeat(delays[-1]))
    controller = RecedingHorizon(action_horizon, endless, neutral, cold_start)
    executed = drive(controller, usable)
    endless = chain(delays, repeat(delays[-1]))
    assert executed == by_hand(action_horizon, usable, endless, cold_start)
    assert controller.ages == [place for at, place in executed if (at, place) != STARVED]
    assert controller.starved_ticks == executed.count(STARVED)
    assert len(controller.ages) + controller.starved_ticks == TICKS


@given(usables, st.data())
def test_no_delay_is_the_plain_receding_horizon(usable, data):
    t_a = data.draw(st.integers(1, usable))
    executed = drive(RecedingHorizon(t_a, repeat(0), neutral), usable)
    assert executed == [(tick // t_a * t_a, tick % t_a) for tick in range(TICKS)]


def starts(controller: RecedingHorizon, usable: int) -> list[int]:
    found = []
    for tick in range(TICKS):
        controller.deliver(tick)
        if controller.wants_observation(tick):
            found.append(tick)
            controller.begin(tick)
            controller.finish(np.zeros((usable, 2)))
    return found


@given(usables, st.integers(0, 15), st.data())
def test_one_worker_replans_every_action_horizon_or_delay(usable, delay, data):
    t_a = data.draw(st.integers(1, usable))
    controller = RecedingHorizon(t_a, repeat(delay), neutral, cold_start=True)
    assert starts(controller, usable) == list(range(0, TICKS, max(t_a, delay)))
    assert controller.delay_ticks == [delay] * len(range(0, TICKS, max(t_a, delay)))


def test_the_stale_head_of_a_late_chunk_is_dropped():
    """T_a = 4, d = 3: the old chunk serves three ticks more, the new one starts at place 3."""
    executed = drive(RecedingHorizon(4, repeat(3), neutral), usable=8)
    assert executed[:4] == [(0, 0), (0, 1), (0, 2), (0, 3)]
    assert executed[4:7] == [(0, 4), (0, 5), (0, 6)]
    assert executed[7:11] == [(4, 3), (4, 4), (4, 5), (4, 6)]


@given(usables, st.integers(0, 15), st.data())
def test_a_constant_delay_starves_exactly_where_the_inequality_says(usable, delay, data):
    t_a = data.draw(st.integers(1, usable))
    controller = RecedingHorizon(t_a, repeat(delay), neutral)
    drive(controller, usable)
    assert (controller.starved_ticks > 0) == starves(delay, t_a, usable)


@pytest.mark.parametrize(
    ("delay", "t_a", "usable", "expected"),
    [(7, 8, 15, False), (8, 8, 15, True), (7, 2, 15, False), (8, 2, 15, True), (0, 8, 8, False)],
)
def test_starvation_at_the_border(delay, t_a, usable, expected):
    """The default horizons (T_o 2, T_p 16, T_a 8) live with 7 ticks, not with 8."""
    assert starves(delay, t_a, usable) is expected


def test_a_starved_tick_applies_the_neutral_action_to_the_last_one():
    """Holding: chunks of two actions that take four ticks leave the last one in force."""

    def hold(last):
        return np.array([7, 7]) if last is None else last

    executed = drive(RecedingHorizon(2, repeat(4), hold), usable=2)
    assert executed[:4] == [(0, 0), (0, 1), (0, 1), (0, 1)]


def test_the_neutral_action_is_itself_a_last_action():
    def count_down(last):
        return np.array([7, 7]) if last is None else last - 1

    executed = drive(RecedingHorizon(2, repeat(2), count_down, cold_start=True), usable=4)
    assert executed[:4] == [(7, 7), (6, 6), (0, 2), (0, 3)]


def test_only_a_cold_start_charges_the_first_chunk():
    warm = RecedingHorizon(8, iter([2] * TICKS), neutral)
    cold = RecedingHorizon(8, iter([2] * TICKS), neutral, cold_start=True)
    assert drive(warm, 15)[:3] == [(0, 0), (0, 1), (0, 2)]
    assert drive(cold, 15)[:3] == [STARVED, STARVED, (0, 2)]
    assert (warm.starved_ticks, cold.starved_ticks) == (0, 2)
    assert len(cold.delay_ticks) == len(warm.delay_ticks) + 1


@given(usables, delay_lists, st.data())
def test_ending_an_inference_when_it_is_done_is_knowing_its_delay_before(usable, delays, data):
    """The wall clock's calls and the simulated clock's give the same actions."""
    action_horizon = data.draw(st.integers(1, usable))
    endless = chain(delays, repeat(delays[-1]))
    known = drive(RecedingHorizon(action_horizon, endless, neutral, cold_start=True), usable)
    waits = chain(delays, repeat(delays[-1]))
    controller, executed = RecedingHorizon(action_horizon, None, neutral, cold_start=True), []
    begun = done = 0
    for tick in range(TICKS):
        if controller.computing and tick >= done:
            controller.finish(np.array([(begun, place) for place in range(usable)]), tick)
        controller.deliver(tick)
        if controller.wants_observation(tick):
            controller.begin(tick)
            begun, done = tick, tick + next(waits)
            if done == tick:
                controller.finish(np.array([(begun, place) for place in range(usable)]), tick)
        executed.append(tuple(controller.act(tick).tolist()))
    assert executed == known


def test_seams_are_where_a_chunk_takes_over_another():
    controller = RecedingHorizon(4, repeat(1), neutral)
    drive(controller, usable=8)
    assert controller.seams[:3] == [5, 9, 13]
    assert len(controller.applied) == TICKS


def test_jumps_and_jerks_at_seams():
    t = np.arange(10.0)
    parabola = np.stack([t**2, 3 * t], axis=1)
    assert seam_jerks(parabola, [4, 6], 0.1) == pytest.approx([0, 0], abs=1e-9)
    cubic = np.stack([t**3, 0 * t], axis=1)
    assert seam_jerks(cubic, [5], 0.1) == pytest.approx([6 / 0.1**3])
    step = np.where(t < 5, 0.0, 3.0)[:, None] * np.array([[1.0, 4 / 3]])
    assert seam_jumps(step, [3, 5]) == pytest.approx([0, 5])
    assert seam_jumps(step, [0, 10]) == seam_jerks(step, [1, 9], 0.1) == []


def test_nothing_begun_cannot_be_finished():
    with pytest.raises(RuntimeError, match="no inference was begun"):
        RecedingHorizon(4, repeat(0), neutral).finish(np.zeros((8, 1)), 3)
