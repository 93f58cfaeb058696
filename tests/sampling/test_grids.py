"""Grids: falling chains of exactly the steps asked for, from where they say to where they say."""

from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffpolicy.errors import DiffpolicyError
from diffpolicy.sampling.grids import (
    SPACINGS,
    duplicates,
    listed_grid,
    make_grid,
    pairs,
    parse_grid,
)
from diffpolicy.sampling.noise import CLEAN, make_levels

spacings = st.sampled_from(sorted(SPACINGS))
LEVELS = make_levels("squaredcos", 100)
chains = st.integers(1, 1000)
budgets = chains.flatmap(lambda T: st.tuples(st.just(T), st.integers(1, T)))
parts = st.tuples(st.integers(0, 999), st.integers(0, 999)).map(sorted)


@given(spacings, budgets, st.sampled_from([CLEAN, 0]))
def test_a_grid_is_a_falling_chain_of_exactly_k_steps(spacing, budget, final):
    timesteps, k = budget
    grid = make_grid(timesteps, k, spacing, final=final)
    assert len(grid) == k
    assert timesteps > grid[0][0] and grid[-1] == (grid[-1][0], final)
    assert all(s == t for (_, s), (t, _) in pairwise(grid))
    times = [t for t, _ in grid]
    assert times == sorted(times, reverse=True) and times[-1] >= 0
    assert spacing == "quadratic" or len(set(times)) == k


@given(st.sampled_from(["trailing", "loop", "quadratic"]), budgets)
def test_these_start_at_the_noise_the_network_was_trained_on(spacing, budget):
    assert make_grid(*budget, spacing)[0][0] == budget[0] - 1


@given(st.sampled_from(["leading", "linspace"]), chains)
def test_a_single_step_of_these_is_made_at_0(spacing, timesteps):
    assert make_grid(timesteps, 1, spacing) == [(0, CLEAN)]


@given(st.sampled_from(["trailing", "loop", "leading", "linspace"]), budgets)
def test_steps_are_even(spacing, budget):
    timesteps, k = budget
    sizes = [t - s for t, s in make_grid(timesteps, k, spacing)[:-1]]
    assert not sizes or max(sizes) - min(sizes) <= 2


@given(budgets)
def test_trailing_is_rounded_from_exact_fractions(budget):
    """T, T - T/K, … less 1; a half may go either way."""
    timesteps, k = budget
    exact = [Fraction(timesteps * left, k) - 1 for left in range(k, 0, -1)]
    found = [t for t, _ in make_grid(timesteps, k)]
    assert all(abs(t - e) <= 0.5 for t, e in zip(found, exact, strict=True))


@given(budgets)
def test_loop_is_the_whole_part_of_exact_fractions(budget):
    timesteps, k = budget
    times = [int(-1 + Fraction(timesteps * i, k)) for i in range(k, 0, -1)]
    assert [t for t, _ in make_grid(timesteps, k, "loop")] == times


@pytest.mark.parametrize(
    ("spacing", "times"),
    [
        ("trailing", [99, 79, 59, 39, 19]),
        ("leading", [80, 60, 40, 20, 0]),
        ("linspace", [99, 74, 50, 25, 0]),
        ("loop", [99, 79, 59, 39, 19]),
        ("quadratic", [99, 63, 35, 15, 3]),
    ],
)
def test_five_steps_in_a_hundred(spacing, times):
    assert make_grid(100, 5, spacing) == list(zip(times, [*times[1:], CLEAN], strict=True))


@given(spacings, parts, st.data())
def test_a_part_of_the_chain_is_spaced_like_a_whole_one(spacing, part, data):
    end, start = part
    levels = start - end + 1
    k = data.draw(st.integers(1, levels))
    moved = [t + end for t, _ in make_grid(levels, k, spacing)]
    assert make_grid(1000, k, spacing, start, end) == pairs(moved)


def test_duplicates_are_counted():
    """Ten quadratic steps in ten timesteps: 9 7 5 4 3 2 1 0 0 0."""
    assert duplicates(make_grid(10, 10, "quadratic")) == 2
    assert duplicates(make_grid(100, 10, "quadratic")) == 0
    assert duplicates(make_grid(100, 10, "leading", final=0)) == 1


@given(st.lists(st.integers(0, 99), min_size=1, unique=True))
def test_a_falling_list_is_a_grid(times):
    times.sort(reverse=True)
    assert listed_grid(100, times) == pairs(times)
    assert parse_grid(LEVELS, ",".join(map(str, times)), None, None, 0) == pairs(times)


@pytest.mark.parametrize("times", [[], [100], [5, -1], [5, 5], [5, 7], [0, 99]])
def test_a_list_that_does_not_fall_in_range_is_refused(times):
    with pytest.raises(DiffpolicyError, match="fall strictly, from at most 99"):
        listed_grid(100, times)


@pytest.mark.parametrize("text", ["uniform", "", "85;20", "8.5,2"])
def test_what_is_neither_a_spacing_nor_a_list_is_refused(text):
    with pytest.raises(DiffpolicyError, match=r"one of trailing, leading, .* or timesteps like"):
        parse_grid(LEVELS, text, None, None, 0)


@given(chains, st.integers(0, 1000))
def test_budgets_outside_the_chain_are_refused(timesteps, excess):
    for k in (timesteps + 1 + excess, -excess):
        with pytest.raises(DiffpolicyError, match=f"between 1 and the {timesteps} .* got {k}"):
            make_grid(timesteps, k)


@pytest.mark.parametrize(("start", "end"), [(100, 0), (20, 30), (50, -1)])
def test_ends_outside_the_chain_are_refused(start, end):
    with pytest.raises(DiffpolicyError, match=f"<= 99; got start {start}, end {end}"):
        make_grid(100, 2, "trailing", start, end)
    with pytest.raises(DiffpolicyError, match="the 11 timesteps from 30 to 20; got 12"):
        make_grid(100, 12, "trailing", 30, 20)


def test_linspace_and_leading_are_those_of_numpy():
    for k in range(1, 101):
        expected = np.linspace(0, 99, k).round()[::-1].astype(int).tolist()
        assert [t for t, _ in make_grid(100, k, "linspace")] == expected
        expected = (np.arange(k) * (100 // k))[::-1].tolist()
        assert [t for t, _ in make_grid(100, k, "leading")] == expected
