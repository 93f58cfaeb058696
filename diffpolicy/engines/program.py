"""Programs for native.c: tensors in one piece of memory, and operations with packed weights.

The structures mirror those of native.c, field by field.
"""

import ctypes
from typing import Any

import numpy as np
from torch import Tensor, nn

from diffpolicy.errors import EngineUnavailable

LANES, PAD = 16, 4  # floats of a vector; rows of zeros around a tensor
FEW_ROWS = 4  # rows that may share a weight of 24 bits
ARENA = 2**22  # floats: NumPy asks for huge pages for arrays of such sizes
WIDEST = 8192  # MAX_UNIT in native.c
PITCH = 8 * LANES  # rows begin at multiples of the widest group of output channels
CONV, NORM, ADD = 0, 1, 2
ACTIVATIONS = {None: 0, "silu": 1, "mish": 2}
FLOATS = ctypes.POINTER(ctypes.c_float)


class TensorStruct(ctypes.Structure):
    """A tensor [rows, channels] with padded rows."""

    _fields_ = (("data", FLOATS), *((n, ctypes.c_int64) for n in ("rows", "channels", "pitch")))


class Operation(ctypes.Structure):
    """One convolution, normalisation or addition."""

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
    """Floats of a row of so many channels, rounded up to PITCH."""
    return -(-channels // PITCH) * PITCH


class Program:
    """Tensors and operations of a network; methods append to the list `ops`."""

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
        self.x, self.output = (self.tensor(rows, channels) for _ in range(2))
        self.previous, self.earlier = (self.tensor(rows, channels) for _ in range(2))

    def memory(self, values: np.ndarray) -> Any:
        """A copy of the values that starts on a cache line."""
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
        """Convolution over the rows of `source`, written to or added to `out`.

        out[row_offset + row_step t] (+)= bias + Σ_j weight[:, :, j] source[stride t + j - shift]

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
            raise EngineUnavailable(f"kernels reach at most {PAD} ticks to each side; got {taps}")
        return self._append(
            CONV,
            source,
            out,
            activation,
            film,
            **self._weights(packed, narrow=self.narrow and rows <= FEW_ROWS and stride == 1),
            bias=self._vector(bias, groups * width),
            taps=taps,
            stride=stride,
            shift=shift,
            row_step=row_step,
            row_offset=row_offset,
            panels=panels,
            accumulate=accumulate,
        )

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
            raise EngineUnavailable(
                f"the native engine takes at most {WIDEST} channels; got {width}"
            )
        weight, bias = (self._vector(v, width) for v in affine)
        out = source if out is None else out
        eps = 0.0 if layer is None else layer.eps
        more = {"groups": groups, "film_base": film_base, "eps": eps}
        return self._append(NORM, source, out, activation, film, weight=weight, bias=bias, **more)

    def add(self, source: int, out: int, factor: int | None = None) -> None:
        """out += source, multiplied by number `factor` of the FiLM if one is given."""
        self._append(ADD, source, out, film=factor)

    def _append(
        self,
        kind: int,
        source: int,
        out: int,
        activation: str | None = None,
        film: int | None = None,
        **fields: Any,
    ) -> int:
        """Append one operation; the tensor that it writes."""
        given = {"kind": kind, "source": source, "out": out, **fields}
        film = -1 if film is None else film
        self.ops.append(Operation(activation=ACTIVATIONS[activation], film=film, **given))
        return out

    def _weights(self, packed: np.ndarray, narrow: bool) -> dict[str, Any]:
        """Weights [group, channel, tap, panel, lane] in float32, or in native.c's 24 bits."""
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
