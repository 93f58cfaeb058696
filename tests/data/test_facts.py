"""Facts about motion: idle rows, limits, changes, jumps, near duplicates."""

import numpy as np
import pytest

from diffpolicy.data import facts

ONE = np.ones(1)


def column(*values):
    return np.array(values, float)[:, None]


def test_rows_are_idle_in_stretches_without_motion():
    moving = np.linspace(0, 1, 20)
    values = column(*[0.0] * 10, *moving, *[1.0] * 12)
    idle = facts.idle_rows(values, ONE, stretch=5)
    assert idle[:10].all() and idle[30:].all() and not idle[12:28].any()
    assert facts.moving_part(idle) == (int(np.argmin(idle)), len(idle) - int(np.argmin(idle[::-1])))


@pytest.mark.parametrize("stretch", [2, 3, 4, 9])
def test_idle_rows_are_those_of_a_plain_search(stretch):
    rng = np.random.default_rng(stretch)
    values = np.cumsum(rng.integers(-1, 2, (60, 2)) * rng.integers(0, 2, (60, 1)), axis=0) * 1.0
    span, expected = np.ptp(values, axis=0), np.zeros(60, bool)
    for start in range(60 - stretch + 1):
        part = values[start : start + stretch]
        if np.all(np.ptp(part, axis=0) <= 0.2 * span):
            expected[start : start + stretch] = True
    np.testing.assert_array_equal(facts.idle_rows(values, span, stretch, 0.2), expected)


def test_an_episode_shorter_than_a_stretch_is_not_idle():
    assert not facts.idle_rows(column(1, 1, 1), ONE, stretch=5).any()
    assert facts.moving_part(np.ones(3, bool)) == (0, 0)


def test_a_stretch_lasts_half_a_second():
    assert facts.idle_stretch(0.02) == 25
    assert facts.idle_stretch(0.5) == 2
    assert facts.idle_stretch(None) == facts.IDLE_ROWS


def test_values_at_or_beyond_a_limit_count():
    values = np.array([[-1.0, 3.0], [0.5, 0.0], [2.0, 9.0]])
    found = facts.at_limits(values, np.array([-1, -np.inf]), np.array([1, np.inf]))
    np.testing.assert_array_equal(found, [[True, False], [False, False], [True, False]])
    assert not facts.at_limits(column(1, 1), ONE, ONE).any()


def test_angles_change_the_shorter_way_round():
    turn = 2 * np.pi
    shares = facts.changes(column(0.1, turn - 0.1), np.array([turn]))
    assert shares[0, 0] == pytest.approx(0.2 / turn)
    assert facts.changes(column(0, 9), np.array([10.0]))[0, 0] == pytest.approx(0.9)
    assert facts.changes(column(3, 3), np.zeros(1))[0, 0] == 0


def test_a_jump_is_large_rare_and_unlike_other_episodes():
    usual = np.array([0.01])
    assert facts.jumps(column(0.9), usual).all()
    assert not facts.jumps(column(0.4), usual).any()
    assert not facts.jumps(column(0.9), np.array([0.9])).any()  # a number that switches
    assert not facts.jumps(column(0.9), np.array([np.nan])).any()
    np.testing.assert_array_equal(facts.jumps(column(0.9, 0.1, 0.1), usual)[:, 0], [1, 0, 0])
    assert not facts.jumps(column(0.9, 0.8, 0.9), usual).any()


def test_an_episode_at_another_speed_is_a_near_duplicate():
    rng = np.random.default_rng(0)
    episodes = [np.cumsum(rng.standard_normal((50, 2)), axis=0) for _ in range(4)]
    slow = np.repeat(episodes[1], 2, axis=0)[:-1] + 1e-4
    outlines = np.stack([facts.outline(x) for x in [*episodes, slow]])
    low, high = outlines.min(axis=(0, 1)), outlines.max(axis=(0, 1))
    distances, numbers = facts.nearest(outlines, low, high - low)
    [(one, other, distance)] = facts.near_pairs(distances, numbers, near=0.05)
    assert (one, other) == (1, 4) and distance < 0.05


def test_equal_episodes_are_pairs_and_one_alone_has_none():
    outlines = np.zeros((3, facts.OUTLINE_POINTS, 1)) + np.arange(facts.OUTLINE_POINTS)[:, None]
    found = facts.nearest(outlines, np.zeros(1), ONE)
    assert {pair for one, other, _ in facts.near_pairs(*found) for pair in (one, other)} == {
        0,
        1,
        2,
    }
    assert facts.near_pairs(*facts.nearest(outlines[:1], np.zeros(1), ONE)) == []


def test_an_outline_begins_and_ends_with_the_episode():
    values = np.random.default_rng(0).standard_normal((37, 3))
    found = facts.outline(values)
    assert found.shape == (facts.OUTLINE_POINTS, 3)
    np.testing.assert_allclose(found[[0, -1]], values[[0, -1]])
    np.testing.assert_array_equal(facts.outline(values[:1]), np.repeat(values[:1], 16, axis=0))


def test_runs_of_equal_pictures():
    pictures = np.arange(6)[[0, 1, 1, 1, 4, 5]][:, None, None, None]
    repeated = facts.repeats(pictures)
    np.testing.assert_array_equal(repeated, [0, 0, 1, 1, 0, 0])
    assert facts.longest_run(repeated) == (2, 4)
    assert facts.longest_run([False, False]) == (0, 0)
