"""Our denoisers as lists of operations for native.c: one function for each network.

The structures mirror those of native.c, field by field.
"""

import ctypes
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
from diffpolicy.errors import DiffpolicyError

LANES, PAD = 16, 4  # floats of a vector; rows of zeros around a tensor
CACHED, FEW_ROWS = 2**19, 4  # weights that stay in a core's cache; rows that share a weight
CALM = 8  # steps of ε-prediction after which rounding errors are forgotten
ARENA = 2**22  # floats: NumPy asks for huge pages for arrays of such sizes
WIDEST = 8192  # MAX_UNIT in native.c
PITCH = 8 * LANES  # rows begin at multiples of the widest group of output channels
CONV, NORM, ADD = 0, 1, 2
ACTIVATIONS = {None: 0, "silu": 1, "mish": 2}
FLOATS = ctypes.POINTER(ctypes.c_float)


class TensorStruct(ctypes.Structure):
    _fields_ = (("data", FLOATS), *((n, ctypes.c_int64) for n in ("rows", "channels", "pitch")))


class Operation(ctypes.Structure):
    _fields_ = (
        ("weight", FLOATS),
        ("bias", FLOATS),
        ("narrow", ctypes.c_void_p),
        *((name, ctypes.c_int64) for name in ("kind", "source", "out")),
        *((name, ctypes.c_int64) for name in ("taps", "stride", "shift", "row_step")),
        *((name, ctypes.c_int64) for name in ("row_offset", "panels", "accumulate")),
        *((name, ctypes.c_int64) for name in ("activation", "film", "groups", "film_base")),
        ("eps", ctypes.c_double),
    )


