"""DDIM as pure functions (Song, Meng, Ermon, "Denoising Diffusion Implicit Models", 2010.02502).

A denoiser is any callable (x_t [B, T_p, D_a], k) -> its prediction [B, T_p, D_a], where k counts
the steps of the grid, so a test can pass an exact one and an engine can look its constants up.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from torch import Tensor

from diffpolicy.noise import alpha_bar_at


class Step(NamedTuple):
    """The coefficients of one step from level t to level s, as Python floats (float64)."""

    t: int
    signal_t: float  # √ᾱ_t
    noise_t: float  # √(1 - ᾱ_t)
    signal_s: float  # √ᾱ_s
    direction: float  # √(1 - ᾱ_s - σ²), what of ε̂ stays
    sigma: float  # σ, the noise injected anew


def sigma(alpha_bar_t: float, alpha_bar_s: float, eta: float) -> float:
    """σ = η √((1-ᾱ_s)/(1-ᾱ_t)) √(1 - ᾱ_t/ᾱ_s) (eq. 16). η = 0 is DDIM, η = 1 ancestral DDPM."""
    if eta == 0 or alpha_bar_t == alpha_bar_s:
        return 0.0
    spread = (1 - alpha_bar_s) / (1 - alpha_bar_t) * (1 - alpha_bar_t / alpha_bar_s)
    return eta * math.sqrt(spread)


def make_step(alpha_bar_t: float, alpha_bar_s: float, t: int = 0, eta: float = 0.0) -> Step:
    """The coefficients of eq. 12 between two levels."""
    σ = sigma(alpha_bar_t, alpha_bar_s, eta)
    return Step(
        t=t,
        signal_t=math.sqrt(alpha_bar_t),
        noise_t=math.sqrt(1 - alpha_bar_t),
        signal_s=math.sqrt(alpha_bar_s),
        direction=math.sqrt(max(1 - alpha_bar_s - σ**2, 0.0)),
        sigma=σ,
    )


def make_steps(table: np.ndarray, grid: Sequence[tuple[int, int]], eta: float = 0.0) -> list[Step]:
    """One Step for each pair (t, s) of the grid over the ᾱ table [T]."""
    return [make_step(alpha_bar_at(table, t), alpha_bar_at(table, s), t, eta) for t, s in grid]


def to_x0_and_epsilon(x: Tensor, output: Tensor, step: Step, prediction: str):
    """(x̂0, ε̂) from what the network predicts, at x_t = √ᾱ_t x0 + √(1-ᾱ_t) ε.

    v = √ᾱ ε - √(1-ᾱ) x0 (Salimans & Ho, arXiv 2202.00512, appendix D).
    """
    a, b = step.signal_t, step.noise_t
    if prediction == "epsilon":
        return (x - b * output) / a, output
    if prediction == "x0":
        return output, (x - a * output) / b
    return a * x - b * output, a * output + b * x


def ddim_step(
    x: Tensor,
    output: Tensor,
    step: Step,
    prediction: str = "epsilon",
    clip: float | None = None,
    z: Tensor | None = None,
) -> Tensor:
    """x_s = √ᾱ_s x̂0 + √(1 - ᾱ_s - σ²) ε̂ + σ z (eq. 12).

    Where x̂0 is clipped to ±clip, ε̂ is derived again from it, so that both describe one x_t.
    """
    x0, ε = to_x0_and_epsilon(x, output, step, prediction)
    if clip is not None:
        x0 = x0.clamp(-clip, clip)
        ε = (x - step.signal_t * x0) / step.noise_t
    x_s = step.signal_s * x0 + step.direction * ε
    if step.sigma == 0:
        return x_s
    if z is None:
        raise ValueError("a step with η > 0 needs the noise z")
    return x_s + step.sigma * z


def noise_count(steps: int, eta: float) -> int:
    """How many noise tensors a chain of K steps uses: 1 + K·(η > 0)."""
    return 1 + steps * (eta > 0)


def ddim_sample(
    denoise: Callable[[Tensor, int], Tensor],
    noise: Tensor,
    steps: Sequence[Step],
    prediction: str = "epsilon",
    clip: float | None = None,
) -> Tensor:
    """x_T = noise[0] down the whole grid; noise [1 + K·(η>0), B, T_p, D_a] -> x_0 [B, T_p, D_a]."""
    x = noise[0]
    for k, step in enumerate(steps):
        z = noise[k + 1] if step.sigma > 0 else None
        x = ddim_step(x, denoise(x, k), step, prediction, clip, z)
    return x


def add_noise(x0: Tensor, ε: Tensor, alpha_bar: Tensor) -> Tensor:
    """x_t = √ᾱ x0 + √(1-ᾱ) ε (eq. 4); ᾱ broadcasts against x0."""
    return alpha_bar.sqrt() * x0 + (1 - alpha_bar).sqrt() * ε


def training_target(x0: Tensor, ε: Tensor, alpha_bar: Tensor, prediction: str) -> Tensor:
    """What the network is asked for: ε, x0 or v."""
    if prediction == "epsilon":
        return ε
    if prediction == "x0":
        return x0
    return alpha_bar.sqrt() * ε - (1 - alpha_bar).sqrt() * x0
