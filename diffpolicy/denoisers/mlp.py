"""A residual MLP over the flattened action chunk, conditioned by FiLM."""

import torch.nn.functional as F
from torch import Tensor, nn

from diffpolicy.config import ModelConfig
from diffpolicy.denoisers.base import Denoiser, Sinusoidal


class Block(nn.Module):
    """h + W₂ SiLU(W₁ (LayerNorm(h) · (1 + scale) + shift))."""

    def __init__(self, hidden: int):
        super().__init__()
        self.norm = nn.LayerNorm(hidden, elementwise_affine=False)
        self.up = nn.Linear(hidden, 2 * hidden)
        self.down = nn.Linear(2 * hidden, hidden)

    def forward(self, h: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        """[B, hidden] each -> [B, hidden]."""
        return h + self.down(F.silu(self.up(self.norm(h) * (1 + scale) + shift)))


class MLPDenoiser(Denoiser):
    """FiLM layout [F]: shift of the input (hidden), scale and shift of each block (2 · hidden),
    gain of a skip from the noisy chunk to the output (1).

    The skip matters if a chunk has more numbers than `hidden`: at high noise ε is nearly x_t
    itself, which cannot pass through a narrower stream.
    """

    def __init__(self, model: ModelConfig, condition: int, ticks: int, action_dim: int):
        super().__init__()
        hidden, width = model.hidden, model.condition
        self.film_sizes = [hidden] * (1 + 2 * model.blocks) + [1]
        film = sum(self.film_sizes)
        chunk = ticks * action_dim
        self.observation = nn.Sequential(
            nn.Flatten(),
            nn.Linear(condition, hidden),
            nn.SiLU(),
            nn.Linear(hidden, width),
            nn.SiLU(),
        )
        self.time = nn.Sequential(Sinusoidal(width), nn.Linear(width, width), nn.SiLU())
        self.film_of_observation = nn.Linear(width, film)
        self.film_of_time = nn.Linear(width, film, bias=False)
        self.enter = nn.Linear(chunk, hidden)
        self.blocks = nn.ModuleList(Block(hidden) for _ in range(model.blocks))
        self.leave = nn.Sequential(nn.LayerNorm(hidden), nn.Linear(hidden, chunk))

    def observation_film(self, observation: Tensor) -> Tensor:
        """[B, C] -> [B, F]."""
        return self.film_of_observation(self.observation(observation))

    def time_film(self, t: Tensor) -> Tensor:
        """[K] -> [K, F]."""
        return self.film_of_time(self.time(t))

    def denoise(self, x: Tensor, film: Tensor) -> Tensor:
        """[B, T_p, D_a], [B, F] -> [B, T_p, D_a]."""
        added, *modulation, gain = film.split(self.film_sizes, dim=-1)
        flat = x.flatten(1)
        h = self.enter(flat) + added
        for block, scale, shift in zip(
            self.blocks, modulation[0::2], modulation[1::2], strict=True
        ):
            h = block(h, scale, shift)
        return (self.leave(h) + gain * flat).view_as(x)
