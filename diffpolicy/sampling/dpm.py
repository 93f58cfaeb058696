"""DPM-Solver++ of second order, 2M, as a table (Lu et al., arXiv 2211.01095, alg. 2).

With η > 0 it is its stochastic form, 2M SDE. A step is one of DDIM from an extrapolated x̂0:

    D = x̂0 + w (x̂0 - x̂0_previous),  w = (λ_s - λ_t) / (λ_t - λ_previous) / 2,  λ = ln(a/b)

The first step and the one to the level CLEAN are of first order, so up to two steps are DDIM.
"""

import math
from collections.abc import Sequence

from diffpolicy.sampling.ddim import ddim
from diffpolicy.sampling.grids import Grid
from diffpolicy.sampling.noise import Level, level_at
from diffpolicy.sampling.steps import Row


def extrapolations(levels: Sequence[Level], grid: Grid) -> list[float]:
    """w of each step, 0 where it is of first order."""
    λ = [level_at(levels, t).log_snr for t, _ in grid] + [level_at(levels, grid[-1][1]).log_snr]
    steps = zip(λ, λ[1:], λ[2:], strict=False)
    finite = [(b - a, c - b) if c > b > a else (math.inf, 0.0) for a, b, c in steps]
    return [0.0, *(h / before / 2 if math.isfinite(h) else 0.0 for before, h in finite)]


def dpm_solver(levels: Sequence[Level], grid: Grid, **options) -> list[Row]:
    """One row for each pair of the grid; `options` as in `ddim_row`, but ε̂ is derived from D."""
    rows = ddim(levels, grid, **{**options, "rederive": True})
    ws = extrapolations(levels, grid)
    return [
        row._replace(x0=row.x0 * (1 + w), previous=-row.x0 * w)
        for row, w in zip(rows, ws, strict=True)
    ]
