"""DDIM as one call, with the names of denoising-diffusion-pytorch's `GaussianDiffusion`."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from diffpolicy.sampling import ddim as sampler
from diffpolicy.sampling import grids

OBJECTIVES = {"pred_noise": "epsilon", "pred_x0": "x0", "pred_v": "v"}


def ddim_sample(
    model: Callable[..., Tensor],
    noise: Tensor,
    alphas_cumprod: np.ndarray,
    sampling_timesteps: int,
    *,
    ddim_sampling_eta: float = 0.0,
    objective: str = "pred_noise",
    self_condition: bool = False,
    return_all_timesteps: bool = False,
    auto_normalize: bool = True,
    generator: torch.Generator | None = None,
) -> Tensor:
    """noise [B, …] -> samples [B, …], or with all states [B, S + 1, …], the noise first.

    model(x [B, …], t [B], x_self_cond) where self_condition feeds the previous x̂0 back (None at
    first), else model(x, t). Where S = T the chain is ancestral (η = 1), as it is there. x̂0 is
    clipped to ±1 and ε derived again from it. auto_normalize maps [-1, 1] to [0, 1] at the end.
    """
    timesteps = len(alphas_cumprod)
    eta = ddim_sampling_eta if sampling_timesteps < timesteps else 1.0
    grid = grids.make_grid(timesteps, sampling_timesteps, "loop")
    steps = sampler.make_steps(alphas_cumprod, grid, eta)
    reading = sampler.Reading(OBJECTIVES[objective], clip=1.0)

    def denoise(x: Tensor, k: int, *x_self_cond: Tensor | None) -> Tensor:
        return model(x, torch.full((len(x),), steps[k].t, device=x.device), *x_self_cond)

    chosen = sampler.self_conditioned(denoise, steps, reading) if self_condition else denoise
    states = sampler.ddim_states(
        chosen, sampler.with_noise(noise, steps, generator), steps, reading
    )
    xs = [noise, *(x for x, _ in states)]
    found = torch.stack(xs, dim=1) if return_all_timesteps else xs[-1]
    return (found + 1) / 2 if auto_normalize else found
