"""Contract of a denoiser, and the embedding of its timestep. See the package for the shapes."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from diffpolicy.denoisers.encoders import Encoder
from diffpolicy.errors import DiffpolicyError


def check_even(option: str, width: int) -> None:
    """Raise DiffpolicyError unless sines and cosines can share the width."""
    if width < 4 or width % 2:
        raise DiffpolicyError(f"{option} must be even and at least 4; got {width}")


class Sinusoidal(nn.Module):
    """Timestep [K] -> [K, width] (Vaswani et al., arXiv 1706.03762, sec. 3.5)."""

    rates: Tensor

    def __init__(self, width: int):
        super().__init__()
        check_even("--condition", width)
        half = width // 2
        numbers = torch.arange(half, device="cpu")  # on "meta", arange loads torch's compiler
        rates = torch.exp(numbers * (-math.log(10000) / (half - 1)))
        self.register_buffer("rates", rates, persistent=False)

    def forward(self, t: Tensor) -> Tensor:
        """sin and cos of t · rate."""
        angles = t.to(self.rates.dtype)[:, None] * self.rates
        return torch.cat([angles.sin(), angles.cos()], dim=-1)


class Denoiser(nn.Module):
    """Contract between networks, samplers and the training loop.

    Built from a configuration, C (condition), T_p (ticks) and D_a (action_dim). encoder: of the
    observation by key; `build_network` sets it.
    """

    condition: int
    encoder: Encoder

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """Type of the weights."""
        return next(self.parameters()).dtype

    @property
    def film_size(self) -> int:
        """F, the width of `observation_film` and `time_film`."""
        with torch.no_grad():
            return self.time_film(torch.zeros(1, device=self.device, dtype=self.dtype)).shape[-1]

    def observation_film(self, observation: Tensor) -> Tensor:
        """FiLM of the encoded observation: [B, C] -> [B, F]."""
        raise NotImplementedError

    def time_film(self, t: Tensor) -> Tensor:
        """FiLM of the timesteps: [K] -> [K, F]."""
        raise NotImplementedError

    def denoise(self, x: Tensor, film: Tensor) -> Tensor:
        """Prediction for the noisy chunk x: [B, T_p, D_a], [B, F] -> [B, T_p, D_a]."""
        raise NotImplementedError

    def forward(self, x: Tensor, t: Tensor, observation: Tensor | Mapping[str, Tensor]) -> Tensor:
        """x [B, T_p, D_a], t [B], observation {key: [B, T_o, …]} or encoded -> [B, T_p, D_a]."""
        encoded = self.encoder(observation) if isinstance(observation, Mapping) else observation
        return self.denoise(x, self.observation_film(encoded) + self.time_film(t))
