"""The noise levels: β schedules, the ᾱ table, and timestep grids as pairs (t, s).

ᾱ_t is the cumulative product of 1 - β (Ho et al., arXiv 2006.11239, eq. 4; Song et al., arXiv
2010.02502 call it α_t). Tables are float64 and are cast last: on the squaredcos schedule 1/√ᾱ
reaches 2029, which float32 does not forgive.
"""

import math

import numpy as np

from diffpolicy.errors import DiffpolicyError

CLEAN = -1  # the level below timestep 0, where ᾱ = 1
MAX_BETA = 0.999


def linear_betas(timesteps: int) -> np.ndarray:
    """β from 1e-4 to 0.02 over 1000 steps (arXiv 2006.11239, sec. 4), [T] float64.

    Shorter chains are rescaled by 1000/T: without it √ᾱ at T = 100 is 0.6, and sampling would
    start from noise that the network never saw.
    """
    scale = 1000 / timesteps
    return np.minimum(np.linspace(1e-4 * scale, 0.02 * scale, timesteps), MAX_BETA)


def squaredcos_betas(timesteps: int) -> np.ndarray:
    """ᾱ(u) ∝ cos²((u + 0.008) / 1.008 · π/2) (Nichol & Dhariwal, arXiv 2102.09672, eq. 17), [T]."""

    def alpha_bar(u: np.ndarray) -> np.ndarray:
        return np.cos((u + 0.008) / 1.008 * math.pi / 2) ** 2

    u = np.arange(timesteps + 1, dtype=np.float64) / timesteps
    return np.minimum(1 - alpha_bar(u[1:]) / alpha_bar(u[:-1]), MAX_BETA)


SCHEDULES = {"linear": linear_betas, "squaredcos": squaredcos_betas}


def alpha_bar_table(schedule: str, timesteps: int) -> np.ndarray:
    """ᾱ_0 … ᾱ_{T-1}, [T] float64, falling."""
    return np.cumprod(1 - SCHEDULES[schedule](timesteps))


def alpha_bar_at(table: np.ndarray, t: int) -> float:
    """ᾱ_t, with ᾱ = 1 at the level CLEAN below timestep 0."""
    return 1.0 if t == CLEAN else float(table[t])


def trailing_grid(timesteps: int, ddim_steps: int) -> list[tuple[int, int]]:
    """K pairs (t, s), from t = T-1 down to s = CLEAN, evenly spaced.

    Counting down from T, rather than up from 0, makes every budget start at the noise that the
    network was trained on (Lin et al., arXiv 2305.08891, table 2, "trailing").
    """
    if not 1 <= ddim_steps <= timesteps:
        raise DiffpolicyError(
            f"ddim_steps must lie between 1 and the {timesteps} timesteps that the policy was "
            f"trained with; got {ddim_steps}"
        )
    times = [round(timesteps - k * timesteps / ddim_steps) - 1 for k in range(ddim_steps)]
    return list(zip(times, [*times[1:], CLEAN], strict=True))
