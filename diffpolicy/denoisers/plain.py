"""A plain MLP: chunk, timestep and observation concatenated, hidden layers, nothing else.

The first layer is linear, so its parts for observation and time are added as a shift, the FiLM of
this denoiser.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from diffpolicy.config import ModelConfig
from diffpolicy.denoisers.base import Denoiser, Sinusoidal


class PlainDenoiser(Denoiser):
    """FiLM layout [F]: shift of the first layer's output (hidden)."""

    def __init__(self, model: ModelConfig, condition: int, ticks: int, action_dim: int):
        super().__init__()
        hidden, chunk = model.hidden, ticks * action_dim
        self.time = Sinusoidal(model.condition)
        self.enter = nn.Linear(chunk, hidden)
        self.film_of_observation = nn.Linear(condition, hidden, bias=False)
        self.film_of_time = nn.Linear(model.condition, hidden, bias=False)
        self.layers = nn.ModuleList(nn.Linear(hidden, hidden) for _ in range(model.blocks - 1))
        self.leave = nn.Linear(hidden, chunk)

    def observation_film(self, observation: Tensor) -> Tensor:
        """[B, C] -> [B, F]."""
        return self.film_of_observation(observation.flatten(1))

    def time_film(self, t: Tensor) -> Tensor:
        """[K] -> [K, F]."""
        return self.film_of_time(self.time(t))

    def denoise(self, x: Tensor, film: Tensor) -> Tensor:
        """[B, T_p, D_a], [B, F] -> [B, T_p, D_a]."""
        h = F.silu(self.enter(x.flatten(1)) + film)
        for layer in self.layers:
            h = F.silu(layer(h))
        return self.leave(h).view_as(x)
