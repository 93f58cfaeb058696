"""UniPC of second order as a table (Zhao et al., arXiv 2302.04867, B₂(h) = e^h - 1).

The predictor is DPM-Solver++ 2M. The corrector costs no evaluation: once x̂0 at level t is known,
the step that led there from level p is corrected, before the next one. x̂0 is kept as it was before
the correction.
"""

import math
from collections.abc import Iterator, Sequence

from diffpolicy.errors import DiffpolicyError
from diffpolicy.sampling.ddim import ddim
from diffpolicy.sampling.dpm import extrapolations
from diffpolicy.sampling.grids import Grid
from diffpolicy.sampling.noise import Level, level_at
from diffpolicy.sampling.steps import Row


def correction(before: Level, p: Level, t: Level, w: float) -> tuple[float, float, float]:
    """Factors of x̂0 at t, at p and before p that correct the sample at t.

    w: extrapolation of the step from p to t, 0 for first order. With h = λ_t - λ_p, B = e^-h - 1:
    x_t - a_t B (ρ₁ (x̂0_t - x̂0_p) + (ρ₀ - ½) (x̂0_before - x̂0_p) / r), r = (λ_before - λ_p) / h.
    """
    h = t.log_snr - p.log_snr
    scale = -t.signal * math.expm1(-h) if math.isfinite(h) else t.signal
    if w == 0:
        return scale / 2, -scale / 2, 0.0
    r = (before.log_snr - p.log_snr) / h
    f = math.expm1(-h) / -h - 1  # φ₁ - 1, by the weights of eq. 9
    first, second = f / math.expm1(-h), 2 * (f / -h - 0.5) / math.expm1(-h)
    ρ0 = (second - first) / (r - 1)
    ρ1 = first - ρ0
    bent = (ρ0 - 0.5) / r
    return scale * ρ1, -scale * (ρ1 + bent), scale * bent


def unipc(levels: Sequence[Level], grid: Grid, **options) -> list[Row]:
    """One row for each pair of the grid; `options` as in `ddim_row`, with η = 0."""
    if options.get("eta"):
        raise DiffpolicyError("the sampler unipc injects no noise; leave out --eta")
    return list(_rows(levels, grid, options))


def _rows(levels: Sequence[Level], grid: Grid, options: dict) -> Iterator[Row]:
    ws = extrapolations(levels, grid)
    seen = [level_at(levels, t) for t, _ in grid]
    for k, row in enumerate(ddim(levels, grid, **{**options, "rederive": True})):
        move = row.x0 * (1 + ws[k]), -row.x0 * ws[k], 0.0
        if k:
            corrected = correction(seen[max(k - 2, 0)], seen[k - 1], seen[k], ws[k - 1])
            move = tuple(m + row.x * c for m, c in zip(move, corrected, strict=True))
        yield row._replace(x0=move[0], previous=move[1], earlier=move[2])
