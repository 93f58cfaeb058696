"""DDIM as a table (Song, Meng, Ermon, "Denoising Diffusion Implicit Models", arXiv 2010.02502).

On the levels of flow matching the same row with η = 0 is an Euler step: (1-w) x̂0 + w ε̂.
"""

import math
from collections.abc import Sequence

from diffpolicy.sampling.grids import Grid
from diffpolicy.sampling.noise import Level, level_at
from diffpolicy.sampling.parameterisation import epsilon_coefficients, x0_coefficients
from diffpolicy.sampling.steps import Row

NO_SIGNAL = (
    "at √ᾱ = 0 (zero terminal SNR) ε says nothing of x0: predict x0 or v, or clip the predicted x0"
)


def sigma(level_t: Level, level_s: Level, eta: float) -> float:
    """σ = η b_s/b_t √(b_t² - (a_t b_s / a_s)²), the spread of x_s given x_t and x0.

    With ᾱ it is η √((1-ᾱ_s)/(1-ᾱ_t)) √(1 - ᾱ_t/ᾱ_s) (eq. 16). η = 0 is DDIM, η = 1 ancestral DDPM.
    """
    if eta == 0 or level_t == level_s:
        return 0.0
    (a, b), (a_s, b_s) = level_t, level_s
    return eta * b_s / b * math.sqrt(max(b**2 - (a * b_s / a_s) ** 2, 0.0))


def ddim_row(
    level_t: Level,
    level_s: Level,
    t: int = 0,
    *,
    prediction: str = "epsilon",
    clip: float | None = None,
    rederive: bool = False,
    eta: float = 0.0,
    noise_scale: float = 1.0,
) -> Row:
    """x_s = a_s x̂0 + √(b_s² - σ²) ε̂ + σ z (eq. 12), from one level to another.

    clip: bound of x̂0, None for no. ε̂ is read from the network's output, or under `rederive` from
    the bounded x̂0: ε̂ = (x_t - a_t x̂0) / b_t. noise_scale multiplies z alone (arXiv 2510.21991).
    Raises ValueError if a_t = 0 leaves x̂0 undefined.
    """
    σ = sigma(level_t, level_s, eta)
    (a, b), signal = level_t, level_s.signal
    direction = math.sqrt(max(level_s.noise**2 - σ**2, 0.0))
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


def ddim(levels: Sequence[Level], grid: Grid, **options) -> list[Row]:
    """One row for each pair (t, s) of the grid; `options` as in `ddim_row`."""
    return [ddim_row(level_at(levels, t), level_at(levels, s), t, **options) for t, s in grid]
