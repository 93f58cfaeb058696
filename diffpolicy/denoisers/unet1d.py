"""The 1D UNet over time with FiLM, in the shape of Diffusion Policy (Chi et al., arXiv 2303.04137).

Sizes by config: channels (256, 512, 1024) with condition 256 is the paper's 65 M network,
(64, 128, 256) its small sibling. One linear map makes the FiLM of all blocks at once.
"""

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffpolicy.config import ModelConfig
from diffpolicy.denoisers.base import Denoiser, Sinusoidal
from diffpolicy.denoisers.convolution import Convolution, Growth, as_image, as_rows
from diffpolicy.denoisers.mish import Mish
from diffpolicy.errors import DiffpolicyError


class ConvBlock(nn.Sequential):
    """Convolution over time, GroupNorm, Mish."""

    def __init__(self, inputs: int, outputs: int, kernel: int, groups: int):
        convolution = Convolution(inputs, outputs, kernel, padding=kernel // 2)
        super().__init__(convolution, nn.GroupNorm(groups, outputs), Mish())


class ResidualBlock(nn.Module):
    """Two ConvBlocks with FiLM between them; x [B, C_in, 1, T] -> [B, C_out, 1, T]."""

    def __init__(self, inputs: int, outputs: int, kernel: int, groups: int):
        super().__init__()
        self.outputs = outputs
        self.first = ConvBlock(inputs, outputs, kernel, groups)
        self.second = ConvBlock(outputs, outputs, kernel, groups)
        self.skip = Convolution(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor, film: Tensor) -> Tensor:
        """film [B, 2 · C_out]: scale and shift."""
        scale, shift = film[..., None, None].chunk(2, dim=1)
        return self.second(scale * self.first(x) + shift) + self.skip(x)


def _through(level: Any, h: Tensor, films: Iterator[Tensor]) -> Tensor:
    for block in level:
        h = block(h, next(films))
    return h


class UNet1D(Denoiser):
    """Two residual blocks a level; the time axis halves between levels on the way down."""

    def __init__(self, model: ModelConfig, condition: int, ticks: int, action_dim: int):
        super().__init__()
        channels, width = model.unet_channels, model.condition
        factor = 2 ** (len(channels) - 1)
        if ticks % factor:
            raise DiffpolicyError(
                f"a UNet of {len(channels)} levels needs a prediction horizon divisible by "
                f"{factor}; got {ticks}"
            )

        if model.unet_kernel % 2 == 0 or any(c % model.unet_groups for c in channels):
            raise DiffpolicyError(
                "a UNet needs an odd kernel, and channels that its groups divide; got kernel "
                f"{model.unet_kernel}, channels {channels}, groups {model.unet_groups}"
            )

        def block(inputs: int, outputs: int) -> ResidualBlock:
            return ResidualBlock(inputs, outputs, model.unet_kernel, model.unet_groups)

        def level(inputs: int, outputs: int) -> nn.ModuleList:
            return nn.ModuleList([block(inputs, outputs), block(outputs, outputs)])

        enter = [action_dim, *channels[:-1]]
        self.down = nn.ModuleList(level(a, b) for a, b in zip(enter, channels, strict=True))
        self.shrink = nn.ModuleList(Convolution(c, c, 3, 2, 1) for c in channels[:-1])
        self.middle = level(channels[-1], channels[-1])
        falling = list(zip(channels[:0:-1], channels[-2::-1], strict=True))
        self.up = nn.ModuleList(level(2 * a, b) for a, b in falling)
        self.grow = nn.ModuleList(Growth(b, b) for _, b in falling)
        first = channels[0]
        self.leave = nn.Sequential(
            ConvBlock(first, first, model.unet_kernel, model.unet_groups),
            Convolution(first, action_dim, 1),
        )
        blocks = [m for m in self.modules() if isinstance(m, ResidualBlock)]
        self.film_sizes = [2 * b.outputs for b in blocks]
        self.time = nn.Sequential(
            Sinusoidal(width), nn.Linear(width, 4 * width), Mish(), nn.Linear(4 * width, width)
        )
        film = sum(self.film_sizes)
        self.film_of_observation = nn.Linear(condition, film)
        self.film_of_time = nn.Linear(width, film, bias=False)

    def observation_film(self, observation: Tensor) -> Tensor:
        """[B, C] -> [B, F]."""
        return self.film_of_observation(F.mish(observation.flatten(1)))

    def time_film(self, t: Tensor) -> Tensor:
        """[K] -> [K, F]."""
        return self.film_of_time(F.mish(self.time(t)))

    def denoise(self, x: Tensor, film: Tensor) -> Tensor:
        """[B, T_p, D_a], [B, F] -> [B, T_p, D_a]."""
        films = iter(film.split(self.film_sizes, dim=-1))
        h, skips = as_image(x), []
        for i, level in enumerate(self.down):
            h = _through(level, h, films)
            skips.append(h)
            if i < len(self.shrink):
                h = self.shrink[i](h)
        h = _through(self.middle, h, films)
        for level, grow in zip(self.up, self.grow, strict=True):
            h = grow(_through(level, torch.cat([h, skips.pop()], dim=1), films))
        return as_rows(self.leave(h))
