"""Laws of the game: it is the rollout with a person's settings, and commands act at replans."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scripted import Feedback, Noisy, unfinished

from diffpolicy import environment
from diffpolicy.control import latency
from diffpolicy.control.episode import RolloutOptions
from diffpolicy.control.rollout import run_episodes
from diffpolicy.errors import DiffpolicyError
from diffpolicy.late import parse_late
from diffpolicy.play import overlay
from diffpolicy.play.game import Count, Game, Setting

DT, TICKS, FIRST = 0.02, 30, 7
OPTIONS = RolloutOptions(control_dt_s=DT, envs=1, batch=1)
START = Setting(0, 0)
CHANGES = ("more", "less", "later", "sooner", "pause", "reset")


def make():
    return environment.make("diffpolicy.envs:Balance-v0", {}, max_steps=TICKS)


class Logged(Noisy):
    """A policy with a log of (its steps, the game's tick)."""

    def __init__(self, steps, log):
        super().__init__(steps)
        self.log = log

    def __call__(self, observation, noise):
        self.log.append(self.steps)
        return super().__call__(observation, noise)


class Played:
    """A game, the policies that were asked, and the actions of each tick."""

    def __init__(self, setting=START, policies=(Logged,) * 3):
        self.asked = []
        budgets = {f"{n} steps": kind(n, self.asked) for n, kind in enumerate(policies)}
        self.game = Game(make, budgets, OPTIONS, FIRST, setting)

    def ticks(self, count):
        for _ in range(count):
            self.game.tick()

    def finish(self):
        """Tick to the end of the running episode; its result."""
        for _ in range(TICKS + 1):
            if self.game.tick():
                return self.game.episode.result()
        raise AssertionError("the episode does not end")


@pytest.fixture
def played():
    one = Played()
    yield one
    one.game.close()


@pytest.mark.parametrize(("budget", "delay"), [(0, 0), (2, 1), (1, 9)])
def test_without_commands_the_episodes_are_those_of_the_rollout(budget, delay):
    """Delay 9 outruns the chunks of 8 actions: it starves."""
    one = Played(Setting(budget, delay))
    found = [one.finish()]
    one.ticks(round(1 / DT))  # the end stands for a second
    found.append(one.finish())
    late = latency.constant_ticks(delay, DT)
    assert found == run_episodes(Noisy(budget), make, [FIRST, FIRST + 1], late, OPTIONS)
    assert one.game.counts == {
        Setting(budget, delay): Count(sum(e.success for e in found), len(found))
    }
    one.game.close()


def test_a_budget_is_changed_at_the_next_replan(played):
    """T_a = 4: chunks begin at ticks 0, 4 and 8."""
    played.ticks(2)
    played.game.more()
    assert (played.game.running.budget, played.asked) == (0, [0])
    played.ticks(2)
    assert played.asked == [0]
    played.ticks(1)
    assert (played.game.running.budget, played.asked) == (1, [0, 1])
    played.ticks(4)
    assert played.asked == [0, 1, 1]


def test_a_delay_is_changed_at_the_next_replan(played):
    played.ticks(5)
    for _ in range(2):
        played.game.later()
    assert played.game.episode.controller.delay_ticks == [0]
    played.ticks(8)
    assert played.game.episode.controller.delay_ticks == [0, 2, 2]
    assert played.game.episode.controller.ages == [0, 1, 2, 3, 0, 1, 2, 3, 4, 5, 2, 3, 4]


def test_settings_stay_in_their_range(played):
    for command, expected in (("less", 0), ("more", 1), ("more", 2), ("more", 2)):
        getattr(played.game, command)()
        assert played.game.wanted.budget == expected
    played.game.sooner()
    assert played.game.wanted.delay == 0


def test_a_pause_freezes_the_tick(played):
    played.ticks(3)
    played.game.pause()
    before = played.game.episode.history["observation"][-1].copy()
    played.ticks(5)
    assert played.game.episode.tick == 3
    np.testing.assert_array_equal(played.game.episode.history["observation"][-1], before)
    played.game.pause()
    played.ticks(1)
    assert played.game.episode.tick == 4


def test_a_restart_is_the_same_episode_and_counts_the_finished_one_alone(played):
    played.ticks(9)
    played.game.reset()
    assert played.game.episode.tick == 0
    first = played.finish()
    played.game.reset()
    assert not played.game.over
    assert played.finish() == first
    assert played.game.counts == {Setting(0, 0): Count(2 * first.success, 2)}


def test_an_episode_with_a_change_counts_apart(played):
    played.ticks(2)
    played.game.more()
    played.finish()
    assert played.game.counts == {} and played.game.mixed.episodes == 1
    assert overlay.ended(played.game).startswith(f"seed {FIRST}: changed in between: ")
    assert overlay.summary(played.game) == [
        f"changed in between: {overlay.shown(played.game.mixed)} successes"
    ]


def test_a_change_that_came_too_late_for_a_chunk_counts_for_the_next_episode(played):
    played.ticks(TICKS - 1)
    played.game.more()
    played.finish()
    assert list(played.game.counts) == [Setting(0, 0)]


def test_actions_that_are_not_finite_end_the_episode_as_a_failure(played):
    one = Played(policies=(lambda steps, log: unfinished(steps),))
    assert one.finish().failure
    assert "not finite" in overlay.ended(one.game)
    assert one.game.counts == {Setting(0, 0): Count(0, 1)}
    one.game.close()


def test_a_strategy_that_needs_real_time_is_refused():
    policy = Feedback(1)
    policy.late = parse_late("cut:5")
    with pytest.raises(DiffpolicyError, match="--late cut:5 depends on real time"):
        Game(make, {"1 step": policy}, OPTIONS, FIRST, Setting(0, 0))


@settings(max_examples=20)
@given(st.lists(st.tuples(st.integers(0, 12), st.sampled_from(CHANGES)), max_size=12))
def test_the_same_commands_at_the_same_ticks_are_the_same_game(commands):
    """And the lines fit the window at every tick, whatever was done."""
    states = []
    for _ in range(2):
        one, told = Played(), []
        for wait, command in commands:
            one.ticks(wait)
            told.append(overlay.lines(one.game, 1.0))
            getattr(one.game, command)()
        if one.game.paused:
            one.game.pause()
        one.ticks(9)
        told.append(overlay.lines(one.game, 0.5))
        controller = one.game.episode.controller
        states.append((told, one.asked, np.array(controller.applied), one.game.counts))
        assert all(len(lines) <= overlay.line_count(3) for lines in told)
        one.game.close()
    (told, asked, applied, counts), (told_2, asked_2, applied_2, counts_2) = states
    assert (told, asked, counts) == (told_2, asked_2, counts_2)
    np.testing.assert_array_equal(applied, applied_2)
