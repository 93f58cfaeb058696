"""DDIM as a table (Song, Meng, Ermon, "Denoising Diffusion Implicit Models", arXiv 2010.02502)."""

import math

import numpy as np

from diffpolicy.sampling.grids import Grid
from diffpolicy.sampling.noise import alpha_bar_at
from diffpolicy.sampling.parameterisation import epsilon_coefficients, x0_coefficients
from diffpolicy.sampling.steps import Row

NO_SIGNAL = (
    "at √ᾱ = 0 (zero terminal SNR) ε says nothing of x0: predict x0 or v, or clip the predicted x0"
)


def sigma(alpha_bar_t: float, alpha_bar_s: float, eta: float) -> float:
    """σ = η √((1-ᾱ_s)/(1-ᾱ_t)) √(1 - ᾱ_t/ᾱ_s) (eq. 16). η = 0 is DDIM, η = 1 ancestral DDPM."""
    if eta == 0 or alpha_bar_t == alpha_bar_s:
        return 0.0
    spread = (1 - alpha_bar_s) / (1 - alpha_bar_t) * (1 - alpha_bar_t / alpha_bar_s)
    return eta * math.sqrt(spread)


def ddim_row(
    alpha_bar_t: float,
    alpha_bar_s: float,
    t: int = 0,
    *,
    prediction: str = "epsilon",
    clip: float | None = None,
    rederive: bool = False,
    eta: float = 0.0,
    noise_scale: float = 1.0,
) -> Row:
    """x_s = √ᾱ_s x̂0 + √(1 - ᾱ_s - σ²) ε̂ + σ z (eq. 12), from level ᾱ_t to ᾱ_s.

    clip: bound of x̂0, None for no. ε̂ is read from the network's output, or under `rederive` from
    the bounded x̂0: ε̂ = (x_t - √ᾱ_t x̂0) / √(1-ᾱ_t). noise_scale multiplies z alone (arXiv
    2510.21991). Raises ValueError if ᾱ_t = 0 leaves x̂0 undefined.
    """
    σ = sigma(alpha_bar_t, alpha_bar_s, eta)
    a, b = math.sqrt(alpha_bar_t), math.sqrt(1 - alpha_bar_t)
    signal, direction = math.sqrt(alpha_bar_s), math.sqrt(max(1 - alpha_bar_s - σ**2, 0.0))
    if a == 0 and prediction == "epsilon" and clip is None:
        raise ValueError(NO_SIGNAL)
    reading = *x0_coefficients(prediction, a, b), math.inf if clip is None else clip
    if direction == 0:
        x, y, x0 = 0.0, 0.0, signal
    elif rederive:
        x, y, x0 = direction / b, 0.0, signal - direction * a / b
    else:
        x, y = (direction * c for c in epsilon_coefficients(prediction, a, b))
        x0 = signal
    return Row(t, *reading, x=x, y=y, x0=x0, z=noise_scale * σ)


def ddim(table: np.ndarray, grid: Grid, **options) -> list[Row]:
    """One row for each pair (t, s) of the grid over the ᾱ table [T]; `options` as in `ddim_row`."""
    levels = ((alpha_bar_at(table, t), alpha_bar_at(table, s), t) for t, s in grid)
    return [ddim_row(*level, **options) for level in levels]
