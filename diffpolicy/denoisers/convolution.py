"""Convolutions over time with the weights of nn.Conv1d, on tensors [B, C, 1, T].

These tensors are channels-last in memory, as a chunk [B, T, C] is: FiLM and GroupNorm then work on
whole vectors of channels. In engines on CUDA, and in training there in bfloat16, a convolution is a
matrix product of the inputs under each tap, because cuDNN copies the weights into another layout at
every call. On the CPU the gradient of the weights in bfloat16 is such a product, because oneDNN's
kernel is slow for few ticks.

Shapes: B batch, C inputs, O outputs, T ticks, k taps.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def as_image(x: Tensor) -> Tensor:
    """[B, T, C] -> [B, C, 1, T], channels-last."""
    return x.mT.unsqueeze(2)


def as_rows(x: Tensor) -> Tensor:
    """[B, C, 1, T] -> [B, T, C], the inverse of `as_image`."""
    return x.squeeze(2).mT


class Convolution(nn.Conv1d):
    """nn.Conv1d of [B, C, 1, T] -> [B, O, 1, T']."""

    laid_out = False

    def forward(self, input: Tensor) -> Tensor:
        """[B, C, 1, T] -> [B, O, 1, T'], with T' = T / stride."""
        weight, stride, edge = self.weight, self.stride[0], int(self.padding[0])
        if self.laid_out or _trained_as_product(input):
            return as_image(convolved(as_rows(input), weight, self.bias, stride, edge))
        weight = weight.unsqueeze(2)
        if stride == 1 and self.bias is not None and _trained_in_bfloat16(input):
            narrow = (x.to(torch.bfloat16) for x in (input, weight, self.bias))
            return _Convolution.apply(*narrow)
        return F.conv2d(input, weight, self.bias, (1, stride), (0, edge))


class Growth(nn.ConvTranspose1d):
    """nn.ConvTranspose1d of 4 taps, stride 2 and padding 1: [B, C, 1, T] -> [B, O, 1, 2 T]."""

    laid_out = False

    def __init__(self, inputs: int, outputs: int):
        super().__init__(inputs, outputs, 4, 2, 1)

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        """[B, C, 1, T] -> [B, O, 1, 2 T]."""
        if self.laid_out or _trained_as_product(input):
            return as_image(grown(as_rows(input), self.weight, self.bias))
        return F.conv_transpose2d(input, self.weight.unsqueeze(2), self.bias, (1, 2), (0, 1))


def lay_out(network: nn.Module) -> None:
    """Make convolutions products, of weights whose order in memory makes their matrix no copy."""
    for layer in network.modules():
        if isinstance(layer, Convolution):  # [O, k, C]
            layer.weight.data = layer.weight.data.mT.contiguous().mT
            layer.laid_out = True
        elif isinstance(layer, Growth):  # [k, O, C]
            layer.weight.data = layer.weight.data.permute(2, 1, 0).contiguous().permute(2, 1, 0)
            layer.laid_out = True


def convolved(x: Tensor, weight: Tensor, bias: Any, stride: int, edge: int) -> Tensor:
    """One matrix product: x [B, T, C], weight [O, C, k] -> [B, T', O], with `edge` zeros around."""
    return F.linear(_under_taps(x, weight.shape[2], stride, edge), weight.mT.flatten(1), bias)


def grown(x: Tensor, weight: Tensor, bias: Any) -> Tensor:
    """One matrix product: x [B, T, C], weight [C, O, 4] -> [B, 2 T, O].

    Each output is the sum of two taps.
    """
    taps = F.linear(x, weight.permute(2, 1, 0).flatten(0, 1)).unflatten(2, (4, -1))
    taps = F.pad(taps, (0, 0, 0, 0, 1, 1))
    even = taps[:, 1:-1, 1] + taps[:, :-2, 3]
    odd = taps[:, 1:-1, 2] + taps[:, 2:, 0]
    return torch.stack([even, odd], 2).flatten(1, 2) + bias


def _trained_in_bfloat16(x: Tensor, device: str = "cpu") -> bool:
    if x.device.type != device or not torch.is_grad_enabled():
        return False
    return torch.is_autocast_enabled(device) and torch.get_autocast_dtype(device) == torch.bfloat16


def _trained_as_product(x: Tensor) -> bool:
    """True in training on CUDA, unless the compiler chooses kernels itself."""
    return _trained_in_bfloat16(x, "cuda") and not torch.compiler.is_compiling()


class _Convolution(torch.autograd.Function):
    """Stride 1 and "same" padding; weight [O, C, 1, k] with odd k."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return F.conv2d(x, weight, bias, padding=(0, weight.shape[-1] // 2))

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(*inputs[:2])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        (x, weight), (gradient,) = ctx.saved_tensors, gradients
        outputs, inputs, _, taps = weight.shape
        of_input = (1, 1), (0, taps // 2), (1, 1), False, (0, 0), 1, (True, False, False)
        of_x = torch.ops.aten.convolution_backward(gradient, x, weight, None, *of_input)[0]
        rows = as_rows(gradient).flatten(0, 1)  # [B · T, O]
        product = rows.T @ _under_taps(as_rows(x), taps, 1, taps // 2).flatten(0, 1)  # [O, k · C]
        of_weight = product.view(outputs, taps, inputs).mT.unsqueeze(2)
        return of_x, of_weight, rows.sum(0)


def _under_taps(x: Tensor, taps: int, stride: int, edge: int) -> Tensor:
    """The inputs under each tap: [B, T, C] -> [B, T', k · C], zero beyond the ends."""
    return F.pad(x, (0, 0, edge, edge)).unfold(1, taps, stride).mT.flatten(2)
