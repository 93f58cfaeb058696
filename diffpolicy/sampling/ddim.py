"""DDIM as pure functions (Song, Meng, Ermon, "Denoising Diffusion Implicit Models", 2010.02502).

A denoiser is any callable (x_t [B, T_p, D_a], k) -> its prediction [B, T_p, D_a], where k counts
the steps of the grid, so a test can pass an exact one and an engine can look its constants up.
"""

import math
from collections.abc import Callable, Container, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from diffpolicy.sampling.noise import alpha_bar_at

NO_SIGNAL = (
    "at √ᾱ = 0 (zero terminal SNR) ε says nothing of x0: predict x0 or v, or clip the predicted x0"
)
Denoise = Callable[[Tensor, int], Tensor]


class Step(NamedTuple):
    """The coefficients of one step from level t to level s, as Python floats (float64)."""

    t: int
    signal_t: float  # √ᾱ_t
    noise_t: float  # √(1 - ᾱ_t)
    signal_s: float  # √ᾱ_s
    direction: float  # √(1 - ᾱ_s - σ²), what of ε̂ stays
    injected: float  # what z is multiplied by: σ, times the noise scale


class Reading(NamedTuple):
    """How a network's output is understood.

    prediction: "epsilon", "x0" or "v". clip: x̂0 is kept in ±clip. threshold: (ratio, maximum) of
    dynamic thresholding, which takes the place of clipping. rederive: ε̂ is derived again from
    the x̂0 that was kept in range, so that both describe one x_t.
    """

    prediction: str = "epsilon"
    clip: float | None = None
    threshold: tuple[float, float] | None = None
    rederive: bool = True


EPSILON = Reading()  # ε as it is


def sigma(alpha_bar_t: float, alpha_bar_s: float, eta: float) -> float:
    """σ = η √((1-ᾱ_s)/(1-ᾱ_t)) √(1 - ᾱ_t/ᾱ_s) (eq. 16). η = 0 is DDIM, η = 1 ancestral DDPM."""
    if eta == 0 or alpha_bar_t == alpha_bar_s:
        return 0.0
    spread = (1 - alpha_bar_s) / (1 - alpha_bar_t) * (1 - alpha_bar_t / alpha_bar_s)
    return eta * math.sqrt(spread)


def make_step(
    alpha_bar_t: float, alpha_bar_s: float, t: int = 0, eta: float = 0.0, noise_scale: float = 1.0
) -> Step:
    """The coefficients of eq. 12 between two levels.

    noise_scale multiplies the injected noise alone, as in arXiv 2510.21991; 1 is the paper's.
    """
    σ = sigma(alpha_bar_t, alpha_bar_s, eta)
    return Step(
        t=t,
        signal_t=math.sqrt(alpha_bar_t),
        noise_t=math.sqrt(1 - alpha_bar_t),
        signal_s=math.sqrt(alpha_bar_s),
        direction=math.sqrt(max(1 - alpha_bar_s - σ**2, 0.0)),
        injected=noise_scale * σ,
    )


def make_steps(
    table: np.ndarray,
    grid: Sequence[tuple[int, int]],
    eta: float = 0.0,
    noise_scale: float = 1.0,
) -> list[Step]:
    """One Step for each pair (t, s) of the grid over the ᾱ table [T]."""
    levels = [(alpha_bar_at(table, t), alpha_bar_at(table, s), t) for t, s in grid]
    return [make_step(*level, eta, noise_scale) for level in levels]


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


def read(x: Tensor, output: Tensor, step: Step, reading: Reading) -> tuple[Tensor, Tensor]:
    """(x̂0, ε̂), with x̂0 in range and ε̂ derived again from it where the reading says so."""
    bounded = reading.clip is not None and reading.threshold is None
    if step.signal_t == 0 and reading.prediction == "epsilon" and not bounded:
        raise ValueError(NO_SIGNAL)
    x0, ε = to_x0_and_epsilon(x, output, step, reading.prediction)
    if reading.threshold is None and reading.clip is None:
        return x0, ε
    if reading.threshold is not None:
        x0 = dynamic_threshold(x0, *reading.threshold)
    elif reading.clip is not None:
        x0 = x0.clamp(-reading.clip, reading.clip)
    return x0, (x - step.signal_t * x0) / step.noise_t if reading.rederive else ε


