"""Heun's method as a table (Karras et al., arXiv 2206.00364, alg. 1, without churn).

Every step but the one to the level CLEAN takes two rows, so K steps are 2K - 1 evaluations. The
second row starts from the Euler step, from which the sample before it is recovered.
"""

from collections.abc import Iterator, Sequence

from diffpolicy.errors import DiffpolicyError
from diffpolicy.sampling.ddim import ddim, ddim_row
from diffpolicy.sampling.grids import Grid
from diffpolicy.sampling.noise import CLEAN, Level, level_at
from diffpolicy.sampling.steps import Row


def heun(levels: Sequence[Level], grid: Grid, **options) -> list[Row]:
    """Two rows for each pair of the grid, one for the last; `options` as in `ddim_row`, η = 0."""
    if options.get("eta"):
        raise DiffpolicyError("the sampler heun injects no noise; leave out --eta")
    if len(grid) > 1 and not level_at(levels, grid[0][0]).signal:
        raise DiffpolicyError(
            f"the sampler heun cannot start at pure noise, t = {grid[0][0]}; try a smaller "
            "--start, or --sampler midpoint"
        )
    return list(_rows(levels, grid, {**options, "rederive": True}))


def _rows(levels: Sequence[Level], grid: Grid, options: dict) -> Iterator[Row]:
    for t, s in grid:
        yield from ddim(levels, [(t, s)], **options)
        if s != CLEAN:
            reading = ddim_row(level_at(levels, s), Level(1.0, 0.0), s, **options)
            yield _second(level_at(levels, t), level_at(levels, s), reading)


def _second(level_t: Level, level_s: Level, reading: Row) -> Row:
    """x_s = a_s (y + (σ_s - σ_t) (d + d')/2) with y = x/a and the slopes d = (y - x̂0)/σ."""
    σ, σ_s = level_t.sigma, level_s.sigma
    ratio, h = σ_s / σ, σ_s - σ
    y, y_previous = 1 / ratio, -(1 - ratio) / ratio  # of y at t, from the Euler step and x̂0
    x = y + h / 2 * (y / σ + 1 / σ_s)
    previous = y_previous + h / 2 * (y_previous - 1) / σ
    a = level_s.signal
    return reading._replace(x=x, x0=-a * h / 2 / σ_s, previous=a * previous)
