"""Plans: all that control knows when an inference starts, and nothing that comes later."""

from dataclasses import dataclass, replace
from itertools import chain, repeat

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_chunk_source import DT_S, OPTIONS, TICKS, CameraEnv, Counting

from diffpolicy.control import Controller
from diffpolicy.control.chunk_source import Planning, late_of, planning
from diffpolicy.control.episode import ask
from diffpolicy.control.latency import LatencyProfile, constant_ticks
from diffpolicy.control.receding_horizon import RecedingHorizon, forecast
from diffpolicy.control.rollout import run_episodes
from diffpolicy.control.wall import run_on_wall_clock
from diffpolicy.data.normalizer import identity
from diffpolicy.errors import DiffpolicyError
from diffpolicy.late.drop import DropHead
from diffpolicy.late.plan import Plan, gather_plans
from diffpolicy.specification import Horizons


@dataclass(frozen=True)
class Planned(DropHead):
    """A strategy whose sampling depends on plans."""

    @property
    def plans(self):
        return True


class Continuing(Counting):
    """It counts on from the picture, and keeps the plans that it was given."""

    def __init__(self, late=None):
        self.late = late or Planned("planned")
        self.given: list[list[Plan | None]] = []

    def __call__(self, observation, noise, plans=()):
        self.given.append([*plans])
        return super().__call__(observation, noise)


def neutral(last):
    return np.zeros(1)


def test_a_source_with_a_strategy_is_asked_with_plans_if_it_depends_on_them():
    assert not isinstance(Counting(), Planning)
    assert late_of(Counting()) == DropHead()
    assert planning(Counting()) is planning(Continuing(DropHead())) is None
    source = Continuing()
    assert planning(source) is source and late_of(source) is source.late


def test_a_plan_holds_what_was_done_and_what_will_be_done_before_the_chunk_arrives():
    """T_o = 2, T_a = 4, d = 2: one action is done, three are planned, two of them will be done."""
    source = Continuing()
    [episode] = run_episodes(
        source, CameraEnv, [3], constant_ticks(2, DT_S), replace(OPTIONS, envs=1)
    )
    first, *others = source.given
    assert first == [None, None]  # control waits for it; the second row has no episode
    for start, plans in zip((4, 8), others, strict=True):
        for plan in plans:
            assert plan is not None and plan.delay == 2
            assert plan.executed.ravel().tolist() == [start - 1]
            assert plan.planned.ravel().tolist() == [*range(start, start + 3)]
    assert episode.score == TICKS
    assert episode.expected_ticks == episode.delay_ticks == (2, 2)


def test_on_the_wall_clock_plans_are_those_of_its_controller():
    source = Continuing()
    [episode] = run_on_wall_clock(source, CameraEnv, [3], OPTIONS)
    assert source.given[0] == [None]
    for [plan] in source.given[1:]:
        assert plan is not None and len(plan.executed) == 1 and plan.delay >= 1
    assert len(episode.expected_ticks) == len(episode.delay_ticks)


def plans_of(delays, usable, action_horizon, late, ticks=60):
    """The plans of all inferences, with the ticks at which they begin."""
    controller = RecedingHorizon(
        action_horizon, chain(delays, repeat(1)), neutral, late=late, first_delay=3, past=2
    )
    found = []
    for tick in range(ticks):
        controller.deliver(tick)
        if controller.wants_observation(tick):
            controller.begin(tick)
            found.append((tick, controller.plan(tick)))
            controller.finish(tick + np.arange(float(usable))[:, None])
        controller.act(tick)
    return found, controller


def same(one, other):
    (tick, plan), (at, theirs) = one, other
    if plan is None or theirs is None:
        return tick == at and plan is theirs
    arrays = zip((plan.executed, plan.planned), (theirs.executed, theirs.planned), strict=True)
    alike = all(np.array_equal(a, b) for a, b in arrays)
    return (tick, plan.delay) == (at, theirs.delay) and alike


several = st.lists(st.integers(0, 9), max_size=12)


@given(several, several, several, st.integers(2, 9), st.data())
def test_no_plan_depends_on_a_delay_that_has_not_passed(before, one, other, usable, data):
    """The chunks of both begin at the same ticks until the delays differ."""
    action_horizon = data.draw(st.integers(1, usable))
    late = Planned("planned")
    plans, _ = plans_of([*before, *one], usable, action_horizon, late)
    others, _ = plans_of([*before, *other], usable, action_horizon, late)
    known = len(before) + 2  # the first one is free, and that of the next delay has begun
    for mine, theirs in zip(plans[:known], others[:known], strict=False):
        assert same(mine, theirs)


@given(several, st.integers(2, 9))
def test_expected_delays_are_of_the_past_and_misses_are_counted(delays, usable):
    plans, controller = plans_of(delays, usable, 2, Planned("planned"))
    known = controller.delay_ticks
    expected = [plan.delay for _, plan in plans[1:] if plan]
    assert expected == controller.expected_ticks
    assert expected == [max(known[max(0, i - 10) : i], default=3) for i in range(len(known))]


def test_only_an_oracle_knows_the_delay_that_it_will_have():
    delays = [2, 0, 5, 1]
    plans, _ = plans_of(delays, 9, 2, Planned("planned:oracle", oracle=True))
    assert [plan.delay for _, plan in plans[1:5] if plan] == delays


def test_an_oracle_is_refused_where_delays_are_measured():
    source = Continuing(Planned("planned:oracle", oracle=True))
    with pytest.raises(DiffpolicyError, match="oracle knows delays before they have passed"):
        Controller(source, control_dt_s=DT_S)


def test_a_forecast_looks_at_ten_delays():
    assert forecast([], 4) == 4
    assert forecast([9, *[1] * 9], 4) == 9
    assert forecast([9, *[1] * 10], 4) == 1


def test_before_any_delay_the_slow_inferences_of_the_profile_are_expected():
    profile = LatencyProfile(np.array([*[1.0] * 980, *[1000 * DT_S * 2.5] * 20]), "test")
    assert profile.first_delay(DT_S) == 3
    assert constant_ticks(2, DT_S).first_delay(DT_S) == 2


def test_rows_without_an_episode_have_the_plan_of_the_last_one():
    source, plan = Continuing(), Plan(np.zeros((0, 1)), np.ones((3, 1)), 1)
    observation = {"camera": np.zeros((3, 2, 4, 5, 3), np.uint8)}
    ask(source, observation, [(1, 0), (2, 0)], 3, [None, plan])
    assert source.given == [[None, plan, plan]]


def test_a_batch_of_plans_is_normalised_and_extended():
    """T_o = 3, T_p = 6: of two rows of the past one is known; three are planned, one repeated."""
    plan = Plan(np.array([[4.0]]), np.array([[5.0], [6.0], [7.0]]), 2)
    starved = Plan(np.array([[4.0]]), np.empty((0, 0)), 2)
    plans = gather_plans([plan, None, starved], Horizons(3, 6, 2), identity(1), 1)
    assert plans.actions[0].ravel().tolist() == [4, 4, 5, 6, 7, 7]
    assert not plans.actions[1:].any()
    assert plans.executed.tolist() == [1, 0, 0] and plans.planned.tolist() == [3, 0, 0]
    assert plans.delay.tolist() == [2, 0, 0] and plans.waited.tolist() == [False, True, False]
