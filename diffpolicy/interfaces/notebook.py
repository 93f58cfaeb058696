"""DDIM with a budget that is not uniform: a dense tail, and before it predictions that are reused.

The solver takes every step from T - 1 to 0; the network is asked at the last `dense` of them and at
every `every`-th before. So solver steps and network evaluations are two numbers.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from diffpolicy.sampling import ddim as sampler
from diffpolicy.sampling import grids

READING = sampler.Reading()


class Sampled(NamedTuple):
    """A sample [B, …], both its trajectories [S, B, …], and what they cost."""

    sample: Tensor
    states: Tensor  # x_t after each step
    predictions: Tensor  # x̂0 at each step
    solver_steps: int
    network_evals: int


def reused_steps(solver_steps: int, dense: int, every: int) -> set[int]:
    """The steps that repeat the last prediction."""
    return {k for k in range(max(solver_steps - dense, 0)) if k % every}


def ddim_sample(
    model: Callable[[Tensor, Tensor], Tensor],
    noise: Tensor,
    alphas_cumprod: np.ndarray,
    *,
    dense: int = 50,
    every: int = 3,
    eta: float = 0.0,
    reading: sampler.Reading = READING,
    generator: torch.Generator | None = None,
) -> Sampled:
    """noise [B, …] -> Sampled, with model(x [B, …], t [B]) -> ε̂.

    T = 1000 makes 999 solver steps: 367 network evaluations at every = 3, 145 at every = 10.
    """
    steps = sampler.make_steps(
        alphas_cumprod, grids.pairs(range(len(alphas_cumprod) - 1, 0, -1), final=0), eta
    )
    reused = reused_steps(len(steps), dense, every)

    def denoise(x: Tensor, k: int) -> Tensor:
        return model(x, torch.full((len(x),), steps[k].t, device=x.device))

    drawn = sampler.with_noise(noise, steps, generator)
    states = list(sampler.ddim_states(sampler.reuse(denoise, reused), drawn, steps, reading))
    xs, x0s = (torch.stack(tensors) for tensors in zip(*states, strict=True))
    return Sampled(xs[-1], xs, x0s, len(steps), len(steps) - len(reused))
