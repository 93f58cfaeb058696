"""Models with known results: those of diffusers' own tests, and exact denoisers of a Gaussian."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from diffpolicy.sampling.noise import levels_of

RAMP = (torch.arange(768, dtype=torch.float32) / 768).reshape(3, 8, 8, 4).permute(3, 0, 1, 2)
REVERSED = (torch.arange(768).flip(0) / 768).reshape(3, 8, 8, 4).permute(3, 0, 1, 2)


def by_time(x, t):
    return x * t / (t + 1)


def half(x, *_):
    return 0.5 * x


def gaussian(table, mean, std=0.0, prediction="epsilon") -> Callable[..., Tensor]:
    """The exact denoiser (x [B, …], t or [B]) of data ~ N(mean, std²); with std 0, of a point.

    table: ᾱ [T], or levels.
    """
    levels = table if isinstance(table, list) else levels_of(np.asarray(table))
    both = torch.tensor(levels, dtype=torch.float64)

    def denoise(x, t, *_):
        a, b = both[t].to(x).view(-1, 2).T.reshape(2, -1, *[1] * (x.ndim - 1))
        x0 = mean + a * std**2 / (a**2 * std**2 + b**2) * (x - a * mean)
        ε = (x - a * x0) / b
        return {"epsilon": ε, "x0": x0, "v": a * ε - b * x0, "velocity": ε - x0}[prediction]

    return denoise


def by_row(model, rows):
    """A model of (x, t) as a denoiser of (x, k) for a step table."""
    return lambda x, k: model(x, rows[k].t)
