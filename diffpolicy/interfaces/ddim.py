"""DDIM as functions, with the names, defaults and shapes of Edifice's `DDIM` module.

    from diffpolicy.interfaces import ddim
    model = ddim.build(obs_size=287, action_dim=64, action_horizon=8, num_steps=1000)
    schedule = ddim.make_schedule(num_steps=1000)
    actions = ddim.ddim_sample(model, ddim.predict, observations, noise, schedule=schedule)

It follows the paper in the points that differ in that module: σ·noise is added, exactly
`ddim_steps` steps are made, and the last one ends at ᾱ = 1.

Shapes: B batch, H action_horizon, A action_dim, O obs_size.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from diffpolicy.config import ModelConfig
from diffpolicy.denoisers import Denoiser
from diffpolicy.denoisers import build as build_denoiser
from diffpolicy.sampling import grids, noise, steps
from diffpolicy.sampling.ddim import ddim
from diffpolicy.specification import Horizons


class Schedule(NamedTuple):
    """Tables [T], float64."""

    num_steps: int
    betas: Tensor
    alphas: Tensor
    alphas_cumprod: Tensor
    sqrt_alphas_cumprod: Tensor
    sqrt_one_minus_alphas_cumprod: Tensor


def build(
    obs_size: int,
    action_dim: int,
    action_horizon: int = 8,
    hidden_size: int = 256,
    num_layers: int = 4,
    num_steps: int = 1000,
) -> Denoiser:
    """The noise predictor: noisy_actions [B, H, A], timestep [B], observations [B, O] -> [B, H, A].

    It is the denoiser "concat", so `diffpolicy train --denoiser concat` trains the same network.
    """
    model = ModelConfig(
        denoiser="concat", hidden=hidden_size, blocks=num_layers, train_timesteps=num_steps
    )
    return build_denoiser(model, Horizons(1, action_horizon, action_horizon), obs_size, action_dim)


def make_schedule(
    num_steps: int = 1000, beta_start: float = noise.BETA_START, beta_end: float = noise.BETA_END
) -> Schedule:
    """The linear schedule with the given range of β, not rescaled for short chains."""
    betas = noise.linear_betas(num_steps, beta_start, beta_end)
    β, ᾱ = torch.from_numpy(betas), torch.from_numpy(noise.alpha_bar_of(betas))
    return Schedule(num_steps, β, 1 - β, ᾱ, ᾱ.sqrt(), (1 - ᾱ).sqrt())


def predict(model: Callable[..., Tensor], inputs: dict[str, Tensor]) -> Tensor:
    """The predict_fn of a network from `build`: inputs as in `ddim_sample` -> ε̂ [B, H, A]."""
    return model(inputs["noisy_actions"], inputs["timestep"], inputs["observations"])


def ddim_step(
    x_t: Tensor,
    predicted_noise: Tensor,
    t: int,
    t_prev: int,
    schedule: Schedule,
    eta: float = 0.0,
    noise: Tensor | None = None,
) -> Tensor:
    """x_t [B, H, A] at timestep t -> the sample at t_prev; t_prev = -1 is ᾱ = 1.

    x̂0 is clipped to ±1. σ multiplies noise [B, H, A], drawn if η > 0 and none is given.
    """
    [row] = _table(schedule, [(t, t_prev)], eta)
    z = torch.randn_like(x_t) if noise is None and row.z else noise
    return steps.move(x_t, predicted_noise, steps.read(x_t, predicted_noise, row), row, z=z)


def _table(schedule: Schedule, grid: grids.Grid, eta: float) -> list[steps.Row]:
    """x̂0 is clipped to ±1, ε̂ is not derived again from it."""
    return ddim(
        noise.levels_of(schedule.alphas_cumprod.numpy()), grid, clip=1.0, rederive=False, eta=eta
    )


def ddim_sample(
    params: Any,
    predict_fn: Callable[[Any, dict[str, Tensor]], Tensor],
    observations: Tensor,
    initial_noise: Tensor,
    *,
    schedule: Schedule,
    ddim_steps: int = 50,
    eta: float = 0.0,
    generator: torch.Generator | None = None,
) -> Tensor:
    """initial_noise [B, H, A] -> actions [B, H, A], over the trailing grid.

    predict_fn(params, {"noisy_actions" [B, H, A], "timestep" [B], "observations" [B, O]}) -> ε̂.
    """
    rows = _table(schedule, grids.make_grid(schedule.num_steps, ddim_steps), eta)

    def denoise(x: Tensor, k: int) -> Tensor:
        t = torch.full((len(x),), rows[k].t, device=x.device)
        inputs = {"noisy_actions": x, "timestep": t, "observations": observations}
        return predict_fn(params, inputs)

    return steps.sample(denoise, steps.with_noise(initial_noise, rows, generator), rows)


def output_size(action_dim: int = 64, action_horizon: int = 8) -> int:
    """Numbers in a chunk: H·A."""
    return action_horizon * action_dim


def param_count(
    obs_size: int = 287,
    action_dim: int = 64,
    action_horizon: int = 8,
    hidden_size: int = 256,
    num_layers: int = 4,
) -> int:
    """Approximate number of weights, without biases, norms and the observation's second layer."""
    chunk = output_size(action_dim, action_horizon)
    enter = (chunk + 2 * hidden_size) * hidden_size
    blocks = num_layers * 2 * hidden_size * 4 * hidden_size
    return enter + blocks + hidden_size * chunk + obs_size * hidden_size


def recommended_defaults() -> dict[str, float]:
    """Default sizes, T, steps and η, by name."""
    return {
        "action_dim": 64,
        "action_horizon": 8,
        "hidden_size": 256,
        "num_layers": 4,
        "num_steps": 1000,
        "ddim_steps": 50,
        "eta": 0.0,
    }