def padded(channels: int) -> int:
    """Floats of a row."""
    return -(-channels // PITCH) * PITCH


class Program:
    """Tensors and operations; `ops` is the list that is being written."""

    def __init__(self, film: int, observation: int, rows: int, channels: int, narrow: bool):
        self.narrow = narrow
        self.tensors: list[TensorStruct] = []
        self.arrays: list[np.ndarray] = []  # keeps the memory alive
        self.free = np.zeros(0, np.float32)
        self.observe: list[Operation] = []
        self.denoise: list[Operation] = []
        self.ops = self.observe
        self.observation = self.tensor(1, observation)
        self.film, self.given = self.tensor(1, film), self.tensor(1, film)
        self.x, self.output = self.tensor(rows, channels), self.tensor(rows, channels)

    def memory(self, values: np.ndarray) -> Any:
        """A copy that starts on a cache line."""
        wanted = -(-values.size // LANES) * LANES
        if self.free.size < wanted:
            self.free = np.zeros(max(wanted, ARENA) + LANES, np.float32)
            self.free = self.free[(-self.free.ctypes.data // 4) % LANES :]
            self.arrays.append(self.free)
        room, self.free = self.free[:wanted], self.free[wanted:]
        room[: values.size] = values.ravel()
        return ctypes.cast(room.ctypes.data, FLOATS)

    def tensor(self, rows: int, channels: int) -> int:
        """A new tensor [rows, channels], zero, with zeros around it."""
        pitch = padded(channels)
        data = self.memory(np.zeros((rows + 2 * PAD) * pitch + LANES))
        first = ctypes.cast(ctypes.addressof(data.contents) + 4 * PAD * pitch, FLOATS)
        self.tensors.append(TensorStruct(first, rows, channels, pitch))
        return len(self.tensors) - 1

    def conv(
        self,
        source: int,
        out: int,
        weight: Tensor,
        bias: Tensor | None,
        stride: int = 1,
        shift: int | None = None,
        row_step: int = 1,
        row_offset: int = 0,
        accumulate: bool = False,
        activation: str | None = None,
        film: int | None = None,
    ) -> int:
        """out[row_offset + row_step t] (+)= bias + Σ_j weight[:, :, j] source[stride t + j - shift]

        weight [O, I, J] (or [O, I]), bias [O]. The FiLM's numbers from `film` on are added, and
        then comes the activation.
        """
        values = weight.detach().float().cpu().numpy().reshape(*weight.shape[:2], -1)
        outs, inputs, taps = values.shape
        rows = self.tensors[out].rows // row_step
        panels = next(p for p in (1, 2, 4, 8) if rows >= 16 // p or p == 8)
        width = panels * LANES
        groups = -(-outs // width)
        packed = np.zeros((groups * width, inputs, taps), np.float32)
        packed[:outs] = values
        packed = packed.reshape(groups, width, inputs, taps).transpose(0, 2, 3, 1)
        shift = taps // 2 if shift is None else shift
        if max(shift, taps - 1 - shift) > PAD:
            raise DiffpolicyError(f"kernels reach at most {PAD} ticks to each side; got {taps}")
        self.ops.append(
            Operation(
                **self._weights(packed, narrow=self.narrow and rows <= FEW_ROWS and stride == 1),
                bias=self._vector(bias, groups * width),
                kind=CONV,
                source=source,
                out=out,
                taps=taps,
                stride=stride,
                shift=shift,
                row_step=row_step,
                row_offset=row_offset,
                panels=panels,
                accumulate=accumulate,
                activation=ACTIVATIONS[activation],
                film=-1 if film is None else film,
            )
        )
        return out

    def linear(self, source: int, layer: nn.Linear, out: int | None = None, **options) -> int:
        """A linear layer over one row, into a new tensor unless `out` is given."""
        out = self.tensor(1, layer.out_features) if out is None else out
        return self.conv(source, out, layer.weight, layer.bias, **options)

    def norm(
        self,
        source: int,
        layer: nn.GroupNorm | nn.LayerNorm | None = None,
        activation: str | None = None,
        film: int | None = None,
        film_base: int = 0,
        out: int | None = None,
    ) -> int:
        """Normalisation, activation, then y (film_base + scale) + shift; in place by default."""
        groups = 0 if layer is None else getattr(layer, "num_groups", 1)
        affine = (layer.weight, layer.bias) if layer is not None else (None, None)
        width = self.tensors[source].pitch
        if width > WIDEST:
            raise DiffpolicyError(f"the native engine takes at most {WIDEST} channels; got {width}")
        weight, bias = (self._vector(v, width) for v in affine)
        out = source if out is None else out
        self.ops.append(
            Operation(
                weight=weight,
                bias=bias,
                kind=NORM,
                source=source,
                out=out,
                groups=groups,
                activation=ACTIVATIONS[activation],
                film=-1 if film is None else film,
                film_base=film_base,
                eps=0.0 if layer is None else layer.eps,
            )
        )
        return out

    def add(self, source: int, out: int, factor: int | None = None) -> None:
        """out += source, times the FiLM's number `factor` where one is given."""
        film = -1 if factor is None else factor
        self.ops.append(Operation(kind=ADD, source=source, out=out, film=film))

    def _weights(self, packed: np.ndarray, narrow: bool) -> dict[str, Any]:
        """[group, channel, tap, panel, lane] in float32, or in 24 bits as native.c has it."""
        if not narrow:
            return {"weight": self.memory(packed)}
        bits = np.ascontiguousarray(packed).view(np.uint32).reshape(-1, 4, LANES) + 0x80
        high, low = bits >> 16, bits >> 8 & 0xFF
        vectors = [
            high[:, 0] | high[:, 1] << 16,
            high[:, 2] | high[:, 3] << 16,
            low[:, 0] | low[:, 1] << 8 | low[:, 2] << 16 | low[:, 3] << 24,
        ]
        joined = np.stack(vectors, axis=1).astype(np.uint32)
        self.arrays.append(joined)
        return {"narrow": joined.ctypes.data}

    def _vector(self, values: Tensor | None, width: int):
        if values is None:
            return None
        room = np.zeros(width, np.float32)
        room[: len(values)] = values.detach().float().cpu().numpy()
        return self.memory(room)


def write_program(job: Job) -> Program:
    """The operations of one of our networks; DiffpolicyError where it is none of them."""
    denoiser = job.denoiser
    writers = {
        MLPDenoiser: _mlp,
        ConcatDenoiser: _concat,
        PlainDenoiser: _plain,
        UNet1D: _unet,
    }
    if type(denoiser) not in writers:
        raise DiffpolicyError(f"{type(denoiser).__name__} is not written for the native engine")
    *_, rows, channels = job.noise_shape
    flat = not isinstance(denoiser, UNet1D)
    shape = (1, rows * channels) if flat else (rows, channels)
    _, *seen = job.observation_shape
    program = Program(denoiser.film_size, math.prod(seen), *shape, narrow=_narrow(job))
    writers[type(denoiser)](program, denoiser)
    return program


def _narrow(job: Job) -> bool:
    """Whether weights are rounded to 24 bits: where they do not fit in the cache.

    Not in a few steps of ε-prediction: the first one multiplies errors by 1/√ᾱ, up to 2029 times,
    and it takes some more steps to forget them (on Push-T 4e-4 is left after 4, 3e-5 after 8).
    """
    size = sum(p.numel() for p in job.denoiser.parameters())
    calm = job.chain.reading.prediction != "epsilon" or len(job.chain.steps) >= CALM
    return size > CACHED and calm


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
        return _joined(p, block.skip, sources, h, accumulate=True)
    if len(sources) == 1:
        p.add(sources[0], h)
        return h
    identity = torch.eye(block.outputs).split([p.tensors[s].channels for s in sources], dim=1)
    for source, weight in zip(sources, identity, strict=True):
        p.conv(source, h, weight, None, accumulate=True)
    return h


def _conv_block(p: Program, block: Any, sources: Sequence[int], film: int | None = None) -> int:
    convolution, norm, _ = block
    out = p.tensor(p.tensors[sources[0]].rows, convolution.out_channels)
    return p.norm(_joined(p, convolution, sources, out), norm, "mish", film)


def _joined(
    p: Program, layer: nn.Conv1d, sources: Sequence[int], out: int, accumulate: bool = False
) -> int:
    """A convolution of several tensors side by side, as a sum over them."""
    parts = layer.weight.split([p.tensors[s].channels for s in sources], dim=1)
    for i, (source, weight) in enumerate(zip(sources, parts, strict=True)):
        bias = None if i else layer.bias
        p.conv(source, out, weight, bias, accumulate=accumulate or i > 0)
    return out


def _shrink(p: Program, layer: nn.Conv1d, source: int) -> int:
    """Kernel 3, stride 2."""
    out = p.tensor(p.tensors[source].rows // 2, layer.out_channels)
    return p.conv(source, out, layer.weight, layer.bias, stride=2)


def _grow(p: Program, layer: nn.ConvTranspose1d, source: int) -> int:
    """Kernel 4, stride 2, as two convolutions: one makes the even rows, one the odd ones."""
    out = p.tensor(2 * p.tensors[source].rows, layer.out_channels)
    w = layer.weight.transpose(0, 1)
    p.conv(source, out, w[:, :, [3, 1]], layer.bias, shift=1, row_step=2, row_offset=0)
    return p.conv(source, out, w[:, :, [2, 0]], layer.bias, shift=0, row_step=2, row_offset=1)
