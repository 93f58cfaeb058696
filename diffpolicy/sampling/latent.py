"""DDIM as a code: a chunk's own latent, and the chunks between two (arXiv 2010.02502, sec. 4.3).

With η = 0 the sampler is a map x_T -> x_0 that can be run backwards. Denoisers here take a timestep
in place of a step's number: (x [B, T_p, D_a], t) -> prediction [B, T_p, D_a].
"""

from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from diffpolicy.sampling.ddim import Reading, ddim_sample, make_steps
from diffpolicy.sampling.grids import Grid

DenoiseAt = Callable[[Tensor, int], Tensor]


def decode(
    denoise: DenoiseAt, x_T: Tensor, table: np.ndarray, grid: Grid, reading: Reading
) -> Tensor:
    """x_T [B, T_p, D_a] -> x_0, down the grid."""
    steps = make_steps(table, grid)
    return ddim_sample(lambda x, k: denoise(x, steps[k].t), x_T[None], steps, reading)


def encode(
    denoise: DenoiseAt, x_0: Tensor, table: np.ndarray, grid: Grid, reading: Reading
) -> Tensor:
    """x_0 [B, T_p, D_a] -> x_T: the grid backwards, the same ordinary differential equation.

    A network knows no level below timestep 0, so x_0 counts as a sample at ᾱ_0. The error shrinks
    with the number of steps; what was clipped away in decoding cannot be found again.
    """
    levels = [0, *sorted({t for t, _ in grid} - {0})]
    return decode(denoise, x_0, table, list(pairwise(levels)), reading)


def slerp(a: Tensor, b: Tensor, fraction: float) -> Tensor:
    """From a to b on their sphere, each sample of [B, …] by itself (appendix D.5, eq. 67)."""
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
    table: np.ndarray,
    grid: Grid,
    reading: Reading,
) -> Tensor:
    """Chunks [F, B, T_p, D_a] at the given fractions of the way between two, by their latents."""
    a, b = (encode(denoise, x, table, grid, reading) for x in (one, other))
    return torch.stack([decode(denoise, slerp(a, b, f), table, grid, reading) for f in fractions])
