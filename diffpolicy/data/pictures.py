"""Pictures of a store: recognised by their shape, held in memory as uint8 [N, H, W, C].

Shapes: N rows, H and W px, C channels (1, 3 or 4). Stored pictures have C last or first and hold
whole numbers from 0 to 255, or numbers in [0, 1]. They are read and converted block by block, so
the peak of memory is that of the uint8 array and one block.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from tqdm import tqdm

from diffpolicy.data.zarr_store import blocks, check_memory, reading
from diffpolicy.errors import DiffpolicyError
from diffpolicy.specification import picture_shape
from diffpolicy.terminal.progress import progress_bar

WHITE, UNFIT = 255, 0
BLOCK_BYTES = 2**24
QUICK_S = 1.0  # a read that takes longer shows a bar
REMEDY = "store it as uint8 from 0 to 255"


class NotPictures(DiffpolicyError):
    """Numbers in the shape of pictures that are not, or not surely, pictures."""


def held_bytes(array: Any, rows: int) -> int:
    """Bytes of the first rows of a zarr array as uint8; 0 if they are not pictures."""
    return rows * math.prod(picture_shape(array.shape[1:]) or (0,))


def read_pictures(array: Any, rows: int, what: str) -> tuple[np.ndarray, list[str]]:
    """The first rows of a zarr array as uint8 [N, H, W, C], and notes on their conversion.

    what: name of the array in error messages. Raises NotPictures for numbers of another range, and
    for nothing but 0 and 1, which may be black and white or nearly black.
    """
    check_memory(array, rows, what, itemsize=1)
    row = array.shape[1:]
    with reading(what):
        pictures = np.empty((rows, *(picture_shape(row) or row)), np.uint8)
    factor, known_from = _fill(array, rows, what, lambda start, count: pictures[start:][:count])
    if factor == WHITE:
        pictures[:known_from] *= np.uint8(WHITE)
    return pictures, conversion_notes(array, factor)


def checked_factor(array: Any, rows: int, what: str) -> int:
    """Factor of the numbers of pictures, 1 or 255, from a read of all that keeps none of them."""
    shape = picture_shape(array.shape[1:]) or array.shape[1:]
    return _fill(array, rows, what, lambda _, count: np.empty((count, *shape), np.uint8))[0] or 1


def conversion_notes(array: Any, factor: int | None) -> list[str]:
    """A note on numbers in [0, 1]."""
    note = f"{array.path}: numbers in [0, 1] are held as uint8, round(255 x)"
    return [note] if factor == WHITE else []


def _fill(
    array: Any, rows: int, what: str, place: Callable[[int, int], np.ndarray]
) -> tuple[int | None, int]:
    """Write all blocks to place(first row, count); return the factor and the row it is known from.

    Rows before it hold nothing but 0 and 1, as they are.
    """
    channels_first = (picture_shape(array.shape[1:]) or array.shape[1:]) != array.shape[1:]
    factor, known_from, black = (1 if array.dtype.kind in "iu" else None), 0, True
    with _bar(array.path, held_bytes(array, rows)) as bar:
        for start, block in blocks(array, rows, what, BLOCK_BYTES):
            target = place(start, len(block))
            block = np.moveaxis(block, 1, 3) if channels_first else block
            known, factor = factor, convert(block, target, factor)
            if factor == UNFIT:
                raise NotPictures(f"{what} {_reason(block, known, start)}")
            known_from = start if known is None else known_from
            black = black and not (factor is None and target.any())
            bar.update(target.nbytes)
            del block  # before the next one is read
    if factor is None and not black:
        raise NotPictures(
            f"{what} holds nothing but 0 and 1, where 1 may be white or nearly black; {REMEDY}"
        )
    return factor, known_from


def convert(block: np.ndarray, target: np.ndarray, factor: int | None) -> int | None:
    """Write pictures into target, uint8 of their shape; return the factor of their numbers.

    The factor is 1 for whole numbers, 255 for numbers in [0, 1], None as long as all were 0 or 1,
    which are written as they are, and UNFIT for numbers that are neither.
    """
    if factor != WHITE:
        with np.errstate(invalid="ignore"):  # NaN and inf differ from every whole number
            np.copyto(target, block, casting="unsafe")
        if np.array_equal(target, block):
            return factor or (1 if target.max() > 1 else None)
    if factor != 1 and block.min() >= 0 and block.max() <= 1:
        target[:] = np.rint(WHITE * block)
        return WHITE
    return UNFIT


def _reason(block: np.ndarray, factor: int | None, start: int) -> str:
    """Row and value of the first number that `convert` does not take, and a remedy."""
    wrong = ~np.isfinite(block)
    if wrong.any():
        return f"is not finite (NaN or inf) at row {start + int(np.argwhere(wrong)[0, 0])}"
    wrong = (block < 0) | (block > (1 if factor == WHITE else WHITE))
    if factor != WHITE:
        wrong |= block != np.rint(block)
    place = np.unravel_index(int(wrong.argmax()), block.shape)
    rows = {1: ", after whole numbers", WHITE: ", after numbers in [0, 1]"}.get(factor or 0, "")
    return (
        "does not hold pictures; expected whole numbers from 0 to 255, or numbers in [0, 1]; got "
        f"{block[place]:g} at row {start + int(place[0])}{rows}; {REMEDY}"
    )


def _bar(name: str, size: int) -> tqdm:
    """Progress in bytes, shown if reading takes long."""
    options: dict[str, Any] = {"unit": "B", "unit_scale": True, "delay": QUICK_S, "leave": False}
    return progress_bar(total=size, desc=f"read {name}", **options)
