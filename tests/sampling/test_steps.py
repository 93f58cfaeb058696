"""Samplers as tables equal their papers' own form, in float64 to rounding."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from golden import by_row

from diffpolicy.sampling.ddim import ddim
from diffpolicy.sampling.dpm import dpm_solver
from diffpolicy.sampling.grids import make_grid, pairs
from diffpolicy.sampling.heun import heun
from diffpolicy.sampling.noise import Level, level_at, make_levels
from diffpolicy.sampling.steps import Row, move, noise_count, read, sample, states

LEVELS = make_levels("squaredcos", 100)


def crooked(x, t):
    return torch.tanh(x) + 0.3 * torch.cos(3 * x + t)


def normal(*shape: int) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def close(found, expected):
    torch.testing.assert_close(found, expected, rtol=5e-14, atol=5e-15)


@pytest.mark.parametrize("clip", [None, 1.0])
@pytest.mark.parametrize("k", [1, 2, 5, 20])
def test_dpm_solver_2m(k, clip):
    """Its algorithm with λ = log(α/σ), D from the last two x̂0, step by step."""
    grid = make_grid(100, k, start=90)
    x, previous, h_before = normal(2, 4, 3), torch.zeros(()), 0.0
    rows, noise = dpm_solver(LEVELS, grid, clip=clip), x[None]
    for i, (t, s) in enumerate(grid):
        (α, σ), (α_s, σ_s) = (level_at(LEVELS, j) for j in (t, s))
        x0 = (x - σ * crooked(x, t)) / α
        x0 = x0 if clip is None else x0.clamp(-clip, clip)
        h = math.log(α_s / σ_s) - math.log(α / σ) if σ_s else math.inf
        r = h_before / h
        D = (1 + 1 / (2 * r)) * x0 - previous / (2 * r) if 0 < i < k - 1 else x0
        x = σ_s / σ * x - α_s * (math.exp(-h) - 1) * D
        previous, h_before = x0, h
    torch.testing.assert_close(
        sample(by_row(crooked, rows), noise, rows), x, rtol=1e-12, atol=1e-13
    )


def test_edm_heun():
    """Alg. 1 of arXiv 2206.00364 without churn, the second evaluation at the Euler step."""

    def D(x, σ):
        return torch.tanh(x / (1 + σ))

    levels = np.linspace(80 ** (1 / 7), 0.002 ** (1 / 7), 8) ** 7
    x = 80 * normal(2, 4, 3)
    rising = [Level(1.0, σ) for σ in levels[::-1]]
    rows, noise = heun(rising, pairs(range(7, -1, -1)), prediction="x0"), x[None]
    for σ, s in pairwise([*levels, 0.0]):
        d = (x - D(x, σ)) / σ
        euler = x + (s - σ) * d
        x = x + (s - σ) * (d + (euler - D(euler, s)) / s) / 2 if s else euler
    assert len(rows) == 2 * 8 - 1
    found = sample(lambda x, k: D(x, rising[rows[k].t].noise), noise, rows)
    close(found, x)


def test_flow_matching_by_euler():
    times = [1.0, 0.8, 0.4, 0.1, 0.0]
    levels = [Level(1 - u, u) for u in times[-2::-1]]
    x = normal(2, 4, 3)
    rows, noise = ddim(levels, pairs([3, 2, 1, 0]), prediction="velocity"), x[None]
    for t, (u, w) in zip((3, 2, 1, 0), pairwise(times), strict=True):
        x = x + (w - u) * crooked(x, t)
    close(sample(by_row(crooked, rows), noise, rows), x)


def test_the_first_row_cannot_use_the_x0_before():
    x = normal(1, 2, 1)
    row = Row(0, 0.0, 1.0, x0=1.0, previous=0.5)
    with pytest.raises(ValueError, match="first rows"):
        move(x, x, read(x, x, row), row)


def test_states_are_reads_and_moves_one_after_the_other():
    plain = dpm_solver(LEVELS, make_grid(100, 5, start=90), clip=1.0)
    rows = [row._replace(z=0.1 * (k % 2)) for k, row in enumerate(plain)]
    noise = normal(noise_count(rows), 2, 4, 1)
    assert len(noise) == 6
    x, previous = noise[0], None
    for k, (found_x, found_x0) in enumerate(states(by_row(crooked, rows), noise, rows)):
        y = crooked(x, rows[k].t)
        x0 = read(x, y, rows[k])
        x = move(x, y, x0, rows[k], previous, noise[k + 1])
        previous = x0
        assert torch.equal(found_x, x) and torch.equal(found_x0, x0)
