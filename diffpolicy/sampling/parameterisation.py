"""Parameterisations: the network's output y as ε, x0 or v, at one noise level.

A level is a = √ᾱ and b = √(1-ᾱ), with x = a x0 + b ε (Ho et al., arXiv 2006.11239, eq. 4) and
v = a ε - b x0 (Salimans & Ho, arXiv 2202.00512, appendix D).
"""

from torch import Tensor


def add_noise(x0: Tensor, ε: Tensor, alpha_bar: Tensor) -> Tensor:
    """x = √ᾱ x0 + √(1-ᾱ) ε; ᾱ broadcasts against x0 [B, …]."""
    return alpha_bar.sqrt() * x0 + (1 - alpha_bar).sqrt() * ε


def target(x0: Tensor, ε: Tensor, alpha_bar: Tensor, prediction: str) -> Tensor:
    """The regression target of the network, [B, …]: ε, x0 or v."""
    if prediction == "epsilon":
        return ε
    if prediction == "x0":
        return x0
    return alpha_bar.sqrt() * ε - (1 - alpha_bar).sqrt() * x0


def x0_coefficients(prediction: str, a: float, b: float) -> tuple[float, float, float]:
    """(p, q, r) with x̂0 = (p x + q y) / r."""
    return {"epsilon": (1.0, -b, a), "x0": (0.0, 1.0, 1.0), "v": (a, -b, 1.0)}[prediction]


def epsilon_coefficients(prediction: str, a: float, b: float) -> tuple[float, float]:
    """(p, q) with ε̂ = p x + q y."""
    if prediction == "epsilon":
        return 0.0, 1.0
    return (1 / b, -a / b) if prediction == "x0" else (b, a)
