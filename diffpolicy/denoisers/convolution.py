"""Convolutions over time with the weights of nn.Conv1d, on tensors [B, C, 1, T].

On the CPU these tensors are channels-last in memory, as a chunk [B, T, C] is: FiLM and GroupNorm
then work on whole vectors of channels. The gradient of the weights in bfloat16 is a matrix product
of the output's gradient and the shifted inputs, because oneDNN's kernel is slow for few ticks.

Shapes: B batch, C inputs, O outputs, T ticks, k taps.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def as_image(x: Tensor) -> Tensor:
    """[B, T, C] -> [B, C, 1, T]; channels-last on the CPU, contiguous elsewhere."""
    image = x.mT.unsqueeze(2)
    return image if x.device.type == "cpu" else image.contiguous()


def as_rows(x: Tensor) -> Tensor:
    """[B, C, 1, T] -> [B, T, C], the inverse of `as_image`."""
    return x.squeeze(2).mT


class Convolution(nn.Conv1d):
    """nn.Conv1d of [B, C, 1, T] -> [B, O, 1, T']."""

    def forward(self, input: Tensor) -> Tensor:
        """[B, C, 1, T] -> [B, O, 1, T'], with T' = T / stride."""
        weight, stride = self.weight.unsqueeze(2), (1, self.stride[0])
        if stride == (1, 1) and self.bias is not None and _trained_in_bfloat16(input):
            narrow = (x.to(torch.bfloat16) for x in (input, weight, self.bias))
            return _Convolution.apply(*narrow)
        return F.conv2d(input, weight, self.bias, stride, (0, int(self.padding[0])))


class Growth(nn.ConvTranspose1d):
    """nn.ConvTranspose1d of [B, C, 1, T] -> [B, O, 1, T']."""

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        """[B, C, 1, T] -> [B, O, 1, T'], with T' = T · stride."""
        weight, stride = self.weight.unsqueeze(2), (1, self.stride[0])
        padding = (0, int(self.padding[0]))
        return F.conv_transpose2d(input, weight, self.bias, stride, padding)


def _trained_in_bfloat16(x: Tensor) -> bool:
    narrow = torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == torch.bfloat16
    return narrow and torch.is_grad_enabled() and x.device.type == "cpu"


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
        product = rows.T @ _shifted(x, taps)  # [O, k · C]
        of_weight = product.view(outputs, taps, inputs).mT.unsqueeze(2)
        return of_x, of_weight, rows.sum(0)


def _shifted(x: Tensor, taps: int) -> Tensor:
    """The inputs under each tap: [B, C, 1, T] -> [B · T, k · C], zero beyond the ends."""
    edge = taps // 2
    rows = F.pad(as_rows(x), (0, 0, edge, edge))
    return rows.unfold(1, taps, 1).mT.flatten(2).flatten(0, 1)
