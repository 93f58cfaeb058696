"""Pictures that stay on disk: indexed as uint8 [N, H, W, C], without being held in memory.

Shapes: N rows, H and W px, C channels.
"""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from diffpolicy.data import pictures
from diffpolicy.data.zarr_store import blocks, reading
from diffpolicy.errors import DiffpolicyError
from diffpolicy.specification import picture_shape

LARGE_CHUNK_BYTES = 2**22  # to decode for one window: several ms


class StoredPictures:
    """Rows of a zarr array, with the bytes that `read_pictures` would hold.

    shape: [N, H, W, C]. nbytes: in memory, none. factor: 1, or 255 for numbers in [0, 1]. Raises
    NotPictures for other numbers, and DiffpolicyError when a damaged chunk is read.
    """

    dtype, ndim, nbytes = np.dtype(np.uint8), 4, 0

    def __init__(self, array: Any, rows: int, what: str):
        row = array.shape[1:]
        self.shape = (rows, *(picture_shape(row) or row))
        self.what, self._array = what, array
        self._channels_first = self.shape[1:] != row
        self.factor = 1 if array.dtype == np.uint8 else pictures.checked_factor(array, rows, what)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Any) -> np.ndarray:
        """Pictures of an array of row numbers in any shape: [*rows.shape, H, W, C]."""
        rows = np.asarray(rows)
        unique, places = np.unique(rows, return_inverse=True)
        with reading(self.what):
            block = self._array.oindex[unique]
        return self._converted(block)[places.reshape(rows.shape)]

    def __array__(self, *_: Any, **__: Any) -> np.ndarray:
        raise DiffpolicyError(
            f"{self.what} is read from disk in training, and something needs all of it in memory; "
            "give a larger --picture-memory"
        )

    def blocks(self) -> Iterator[np.ndarray]:
        """All pictures in order, a block at a time."""
        for _, block in blocks(self._array, len(self), self.what, pictures.BLOCK_BYTES):
            yield self._converted(block)

    def _converted(self, block: np.ndarray) -> np.ndarray:
        block = np.moveaxis(block, 1, 3) if self._channels_first else block
        if self._array.dtype == np.uint8:
            return np.ascontiguousarray(block)
        converted = np.empty(block.shape, np.uint8)
        if pictures.convert(block, converted, self.factor) == pictures.UNFIT:
            raise DiffpolicyError(f"{self.what} was changed while it was read")
        return converted


def stored_pictures(array: Any, rows: int, what: str) -> tuple[StoredPictures, list[str]]:
    """Pictures on disk, and notes: on their conversion, and on chunks that are slow to decode."""
    found = StoredPictures(array, rows, what)
    notes = pictures.conversion_notes(array, found.factor)
    size = math.prod(array.chunks) * array.dtype.itemsize
    if size > LARGE_CHUNK_BYTES:
        notes.append(
            f"{array.path}: chunks of {array.chunks[0]:,} pictures ({size / 1e6:,.0f} MB) are "
            "decoded for each window; 'diffpolicy import' makes small ones, for faster training"
        )
    return found, notes
