"""What every denoiser is: the contract of three parts, and the embedding of its timestep."""

import math

import torch
from torch import Tensor, nn

from diffpolicy.errors import DiffpolicyError


def check_even(option: str, width: int) -> None:
    """DiffpolicyError unless sines and cosines can share the width."""
    if width < 4 or width % 2:
        raise DiffpolicyError(f"{option} must be even and at least 4; got {width}")


class Sinusoidal(nn.Module):
    """Timestep [K] -> [K, width] (Vaswani et al., arXiv 1706.03762, sec. 3.5)."""

    rates: Tensor

    def __init__(self, width: int):
        super().__init__()
        check_even("--condition", width)
        half = width // 2
        rates = torch.exp(torch.arange(half) * (-math.log(10000) / (half - 1)))
        self.register_buffer("rates", rates, persistent=False)

    def forward(self, t: Tensor) -> Tensor:
        angles = t.to(self.rates.dtype)[:, None] * self.rates
        return torch.cat([angles.sin(), angles.cos()], dim=-1)


class Denoiser(nn.Module):
    """The contract that the samplers and the training loop know (see the package's docstring)."""

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        return next(self.parameters()).dtype

    @property
    def film_size(self) -> int:
        """F, what `observation_film` and `time_film` give."""
        with torch.no_grad():
            return self.time_film(torch.zeros(1, device=self.device, dtype=self.dtype)).shape[-1]

    def observation_film(self, observation: Tensor) -> Tensor:
        raise NotImplementedError

    def time_film(self, t: Tensor) -> Tensor:
        raise NotImplementedError

    def denoise(self, x: Tensor, film: Tensor) -> Tensor:
        raise NotImplementedError

    def forward(self, x: Tensor, t: Tensor, observation: Tensor) -> Tensor:
        """x [B, T_p, D_a], t [B], observation [B, T_o, D_o] -> [B, T_p, D_a]."""
        return self.denoise(x, self.observation_film(observation) + self.time_film(t))
