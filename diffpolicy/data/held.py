"""Demonstrations of a foreign format, held in memory with the interface of a zarr store.

Shapes: N rows, E episodes.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from diffpolicy.data.demonstration import Source, alike
from diffpolicy.data.zarr_store import check_held
from diffpolicy.errors import DiffpolicyError
from diffpolicy.terminal.progress import progress_bar

GROWTH_BYTES = 2**26
QUICK_S = 1.0  # a read that takes longer shows a bar


@dataclass(frozen=True)
class HeldArray:
    """Rows of an array in memory, with the attributes of a zarr array that readers use."""

    path: str
    values: np.ndarray
    fill_value: None = None
    shards: None = None

    def __getitem__(self, index: Any) -> np.ndarray:
        """Rows, without a copy."""
        return self.values[index]

    @property
    def oindex(self) -> np.ndarray:
        """Rows by an array of numbers."""
        return self.values

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape, [N, …]."""
        return self.values.shape

    @property
    def ndim(self) -> int:
        """Number of dimensions."""
        return self.values.ndim

    @property
    def dtype(self) -> np.dtype:
        """Type of the numbers."""
        return self.values.dtype

    @property
    def chunks(self) -> tuple[int, ...]:
        """One row."""
        return (1, *self.values.shape[1:])


@dataclass(frozen=True)
class HeldStore:
    """Arrays in memory by their name under data/, and attributes."""

    path: Path
    attributes: dict[str, Any]
    arrays: Mapping[str, np.ndarray]

    def array(self, name: str) -> HeldArray:
        """The array data/<key>; DiffpolicyError if there is none."""
        key = name.removeprefix("data/")
        if key not in self.arrays:
            raise DiffpolicyError(f"{self.path} has no {key}")
        return HeldArray(name, self.arrays[key])

    def check_chunks(self, array: HeldArray, rows: int, complete: bool) -> int:
        """No chunk is absent."""
        return 0


def hold(source: Source) -> tuple[HeldStore, np.ndarray]:
    """Read every episode into memory: a store, and the ends [E] of its episodes.

    Raises DiffpolicyError for episodes that differ in their arrays, and for more than the memory.
    """
    grown: dict[str, _Growing] = {}
    lengths = []
    bar = progress_bar(total=len(source), desc="read", unit="episode", delay=QUICK_S, leave=False)
    with bar:
        for episode in alike(source):
            arrays = {**episode.arrays, **episode.outcomes}
            grown = grown or {n: _Growing(np.asarray(x)) for n, x in arrays.items()}
            for name, values in arrays.items():
                grown[name].append(np.asarray(values))
            check_held(sum(values.nbytes for values in grown.values()), source.path)
            lengths.append(len(episode))
            bar.update(1)
    held = {name: values.taken() for name, values in grown.items()}
    return HeldStore(source.path, dict(source.attributes), held), np.cumsum(lengths, dtype=np.int64)


class _Growing:
    """Rows that are appended in place: the memory grows by blocks, without a second copy."""

    def __init__(self, first: np.ndarray):
        self.row, self.rows = first.shape[1:], 0
        self.values = np.empty((0, *self.row), first.dtype)
        self.step = max(1, GROWTH_BYTES // max(1, first[:1].nbytes))

    @property
    def nbytes(self) -> int:
        return self.values.nbytes

    def append(self, more: np.ndarray) -> None:
        needed = self.rows + len(more)
        if needed > len(self.values):
            room = -(-needed // self.step) * self.step
            self.values.resize((room, *self.row), refcheck=False)
        self.values[self.rows : needed] = more
        self.rows = needed

    def taken(self) -> np.ndarray:
        self.values.resize((self.rows, *self.row), refcheck=False)
        return self.values
