"""Denoisers ε_θ(x_t, t, observation history), split where a control step can save work.

Every denoiser has three parts, so that what does not depend on the sample is computed once:

    observation_film(obs [B, T_o, D_o]) -> [B, F]     once for each replan
    time_film(t [K]) -> [K, F]                         once for each step budget
    denoise(x [B, T_p, D_a], film [B, F]) -> [B, T_p, D_a]

with ε_θ(x, t, obs) = denoise(x, observation_film(obs) + time_film(t)). FiLM (Perez et al., arXiv
1709.07871) scales and shifts features; both conditions enter it linearly, so the sum is exact.
"""

import math

import torch
from torch import Tensor, nn

from diffpolicy.config import ModelConfig
from diffpolicy.windows import Horizons


class Sinusoidal(nn.Module):
    """Timestep [K] -> [K, width] (Vaswani et al., arXiv 1706.03762, sec. 3.5)."""

    rates: Tensor

    def __init__(self, width: int):
        super().__init__()
        half = width // 2
        rates = torch.exp(torch.arange(half) * (-math.log(10000) / max(half - 1, 1)))
        self.register_buffer("rates", rates, persistent=False)

    def forward(self, t: Tensor) -> Tensor:
        angles = t.to(torch.float32)[:, None] * self.rates
        return torch.cat([angles.sin(), angles.cos()], dim=-1)


class Denoiser(nn.Module):
    """The contract that the samplers and the training loop know (see the module's docstring)."""

    def observation_film(self, observation: Tensor) -> Tensor:
        raise NotImplementedError

    def time_film(self, t: Tensor) -> Tensor:
        raise NotImplementedError

    def denoise(self, x: Tensor, film: Tensor) -> Tensor:
        raise NotImplementedError

    def forward(self, x: Tensor, t: Tensor, observation: Tensor) -> Tensor:
        """x [B, T_p, D_a], t [B], observation [B, T_o, D_o] -> [B, T_p, D_a]."""
        return self.denoise(x, self.observation_film(observation) + self.time_film(t))


def build(model: ModelConfig, horizons: Horizons, observation_dim: int, action_dim: int):
    """The denoiser that a configuration names, with fresh weights."""
    if model.denoiser == "mlp":
        from diffpolicy.denoisers.mlp import MLPDenoiser

        return MLPDenoiser(model, horizons, observation_dim, action_dim)
    from diffpolicy.denoisers.unet1d import UNet1D

    return UNet1D(model, horizons, observation_dim, action_dim)
