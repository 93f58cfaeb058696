"""Latents of chunks by DDIM backwards, and interpolation (arXiv 2010.02502, sec. 4.3).

With η = 0 the sampler is a map x_T -> x_0 that can be run backwards. Denoisers here take a timestep
instead of a row number: (x [B, T_p, D_a], t) -> y [B, T_p, D_a]. `options` are those of `ddim_row`,
such as prediction and clip.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from diffpolicy.sampling.ddim import ddim
from diffpolicy.sampling.grids import Grid
from diffpolicy.sampling.noise import Level
from diffpolicy.sampling.steps import sample

DenoiseAt = Callable[[Tensor, int], Tensor]


def decode(
    denoise: DenoiseAt, x_T: Tensor, levels: Sequence[Level], grid: Grid, **options
) -> Tensor:
    """x_T [B, T_p, D_a] -> x_0, down the grid over the levels [T]."""
    rows = ddim(levels, grid, **options)
    return sample(lambda x, k: denoise(x, rows[k].t), x_T[None], rows)


def encode(
    denoise: DenoiseAt, x_0: Tensor, levels: Sequence[Level], grid: Grid, **options
) -> Tensor:
    """x_0 [B, T_p, D_a] -> x_T: the grid backwards, the same ordinary differential equation.

    A network knows no level below timestep 0, so x_0 counts as a sample at ᾱ_0. The error shrinks
    with the number of steps; values that were clipped in decoding cannot be recovered.
    """
    times = [0, *sorted({t for t, _ in grid} - {0})]
    return decode(denoise, x_0, levels, list(pairwise(times)), **options)


def slerp(a: Tensor, b: Tensor, fraction: float) -> Tensor:
    """Interpolate from a to b [B, …] on their sphere, each sample alone (appendix D.5, eq. 67)."""
    u, v = a.flatten(1), b.flatten(1)
    cos = (u * v).sum(1) / (u.norm(dim=1) * v.norm(dim=1))
    θ = cos.clamp(-1, 1).acos().view(-1, *[1] * (a.ndim - 1))
    along = torch.sin((1 - fraction) * θ) * a + torch.sin(fraction * θ) * b
    return torch.where(θ.sin().abs() < 1e-6, torch.lerp(a, b, fraction), along / θ.sin())


def interpolate(
    denoise: DenoiseAt,
    one: Tensor,
    other: Tensor,
    fractions: Sequence[float],
    levels: Sequence[Level],
    grid: Grid,
    **options,
) -> Tensor:
    """Chunks [F, B, T_p, D_a] at the given fractions of the way between two, by their latents."""
    a, b = (encode(denoise, x, levels, grid, **options) for x in (one, other))
    return torch.stack(
        [decode(denoise, slerp(a, b, f), levels, grid, **options) for f in fractions]
    )
