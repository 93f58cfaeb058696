"""Objectives: the inputs x_t and t of a training step, and the target of the network.

`sampling/parameterisation.py` holds how the sampler reads the network's output. To add an
objective, write its `pair` here and its reading there.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from diffpolicy.config import ModelConfig
from diffpolicy.sampling.noise import make_levels
from diffpolicy.sampling.parameterisation import add_noise, target


@dataclass(frozen=True)
class Denoising:
    """Predict ε, x0, v or velocity of x_t at a random timestep; signal and noise [T] float32."""

    prediction: str
    signal: Tensor
    noise: Tensor

    def pair(self, x0: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """x_t [B, T_p, D_a], t [B] and the target [B, T_p, D_a] for the chunks x0."""
        shape, device = x0.shape, x0.device
        t = torch.randint(len(self.signal), shape[:1], generator=generator, device=device)
        ε = torch.randn(shape, generator=generator, device=device)
        level = self.signal[t][:, None, None], self.noise[t][:, None, None]
        return add_noise(x0, ε, *level), t, target(x0, ε, *level, self.prediction)


@dataclass(frozen=True)
class Regression:
    """Predict x0 from the observation alone: x_t is zero and t the last timestep."""

    timesteps: int

    def pair(self, x0: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Zeros [B, T_p, D_a], t = T - 1 [B] and the target x0."""
        last = torch.full(x0.shape[:1], self.timesteps - 1, device=x0.device)
        return torch.zeros_like(x0), last, x0


def make_objective(model: ModelConfig, device: torch.device) -> Denoising | Regression:
    """The objective that a configuration names."""
    if model.regression:
        return Regression(model.train_timesteps)
    levels = torch.tensor(make_levels(model.schedule, model.train_timesteps), device=device)
    return Denoising(model.prediction, *levels.float().T)
