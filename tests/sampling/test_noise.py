"""Noise levels fall from clean to pure noise, in float64."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffpolicy.sampling.noise import (
    BETAS,
    CLEAN,
    alpha_bar_of,
    alpha_bar_table,
    level_at,
    levels_of,
    zero_terminal_snr,
)

schedules = st.sampled_from(sorted(BETAS))
chains = st.integers(1, 1000)


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
    levels = levels_of(table)
    assert level_at(levels, CLEAN) == (1, 0)
    assert level_at(levels, 0).signal == pytest.approx(table[0] ** 0.5)


def test_squaredcos_is_the_squared_cosine():
    f = np.cos((np.arange(101) / 100 + 0.008) / 1.008 * math.pi / 2) ** 2
    assert alpha_bar_table("squaredcos", 100)[:-1] == pytest.approx(f[1:-1] / f[0])


def test_the_first_squaredcos_step_multiplies_errors_by_2029():
    last = alpha_bar_table("squaredcos", 100)[-1]
    assert math.sqrt(1 - last) / math.sqrt(last) == pytest.approx(2029, abs=0.5)


def test_linear_is_the_paper_s_at_1000_steps_and_rescaled_below():
    assert np.array_equal(BETAS["linear"](1000), np.linspace(1e-4, 0.02, 1000))
    assert 1 - alpha_bar_table("linear", 100)[0] == pytest.approx(1e-3)
    unscaled = np.cumprod(1 - np.linspace(1e-4, 0.02, 100))[-1]
    assert math.sqrt(unscaled) == pytest.approx(0.603, abs=1e-3)
    assert math.sqrt(alpha_bar_table("linear", 100)[-1]) < 0.005


def test_scaled_linear_is_linear_in_the_root():
    betas = BETAS["scaled_linear"](1000, 0.00085, 0.012)
    assert betas[[0, -1]] == pytest.approx([0.00085, 0.012])
    assert np.diff(np.sqrt(betas)) == pytest.approx(np.diff(np.sqrt(betas))[0])


@given(schedules, st.integers(2, 1000))
def test_zero_terminal_snr_ends_in_noise_alone_and_begins_where_it_did(schedule, timesteps):
    table = alpha_bar_of(BETAS[schedule](timesteps))
    rescaled = zero_terminal_snr(table)
    assert rescaled[-1] == 0
    assert rescaled[0] == pytest.approx(table[0])
    assert np.all(np.diff(rescaled) < 0)
