"""Mish x · tanh(softplus(x)) (arXiv 1908.08681), with a backward pass that is fast on the CPU.

PyTorch's kernels for the CPU evaluate exp, log1p and tanh of every number in both passes; here one
sigmoid is enough. With p = sigmoid(x), s = 1 - p and u = p · (1 + s):
tanh(softplus(x)) = u / (2 - u), and the derivative is u / (2 - u) + 4 · x · p · (s / (2 - u))².
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Mish(nn.Module):
    """Mish of every number; the same within float noise in training and without gradients."""

    def forward(self, x: Tensor) -> Tensor:
        """Any shape -> the same shape and type."""
        trained = x.requires_grad and x.device.type == "cpu"
        return _Mish.apply(x) if trained else F.mish(x)


class _Mish(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        wide = _wide(x)
        _, _, u = _parts(wide)
        return (wide * u).div_(2 - u).to(x.dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (x,), (gradient,) = ctx.saved_tensors, gradients
        wide = _wide(x)
        p, s, u = _parts(wide)
        q = (2 - u).reciprocal_()
        slope = (s * q).square_().mul_(p).mul_(wide)
        return ((u * q).add_(slope, alpha=4) * gradient).to(x.dtype)


def _wide(x: Tensor) -> Tensor:
    """x in float32 at least, so that a bfloat16 is rounded once."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _parts(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """p, s and u."""
    p = x.sigmoid()
    s = 1 - p
    return p, s, (1 + s).mul_(p)
