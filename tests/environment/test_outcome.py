"""Success and score mean one thing, and it is said which."""

from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest

from diffpolicy.environment.outcome import held_ticks, new_outcome, success_rule
from diffpolicy.errors import DiffpolicyError


def episode(infos, rewards=None, score_key=None, limit=20, success_from=None, **options):
    """The outcome of an episode with these infos."""
    spec = SimpleNamespace(id="Test-v0", max_episode_steps=limit)
    env = SimpleNamespace(unwrapped=SimpleNamespace(score_key=score_key), spec=spec)
    outcome = new_outcome(env, success_from, options.pop("success", "at-any-tick"), **options)
    for tick, info in enumerate(infos, 1):
        outcome.see(rewards[tick - 1] if rewards else 0.0, info, tick == len(infos))
    return outcome


def flags(text):
    return [{"success": letter == "1"} for letter in text]


# Success


@pytest.mark.parametrize(
    ("ticks", "any_tick", "at_end", "held_2", "held_3", "first"),
    [
        ("0000", False, False, False, False, None),
        ("0100", True, False, False, False, 2),
        ("0001", True, True, False, False, 4),
        ("0110", True, False, True, False, 2),
        ("0011", True, True, True, False, 3),
        ("01101", True, True, True, False, 2),
        ("10111", True, True, True, True, 1),
        ("11101", True, True, True, True, 1),
        ("10101", True, True, False, False, 1),
    ],
)
def test_success_is_at_any_tick_at_the_end_or_held(ticks, any_tick, at_end, held_2, held_3, first):
    expected = {"at-any-tick": any_tick, "at-end": at_end, "held:2": held_2, "held:3": held_3}
    found = {rule: episode(flags(ticks), success=rule) for rule in expected}
    assert {rule: outcome.success for rule, outcome in found.items()} == expected
    assert {outcome.success_tick for outcome in found.values()} == {first}


def test_held_once_is_at_any_tick_and_longer_is_harder():
    for ticks in (f"{n:06b}" for n in range(64)):
        rules = ["at-any-tick", *(f"held:{n}" for n in range(1, 7))]
        found = [episode(flags(ticks), success=rule).success for rule in rules]
        assert found[0] == found[1]
        assert all(easier >= harder for easier, harder in pairwise(found))


def test_where_the_key_is_absent_success_has_not_come_yet():
    late = [{}, {}, {"is_success": True}]
    for rule, expected in (("at-any-tick", True), ("at-end", True), ("held:2", False)):
        outcome = episode(late, success=rule)
        assert outcome.success is expected and outcome.success_tick == 3
    assert not episode([{"success": True}, {}], success="at-end").success
    assert not episode([{"success": True}, {}, {"success": True}], success="held:2").success
    assert not episode([{}, {"is_success": False}]).success


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (None, "info has no success or is_success or task_completions; it holds: speed, tilt"),
        ("won", "info has no won; it holds: speed, tilt"),
    ],
)
def test_an_episode_that_never_tells_is_an_error_with_the_keys_there_were(option, message):
    with pytest.raises(DiffpolicyError, match=message + r"\..*key>0.5, with --success-from"):
        episode([{}, {"speed": 1}, {"tilt": 0, "speed": 2}], success_from=option)


@pytest.mark.parametrize("value", [0.5, -1, 2, 1e-9, np.array([1, 0.5]), np.float32(0.999)])
def test_a_number_is_no_success_without_a_condition(value):
    with pytest.raises(DiffpolicyError, match=r'must be a bool, 0 or 1 .*"success>0.5"'):
        success_rule(None)({"success": value})
    assert success_rule("success>-2")({"success": value}) is True


@pytest.mark.parametrize("value", [1, 1.0, True, np.True_, np.array([1.0]), np.array([True, True])])
def test_a_bool_and_a_1_are_success(value):
    assert success_rule(None)({"success": value}) is True
    assert success_rule(None)({"success": np.logical_not(value)}) is False


