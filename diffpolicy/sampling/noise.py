"""The noise levels x = a x0 + b ε: β schedules with their ᾱ tables, and flow matching.

With a β schedule a = √ᾱ and b = √(1-ᾱ). ᾱ_t is the cumulative product of 1 - β (Ho et al., arXiv
2006.11239, eq. 4; Song et al., arXiv 2010.02502 call it α_t). Tables are float64 and are cast last:
on the squaredcos schedule 1/√ᾱ reaches 2029, which magnifies the rounding errors of float32.
"""

import math
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import numpy as np

CLEAN = -1  # the level below timestep 0, without noise
MAX_BETA = 0.999
BETA_START, BETA_END = 1e-4, 0.02  # over 1000 steps (arXiv 2006.11239, sec. 4)


def linear_betas(timesteps: int, start: float = BETA_START, end: float = BETA_END) -> np.ndarray:
    """β evenly spaced (arXiv 2006.11239, sec. 4), [T] float64."""
    return np.linspace(start, end, timesteps)


def scaled_linear_betas(
    timesteps: int, start: float = BETA_START, end: float = BETA_END
) -> np.ndarray:
    """√β evenly spaced (latent diffusion, arXiv 2112.10752), [T] float64."""
    return np.linspace(math.sqrt(start), math.sqrt(end), timesteps) ** 2


def squaredcos_betas(timesteps: int, *_range: float) -> np.ndarray:
    """ᾱ(u) ∝ cos²((u + 0.008) / 1.008 · π/2) (Nichol & Dhariwal, arXiv 2102.09672, eq. 17), [T].

    A range of β has no effect.
    """

    def alpha_bar(u: np.ndarray) -> np.ndarray:
        return np.cos((u + 0.008) / 1.008 * math.pi / 2) ** 2

    u = np.arange(timesteps + 1, dtype=np.float64) / timesteps
    return np.minimum(1 - alpha_bar(u[1:]) / alpha_bar(u[:-1]), MAX_BETA)


BETAS = {
    "linear": linear_betas,
    "scaled_linear": scaled_linear_betas,
    "squaredcos": squaredcos_betas,
}


def alpha_bar_table(schedule: str, timesteps: int) -> np.ndarray:
    """ᾱ_0 … ᾱ_{T-1}, [T] float64, falling to (nearly) pure noise for every T.

    The range of β is meant for 1000 steps, so it is rescaled by 1000/T. Otherwise √ᾱ of the linear
    schedule at T = 100 ends at 0.6, and sampling would start from noise unseen in training.
    """
    scale = 1000 / timesteps
    betas = BETAS[schedule](timesteps, scale * BETA_START, scale * BETA_END)
    return alpha_bar_of(np.minimum(betas, MAX_BETA))


def alpha_bar_of(betas: np.ndarray) -> np.ndarray:
    """ᾱ_t = Π (1 - β), [T] → [T] float64."""
    return np.cumprod(1 - np.asarray(betas, np.float64))


def betas_of(table: np.ndarray) -> np.ndarray:
    """The inverse of `alpha_bar_of`, [T] → [T]."""
    return 1 - table / np.array([1.0, *table[:-1]])


def zero_terminal_snr(table: np.ndarray) -> np.ndarray:
    """√ᾱ shifted and scaled to end at 0 and begin where it did (arXiv 2305.08891, alg. 1).

    At √ᾱ = 0, ε does not determine x0: predict x0 or v.
    """
    root = np.sqrt(table)
    return ((root - root[-1]) * root[0] / (root[0] - root[-1])) ** 2


class Level(NamedTuple):
    """a and b of x = a x0 + b ε at one timestep."""

    signal: float
    noise: float

    @property
    def sigma(self) -> float:
        """σ = b/a, the noise for a signal of 1; infinite at pure noise."""
        return self.noise / self.signal if self.signal else math.inf

    @property
    def log_snr(self) -> float:
        """λ = ln(a/b), infinite at the level CLEAN."""
        if not self.noise:
            return math.inf
        return math.log(self.signal / self.noise) if self.signal else -math.inf


def level_of(alpha_bar: float) -> Level:
    """√ᾱ and √(1-ᾱ)."""
    return Level(math.sqrt(alpha_bar), math.sqrt(1 - alpha_bar))


def levels_of(alpha_bar: np.ndarray) -> list[Level]:
    """The level of each ᾱ [T]."""
    return [level_of(float(ᾱ)) for ᾱ in alpha_bar]


def flow_levels(timesteps: int) -> list[Level]:
    """x = (1-u) x0 + u ε with u = (t+1)/T: rectified flow (arXiv 2209.03003), u = 1 pure noise."""
    return [Level(1 - u, u) for u in (np.arange(timesteps) + 1) / timesteps]


def beta_levels(schedule: str, timesteps: int) -> list[Level]:
    """The levels of a β schedule, rescaled to T timesteps."""
    return levels_of(alpha_bar_table(schedule, timesteps))


SCHEDULES = {**{name: partial(beta_levels, name) for name in BETAS}, "flow": flow_levels}


def make_levels(schedule: str, timesteps: int) -> list[Level]:
    """The levels of timesteps 0 … T - 1."""
    return SCHEDULES[schedule](timesteps)


def level_at(levels: Sequence[Level], t: int) -> Level:
    """The level of a timestep, or of CLEAN."""
    return Level(1.0, 0.0) if t == CLEAN else levels[t]
