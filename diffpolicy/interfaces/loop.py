"""DDIM as one call, with the names of denoising-diffusion-pytorch's `GaussianDiffusion`."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from diffpolicy.sampling import grids, steps
from diffpolicy.sampling.ddim import ddim
from diffpolicy.sampling.noise import levels_of
from diffpolicy.sampling.wrappers import self_conditioned

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

    model(x [B, …], t [B]), with a third argument x_self_cond, the previous x̂0 or None, under
    self_condition. S = T samples ancestrally (η = 1), as the original does. x̂0 is
    clipped to ±1 and ε derived again from it. auto_normalize maps [-1, 1] to [0, 1] at the end.
    """
    timesteps = len(alphas_cumprod)
    eta = ddim_sampling_eta if sampling_timesteps < timesteps else 1.0
    grid = grids.make_grid(timesteps, sampling_timesteps, "loop")
    prediction = OBJECTIVES[objective]
    rows = ddim(
        levels_of(alphas_cumprod), grid, prediction=prediction, clip=1.0, rederive=True, eta=eta
    )

    def denoise(x: Tensor, k: int, *x_self_cond: Tensor | None) -> Tensor:
        return model(x, torch.full((len(x),), rows[k].t, device=x.device), *x_self_cond)

    chosen = self_conditioned(denoise, rows) if self_condition else denoise
    states = steps.states(chosen, steps.with_noise(noise, rows, generator), rows)
    xs = [noise, *(x for x, _ in states)]
    found = torch.stack(xs, dim=1) if return_all_timesteps else xs[-1]
    return (found + 1) / 2 if auto_normalize else found
