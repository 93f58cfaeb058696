"""Step tables of samplers that the library does not have: what a new linear method looks like."""

import math
from itertools import pairwise

import numpy as np

from diffpolicy.sampling.noise import alpha_bar_at
from diffpolicy.sampling.parameterisation import x0_coefficients
from diffpolicy.sampling.steps import Row


def dpm_solver_2m(table, grid, prediction="epsilon", clip=math.inf) -> list[Row]:
    """DPM-Solver++ 2M (Lu et al., arXiv 2211.01095, alg. 2); first and last step of first order."""
    rows, h_before = [], 0.0
    for k, (t, s) in enumerate(grid):
        (a, b), (a_s, b_s) = (
            (math.sqrt(ᾱ), math.sqrt(1 - ᾱ)) for ᾱ in (alpha_bar_at(table, i) for i in (t, s))
        )
        h = math.log(a_s / b_s) - math.log(a / b) if b_s else math.inf
        extra = 0.0 if k in (0, len(grid) - 1) else h / h_before / 2  # 1 / (2 r)
        φ = -a_s * math.expm1(-h)
        reading = x0_coefficients(prediction, a, b)
        move = {"x": b_s / b, "x0": φ * (1 + extra), "previous": -φ * extra}
        rows.append(Row(t, *reading, clip, **move))
        h_before = h
    return rows


def edm_heun(levels) -> list[Row]:
    """Heun's method (Karras et al., arXiv 2206.00364, alg. 1): two rows a step, x0-prediction.

    The second row starts from the Euler step x + (s - σ) d, from which x and d are recovered.
    """
    rows = []
    for t, (σ, s) in enumerate(pairwise(levels)):
        ratio = s / σ
        rows.append(Row(t, 0.0, 1.0, x=ratio, x0=1 - ratio))
        if s:  # x = (x' - (1 - ratio) x̂0_previous) / ratio, and the mean of both slopes
            h, x, previous = s - σ, 1 / ratio, -(1 - ratio) / ratio
            slope = x / σ, (previous - 1) / σ
            move = {"x": x + h / 2 * (slope[0] + 1 / s), "x0": -h / 2 / s}
            rows.append(Row(t + 1, 0.0, 1.0, **move, previous=previous + h / 2 * slope[1]))
    return rows


def flow_euler(times) -> list[Row]:
    """Euler steps of flow matching (Lipman et al., arXiv 2210.02747): y is the velocity dx/dt."""
    return [
        Row(k, 1.0, 1.0 - t, x=1.0, y=s - t)  # x̂0 = x + (1 - t) y, data at t = 1
        for k, (t, s) in enumerate(pairwise(times))
    ]


def karras(n: int, high: float = 80.0, low: float = 0.002, ρ: float = 7.0) -> np.ndarray:
    """Noise levels of arXiv 2206.00364, eq. 5, and 0."""
    ramp = high ** (1 / ρ) + np.linspace(0, 1, n) * (low ** (1 / ρ) - high ** (1 / ρ))
    return np.append(ramp**ρ, 0.0)
