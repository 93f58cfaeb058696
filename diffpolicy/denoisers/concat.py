"""The MLP of Edifice's DDIM: chunk, timestep and observation concatenated, then residual blocks.

https://github.com/blasphemetheus/edifice, `Edifice.Generative.DDIM`; the shapes of its parameters
are kept. The first layer is linear, so its parts for observation and time are added as a shift,
the FiLM of this denoiser.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffpolicy.config import ModelConfig
from diffpolicy.denoisers.base import Denoiser, check_even


class Block(nn.Module):
    """h + W₂ SiLU(W₁ LayerNorm(h)), four times as wide inside."""

    def __init__(self, hidden: int):
        super().__init__()
        self.norm = nn.LayerNorm(hidden)
        self.up = nn.Linear(hidden, 4 * hidden)
        self.down = nn.Linear(4 * hidden, hidden)

    def forward(self, h: Tensor) -> Tensor:
        """[B, hidden] -> [B, hidden]."""
        return h + self.down(F.silu(self.up(self.norm(h))))


class ConcatDenoiser(Denoiser):
    """FiLM layout [F]: shift of the first layer's output (hidden)."""

    rates: Tensor

    def __init__(self, model: ModelConfig, condition: int, ticks: int, action_dim: int):
        super().__init__()
        hidden, chunk = model.hidden, ticks * action_dim
        check_even("--hidden", hidden)
        self.parts = [chunk, hidden, hidden]
        self.timesteps = model.train_timesteps
        self.observation = nn.Linear(condition, hidden)
        self.enter = nn.Linear(sum(self.parts), hidden)
        self.blocks = nn.Sequential(*(Block(hidden) for _ in range(model.blocks)))
        self.leave = nn.Linear(hidden, chunk)
        rates = 10_000.0 ** torch.linspace(0, 1, hidden // 2, device="cpu")
        self.register_buffer("rates", rates, persistent=False)

    def observation_film(self, observation: Tensor) -> Tensor:
        """[B, C] -> [B, F]."""
        *_, weight = self.enter.weight.split(self.parts, dim=1)
        return F.linear(self.observation(observation.flatten(1)), weight)

    def time_film(self, t: Tensor) -> Tensor:
        """[K] -> [K, F]."""
        _, weight, _ = self.enter.weight.split(self.parts, dim=1)
        angles = t.to(self.rates.dtype)[:, None] / self.timesteps * self.rates
        return F.linear(torch.cat([angles.sin(), angles.cos()], dim=-1), weight)

    def denoise(self, x: Tensor, film: Tensor) -> Tensor:
        """[B, T_p, D_a], [B, F] -> [B, T_p, D_a]."""
        weight, *_ = self.enter.weight.split(self.parts, dim=1)
        h = F.silu(F.linear(x.flatten(1), weight, self.enter.bias) + film)
        return self.leave(self.blocks(h)).view_as(x)
