"""Guidance towards planned actions: its mask over rows, its weights, and the guided network.

Real-time chunking (RTC), arXiv 2506.07339, algorithm 1, as guidance of x̂0 at a noise level x = a x0
+ b ε; the weight with the spread s of the prior is that of a Gaussian prior N(0, s²).

Shapes: B batch, T_o and T_p horizons, D_a action dimensions, H = T_p - T_o + 1 usable rows.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from diffpolicy.sampling.steps import Denoise, Row, read

BETA = 5.0  # largest weight


def soft_mask(delay: Tensor, planned: Tensor, usable: int) -> Tensor:
    """W [B, H] (RTC, eq. 5): 1 before the delay d̂, then falling to 0 at the end n of the plan.

    W_i = c (e^c - 1) / (e - 1) with c = (n - i) / (n - d̂ + 1) for d̂ ≤ i < n. delay, planned [B]: d̂
    and n; a plan that is shorter than the delay counts to its end.
    """
    i, n = torch.arange(usable), planned[:, None]
    committed = torch.minimum(delay, planned)[:, None]
    c = ((n - i) / (n - committed + 1)).clamp(min=0)
    return torch.where(i < committed, 1.0, c * c.expm1() / math.expm1(1))


def rtc_weight(signal: float, noise: float, beta: float = BETA) -> float:
    """w = min(β b, (a² + b²) / a), RTC's weight of a flow in the terms of x̂0."""
    exact = (signal**2 + noise**2) / signal if signal else math.inf
    return min(beta * noise, exact)


def prior_weight(signal: float, noise: float, spread: float) -> float:
    """w = (a² s² + b²) / (a s²), so that x̂0 becomes Y for the prior N(0, s²) and W = 1.

    ∞ where the signal or the spread is zero.
    """
    divisor = signal * spread**2
    return (signal**2 * spread**2 + noise**2) / divisor if divisor else math.inf


def guided(
    denoise: Denoise, rows: Sequence[Row], weights: Tensor, mask: Tensor, planned: Tensor
) -> Denoise:
    """The network whose x̂0 is drawn to Y: x̂0 + w Jᵀ diag(W) (Y - x̂0), with J = ∂x̂0 / ∂x.

    weights [K, D_a]: w of each row of the table. mask [B, T_p]: W. planned [B, T_p, D_a]: Y. x̂0 is
    unclipped here, as a clip has no gradient; a sampler clips the result. Where the mask of a
    sample is zero, its output is that of the network to the bit. Each call takes one gradient.
    """
    drawn = mask.any(1)[:, None, None]

    def denoise_guided(x: Tensor, k: int) -> Tensor:
        row = rows[k]._replace(clip=math.inf)
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            y = denoise(x, k)
            x0 = read(x, y, row)
            pull = mask[..., None] * (planned - x0.detach())
            [step] = torch.autograd.grad(x0, x, pull)
        x, y, x0 = x.detach(), y.detach(), x0.detach() + weights[k] * step
        return torch.where(drawn, (x0 * row.read_divisor - row.read_x * x) / row.read_y, y)

    return denoise_guided
