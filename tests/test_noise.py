"""Noise levels fall from clean to pure noise, and the grid spends exactly the steps asked for."""

import math
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffpolicy.errors import DiffpolicyError
from diffpolicy.noise import CLEAN, SCHEDULES, alpha_bar_at, alpha_bar_table, trailing_grid

schedules = st.sampled_from(sorted(SCHEDULES))
chains = st.integers(1, 1000)
budgets = chains.flatmap(lambda T: st.tuples(st.just(T), st.integers(1, T)))


@given(schedules, chains)
def test_the_signal_falls_and_stays_in_range(schedule, timesteps):
    table = alpha_bar_table(schedule, timesteps)
    assert table.shape == (timesteps,) and table.dtype == np.float64
    assert np.all(np.diff(table) < 0)
    assert table[-1] > 0 and table[0] <= 1


@given(schedules, st.integers(2, 1000))
def test_every_chain_starts_from_noise_alone(schedule, timesteps):
    assert math.sqrt(alpha_bar_table(schedule, timesteps)[-1]) < 0.04


def test_the_clean_level_lies_below_timestep_0():
    table = alpha_bar_table("squaredcos", 100)
    assert alpha_bar_at(table, CLEAN) == 1
    assert alpha_bar_at(table, 0) == table[0] < 1


def test_squaredcos_is_the_squared_cosine():
    f = np.cos((np.arange(101) / 100 + 0.008) / 1.008 * math.pi / 2) ** 2
    assert alpha_bar_table("squaredcos", 100)[:-1] == pytest.approx(f[1:-1] / f[0])


def test_the_first_squaredcos_step_multiplies_errors_by_2029():
    last = alpha_bar_table("squaredcos", 100)[-1]
    assert math.sqrt(1 - last) / math.sqrt(last) == pytest.approx(2029, abs=0.5)


def test_linear_is_the_paper_s_at_1000_steps_and_rescaled_below():
    assert np.array_equal(SCHEDULES["linear"](1000), np.linspace(1e-4, 0.02, 1000))
    assert SCHEDULES["linear"](100)[[0, -1]] == pytest.approx([1e-3, 0.2])
    unscaled = np.cumprod(1 - np.linspace(1e-4, 0.02, 100))[-1]
    assert math.sqrt(unscaled) == pytest.approx(0.603, abs=1e-3)
    assert math.sqrt(alpha_bar_table("linear", 100)[-1]) < 0.005


@given(budgets)
def test_a_grid_is_a_falling_chain_of_exactly_k_steps(budget):
    timesteps, k = budget
    grid = trailing_grid(timesteps, k)
    assert len(grid) == k
    assert grid[0][0] == timesteps - 1
    assert grid[-1][1] == CLEAN
    assert all(t > s for t, s in grid)
    assert all(s == t for (_, s), (t, _) in pairwise(grid))
    assert all(abs((t - s) - timesteps / k) <= 1 for t, s in grid)


@given(budgets)
def test_a_grid_is_diffusers_trailing_spacing(budget):
    """round(T, T - T/K, …) - 1, halves to even as NumPy rounds them."""
    timesteps, k = budget
    times = [round(Fraction(timesteps * left, k)) - 1 for left in range(k, 0, -1)]
    assert [t for t, _ in trailing_grid(timesteps, k)] == times


def test_a_grid_of_ten_steps_in_a_hundred():
    times = [99, 89, 79, 69, 59, 49, 39, 29, 19, 9]
    assert trailing_grid(100, 10) == list(zip(times, [*times[1:], CLEAN], strict=True))


@given(chains, st.integers(0, 1000))
def test_a_grid_refuses_budgets_outside_the_chain(timesteps, excess):
    for k in (timesteps + 1 + excess, -excess):
        with pytest.raises(DiffpolicyError, match=f"between 1 and the {timesteps} .* got {k}"):
            trailing_grid(timesteps, k)
