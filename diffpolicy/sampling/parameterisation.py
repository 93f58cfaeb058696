"""Parameterisations: the network's output y as ε, x0, v or velocity, at one noise level.

A level is a and b of x = a x0 + b ε (Ho et al., arXiv 2006.11239, eq. 4). v = a ε - b x0 (Salimans
& Ho, arXiv 2202.00512, appendix D), for a² + b² = 1. velocity = ε - x0 = dx/du (rectified flow,
arXiv 2209.03003).
"""

from typing import Any

from torch import Tensor


def add_noise(x0: Tensor, ε: Tensor, signal: Tensor, noise: Tensor) -> Tensor:
    """x = a x0 + b ε; a and b broadcast against x0 [B, …]."""
    return signal * x0 + noise * ε


def target(x0: Tensor, ε: Tensor, signal: Tensor, noise: Tensor, prediction: str) -> Tensor:
    """The regression target of the network, [B, …]: ε, x0, v or velocity."""
    if prediction == "v":
        return signal * ε - noise * x0
    return {"epsilon": ε, "x0": x0}[prediction] if prediction != "velocity" else ε - x0


def output_for(x0: Tensor, x: Tensor, signal: Tensor, noise: Tensor, prediction: str) -> Tensor:
    """The output [B, …] that is read as x0 at x."""
    p, q, r = x0_coefficients(prediction, signal, noise)
    return (r * x0 - p * x) / q


def x0_coefficients(prediction: str, a: Any, b: Any) -> tuple[Any, Any, Any]:
    """(p, q, r) with x̂0 = (p x + q y) / r; numbers, or tensors for tensors."""
    return {
        "epsilon": (1.0, -b, a),
        "x0": (0.0, 1.0, 1.0),
        "v": (a, -b, 1.0),
        "velocity": (1.0, -b, a + b),
    }[prediction]


def epsilon_coefficients(prediction: str, a: float, b: float) -> tuple[float, float]:
    """(p, q) with ε̂ = p x + q y."""
    if prediction == "x0":
        return 1 / b, -a / b
    total = a + b
    return {"epsilon": (0.0, 1.0), "v": (b, a), "velocity": (1 / total, a / total)}[prediction]