def dynamic_threshold(x0: Tensor, ratio: float, maximum: float) -> Tensor:
    """Each sample of x0 [B, …] clipped to ±s and divided by s, the `ratio` quantile of its |x0|.

    s lies in [1, maximum] (Imagen, arXiv 2205.11487, sec. 2.3).
    """
    flat = (
        x0.flatten(1).float() if x0.dtype not in (torch.float32, torch.float64) else x0.flatten(1)
    )
    s = flat.abs().quantile(ratio, dim=1, keepdim=True).clamp(1, maximum)
    return (flat.clamp(-s, s) / s).view_as(x0).to(x0.dtype)


def move(x0: Tensor, ε: Tensor, step: Step, z: Tensor | None = None) -> Tensor:
    """x_s = √ᾱ_s x̂0 + √(1 - ᾱ_s - σ²) ε̂ + σ z (eq. 12)."""
    x_s = step.signal_s * x0 + step.direction * ε
    if step.injected == 0:
        return x_s
    if z is None:
        raise ValueError("a step with η > 0 needs the noise z")
    return x_s + step.injected * z


def ddim_step(
    x: Tensor, output: Tensor, step: Step, reading: Reading = EPSILON, z: Tensor | None = None
) -> Tensor:
    """x_t and the network's output -> x_s."""
    return move(*read(x, output, step, reading), step, z)


def noise_count(steps: Sequence[Step]) -> int:
    """How many noise tensors a chain of K steps uses: 1, and K more where any is injected."""
    return 1 + len(steps) * any(step.injected > 0 for step in steps)


def with_noise(
    x: Tensor, steps: Sequence[Step], generator: torch.Generator | None = None
) -> Tensor:
    """x_T [B, …] and whatever the chain injects, drawn at once: [1 + K·(η>0), B, …]."""
    shape = (noise_count(steps) - 1, *x.shape)
    drawn = torch.randn(shape, generator=generator, device=x.device, dtype=x.dtype)
    return torch.cat([x[None], drawn])


def ddim_states(
    denoise: Denoise, noise: Tensor, steps: Sequence[Step], reading: Reading = EPSILON
) -> Iterator[tuple[Tensor, Tensor]]:
    """(x_s, x̂0) after every step, from x_T = noise[0] down the whole grid.

    noise: [1 + K·(η>0), B, T_p, D_a].
    """
    x = noise[0]
    for k, step in enumerate(steps):
        x0, ε = read(x, denoise(x, k), step, reading)
        x = move(x0, ε, step, noise[k + 1] if step.injected > 0 else None)
        yield x, x0


def ddim_sample(
    denoise: Denoise, noise: Tensor, steps: Sequence[Step], reading: Reading = EPSILON
) -> Tensor:
    """x_T = noise[0] -> x_0 [B, T_p, D_a]; noise [1 + K·(η>0), B, T_p, D_a]."""
    x = noise[0]
    for k, step in enumerate(steps):
        x = ddim_step(x, denoise(x, k), step, reading, noise[k + 1] if step.injected > 0 else None)
    return x


def reuse(denoise: Denoise, reused: Container[int]) -> Denoise:
    """The same denoiser, repeating its last prediction at the steps in `reused`, for nothing."""
    last: Tensor | None = None

    def cached(x: Tensor, k: int) -> Tensor:
        nonlocal last
        if k == 0 or k not in reused or last is None:
            last = denoise(x, k)
        return last

    return cached


def self_conditioned(
    denoise: Callable[[Tensor, int, Tensor | None], Tensor],
    steps: Sequence[Step],
    reading: Reading = EPSILON,
) -> Denoise:
    """A denoiser that also sees the previous step's x̂0, None at first (arXiv 2208.04202)."""
    previous: Tensor | None = None

    def conditioned(x: Tensor, k: int) -> Tensor:
        nonlocal previous
        output = denoise(x, k, previous if k else None)
        previous, _ = read(x, output, steps[k], reading)
        return output

    return conditioned


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