@pytest.mark.parametrize("text", ["", "at_end", "held", "held:0", "held:-1", "held:2.5", "held:x"])
def test_a_rule_that_cannot_be_read_is_refused(text):
    with pytest.raises(DiffpolicyError, match="--success must be at-any-tick, at-end or held:N"):
        held_ticks(text)


def test_a_rule_that_cannot_be_fulfilled_is_refused():
    assert episode(flags("1" * 20), success="held:20").success
    with pytest.raises(DiffpolicyError, match="held:21 can never hold: episodes last 20 ticks"):
        episode(flags("1"), success="held:21")


# Score

POINTS = [{"success": False, "score": 3.0}, {"success": True, "score": 46.3}, {"success": True}]


def test_a_score_that_nobody_declared_is_not_one():
    assert episode(POINTS).score == 1.0
    assert episode(POINTS[:1]).score == 0.0
    assert episode(flags("010"), success="at-end").score == 0.0


def test_a_score_is_the_last_one_of_the_key_that_is_asked_for():
    assert episode(POINTS, score_from="score").score == 46.3
    assert episode(POINTS, score_from="score", score_key="other").score == 46.3
    assert episode([{"success": 0, "cost": np.array([-7])}], score_from="cost").score == -7


def test_a_score_is_the_sum_of_rewards_where_that_is_asked_for():
    outcome = episode(flags("0001"), rewards=[-1.5, 0.0, 4.0, -9.0], score_from="return")
    assert outcome.score == -6.5 and outcome.success


@pytest.mark.parametrize(
    ("text", "expected"),
    [("return/3000", 1.5), ("score/92.6", 0.5), ("a/b", 7.0), ("a/b/2", 3.5), ("8", 3.0)],
)
def test_a_score_is_divided_by_its_scale_and_told_with_it(text, expected):
    infos = [{"success": False, "score": 46.3, "a/b": 7.0, "8": 3.0}] * 2
    outcome = episode(infos, rewards=[4000.0, 500.0], score_from=text)
    assert (outcome.score, outcome.score_from) == (expected, text)


@pytest.mark.parametrize("text", ["return/0", "return/-2", "return/inf", "return/nan", "/3"])
def test_a_scale_that_is_none_is_refused(text):
    with pytest.raises(DiffpolicyError, match="--score-from must be key, key/scale, return or"):
        episode(flags("1"), score_from=text)


def test_success_may_be_a_return_where_info_has_none():
    """As in Hopper: success is the first tick at which the rewards so far exceed the number."""
    rewards = [40.0, 70.0, -20.0]
    outcome = episode([{}] * 3, rewards, success_from="return>100", score_from="return/100")
    assert (outcome.success, outcome.success_tick, outcome.score) == (True, 2, 0.9)
    at_end = episode([{}] * 3, rewards, success_from="return>100", success="at-end")
    assert not at_end.success


def test_a_declared_score_lies_in_0_to_1():
    infos = [{"success": False, "part": 0.25}, {"success": False, "part": 0.5}]
    assert episode(infos, score_key="part").score == 0.5
    with pytest.raises(DiffpolicyError, match=r"info\['score'\] must lie in \[0, 1\], as declared"):
        episode(POINTS, score_key="score")


@pytest.mark.parametrize(
    ("infos", "message"),
    [
        (flags("01"), "info has no cost; it holds: success. .* or return, with --score-from"),
        ([{"success": 0, "cost": "low"}], r"info\['cost'\] must be a finite number"),
        ([{"success": 0, "cost": np.nan}], r"info\['cost'\] must be a finite number"),
    ],
)
def test_a_score_that_is_none_is_named(infos, message):
    with pytest.raises(DiffpolicyError, match=message):
        episode(infos, score_from="cost")
    with pytest.raises(DiffpolicyError, match="the sum of the rewards must be a finite number"):
        episode(infos, rewards=[np.inf] * 2, score_from="return")


def test_a_condition_does_not_hold_at_its_border():
    for sign in "<>":
        rule = success_rule(f"collisions{sign}1")
        assert rule({"collisions": 1}) is False
        assert rule({"collisions": 0}) is (sign == "<")
        assert rule({"collisions": 2}) is (sign == ">")
