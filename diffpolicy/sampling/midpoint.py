"""The midpoint method of flow matching as a table: two rows a step, 2K evaluations.

With x = (1-u) x0 + u ε the velocity is dx/du = (x - x̂0)/u. Euler's method is `ddim` with η = 0.
"""

import math
from collections.abc import Iterator, Sequence

from diffpolicy.errors import DiffpolicyError
from diffpolicy.sampling.ddim import ddim, ddim_row
from diffpolicy.sampling.grids import Grid
from diffpolicy.sampling.noise import Level, level_at
from diffpolicy.sampling.steps import Row


def midpoint(levels: Sequence[Level], grid: Grid, **options) -> list[Row]:
    """Two rows for each pair (t, s), the second at the timestep midway; η = 0.

    A pair without a timestep between is one Euler step. Raises DiffpolicyError for other levels
    than those of flow matching.
    """
    if options.get("eta") or not all(math.isclose(sum(level), 1) for level in levels):
        raise DiffpolicyError(
            "the sampler midpoint is for --schedule flow without --eta; try --sampler heun"
        )
    return list(_rows(levels, grid, {**options, "rederive": True}))


def _rows(levels: Sequence[Level], grid: Grid, options: dict) -> Iterator[Row]:
    for t, s in grid:
        m = (t + s + 1) // 2
        if m == t:
            yield from ddim(levels, [(t, s)], **options)
            continue
        yield from ddim(levels, [(t, m)], **options)
        reading = ddim_row(level_at(levels, m), Level(1.0, 0.0), m, **options)
        u, u_m, w = (level_at(levels, at).noise for at in (t, m, s))
        yield reading._replace(x=w / u_m, x0=(u - w) / u_m, previous=-(u - u_m) / u_m)
