"""The denoisers as programs for native.c: one function for each network."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from diffpolicy.denoisers.concat import ConcatDenoiser
from diffpolicy.denoisers.mlp import MLPDenoiser
from diffpolicy.denoisers.plain import PlainDenoiser
from diffpolicy.denoisers.unet1d import UNet1D
from diffpolicy.engines.job import Job
from diffpolicy.engines.program import Program
from diffpolicy.errors import EngineUnavailable

CACHED = 2**19  # weights that stay in a core's cache
FORGOTTEN = 8  # steps after which the rounding errors of the first one are forgotten


def write_program(job: Job) -> Program:
    """The operations of a denoiser; EngineUnavailable if it is not of diffpolicy.denoisers."""
    denoiser = job.denoiser
    writers = {
        MLPDenoiser: _mlp,
        ConcatDenoiser: _concat,
        PlainDenoiser: _plain,
        UNet1D: _unet,
    }
    if type(denoiser) not in writers:
        raise EngineUnavailable(
            f"{type(denoiser).__name__} is not known to the native engine; try eager or onnx"
        )
    *_, rows, channels = job.noise_shape
    flat = not isinstance(denoiser, UNet1D)
    shape = (1, rows * channels) if flat else (rows, channels)
    _, *seen = job.observation_shape
    program = Program(denoiser.film_size, math.prod(seen), *shape, narrow=_narrow(job))
    writers[type(denoiser)](program, denoiser)
    return program


def _narrow(job: Job) -> bool:
    """True if weights are rounded to 24 bits, because they do not fit in the cache.

    Few steps that begin by amplifying errors keep float32: ε-prediction multiplies them by up to
    2029 (√(1-ᾱ)/√ᾱ), and more steps reduce them again (on Push-T to 4e-4 after 4, 3e-5 after 8).
    """
    weights = job.denoiser.named_parameters()
    size = sum(w.numel() for name, w in weights if not name.startswith("encoder."))
    first = job.chain.rows[0]
    amplified = abs(first.read_y) > first.read_divisor and len(job.chain.rows) < FORGOTTEN
    return size > CACHED and not amplified


def _mlp(p: Program, net: Any) -> None:
    _, first, _, second, _ = net.observation
    seen = p.linear(p.observation, first, activation="silu")
    seen = p.linear(seen, second, activation="silu")
    p.linear(seen, net.film_of_observation, p.given)
    p.ops = p.denoise
    h = p.linear(p.x, net.enter, film=0)
    hidden = p.tensors[h].channels
    offset, inside = hidden, p.tensor(1, hidden)
    for block in net.blocks:
        p.norm(h, block.norm, film=offset, film_base=1, out=inside)
        wide = p.linear(inside, block.up, activation="silu")
        p.linear(wide, block.down, h, accumulate=True)
        offset += 2 * hidden
    norm, leave = net.leave
    p.linear(p.norm(h, norm), leave, p.output)
    p.add(p.x, p.output, factor=offset)


def _concat(p: Program, net: Any) -> None:
    for_x, _, for_observation = net.enter.weight.split(net.parts, dim=1)
    p.conv(p.linear(p.observation, net.observation), p.given, for_observation, None)
    p.ops = p.denoise
    out = p.tensor(1, len(for_x))
    h = p.conv(p.x, out, for_x, net.enter.bias, activation="silu", film=0)
    inside = p.tensor(1, len(for_x))
    for block in net.blocks:
        p.norm(h, block.norm, out=inside)
        wide = p.linear(inside, block.up, activation="silu")
        p.linear(wide, block.down, h, accumulate=True)
    p.linear(h, net.leave, p.output)


def _plain(p: Program, net: Any) -> None:
    p.linear(p.observation, net.film_of_observation, p.given)
    p.ops = p.denoise
    h = p.linear(p.x, net.enter, activation="silu", film=0)
    for layer in net.layers:
        h = p.linear(h, layer, activation="silu")
    p.linear(h, net.leave, p.output)


def _unet(p: Program, net: Any) -> None:
    p.linear(p.norm(p.observation, activation="mish"), net.film_of_observation, p.given)
    p.ops = p.denoise
    offsets = iter(np.cumsum([0, *net.film_sizes]).tolist())
    h, skips = [p.x], []
    for i, level in enumerate(net.down):
        h = _through(p, level, h, offsets)
        skips.append(h)
        if i < len(net.shrink):
            h = [_shrink(p, net.shrink[i], *h)]
    h = _through(p, net.middle, h, offsets)
    for level, grow in zip(net.up, net.grow, strict=True):
        h = [_grow(p, grow, *_through(p, level, [*h, *skips.pop()], offsets))]
    block, leave = net.leave
    h = _conv_block(p, block, h)
    p.conv(h, p.output, leave.weight, leave.bias)


def _through(p: Program, level: Any, sources: Sequence[int], offsets: Iterator[int]) -> list[int]:
    for block in level:
        sources = [_residual(p, block, sources, next(offsets))]
    return list(sources)


def _residual(p: Program, block: Any, sources: Sequence[int], film: int) -> int:
    h = _conv_block(p, block.first, sources, film)
    h = _conv_block(p, block.second, [h])
    if isinstance(block.skip, nn.Conv1d):
        return _joined(p, block.skip.weight, block.skip.bias, sources, h, accumulate=True)
    if len(sources) == 1:
        p.add(sources[0], h)
        return h
    return _joined(p, torch.eye(block.outputs), None, sources, h, accumulate=True)


def _conv_block(p: Program, block: Any, sources: Sequence[int], film: int | None = None) -> int:
    convolution, norm, _ = block
    out = p.tensor(p.tensors[sources[0]].rows, convolution.out_channels)
    _joined(p, convolution.weight, convolution.bias, sources, out)
    return p.norm(out, norm, "mish", film)


def _joined(
    p: Program,
    weight: Tensor,
    bias: Tensor | None,
    sources: Sequence[int],
    out: int,
    accumulate: bool = False,
) -> int:
    """A convolution of several concatenated tensors, as a sum over them."""
    parts = weight.split([p.tensors[s].channels for s in sources], dim=1)
    for i, (source, part) in enumerate(zip(sources, parts, strict=True)):
        p.conv(source, out, part, None if i else bias, accumulate=accumulate or i > 0)
    return out


def _shrink(p: Program, layer: nn.Conv1d, source: int) -> int:
    """Halve the rows: kernel 3, stride 2."""
    out = p.tensor(p.tensors[source].rows // 2, layer.out_channels)
    return p.conv(source, out, layer.weight, layer.bias, stride=2)


def _grow(p: Program, layer: nn.ConvTranspose1d, source: int) -> int:
    """Double the rows: kernel 4, stride 2, as one convolution for even rows and one for odd."""
    out = p.tensor(2 * p.tensors[source].rows, layer.out_channels)
    w = layer.weight.transpose(0, 1)
    p.conv(source, out, w[:, :, [3, 1]], layer.bias, shift=1, row_step=2, row_offset=0)
    return p.conv(source, out, w[:, :, [2, 0]], layer.bias, shift=0, row_step=2, row_offset=1)
