"""Evenly spaced pictures of one episode of a store, a strip for each camera."""

from typing import Any

import numpy as np

from diffpolicy.data.demonstrations import Contents
from diffpolicy.data.pictures import UNFIT, WHITE, convert
from diffpolicy.data.zarr_store import reading
from diffpolicy.errors import DiffpolicyError
from diffpolicy.specification import picture_shape

MOST_CAMERAS, PICTURES = 4, 9


def strips(source: Contents) -> tuple[list[tuple[str, np.ndarray, list[int]]], int]:
    """(array, pictures uint8 [n, H, W, C], their steps) of the cameras; the episode they are of.

    The episode is one of median length. Arrays that cannot be read or hold no pictures are left
    out.
    """
    lengths = np.diff(source.ends, prepend=0)
    episode = int(np.argsort(lengths, kind="stable")[len(lengths) // 2])
    start = int(source.ends[episode] - lengths[episode])
    steps = np.unique(np.linspace(0, lengths[episode] - 1, PICTURES).round().astype(int)).tolist()
    found = []
    for name in source.names:
        pictures = _pictures(source, name, [start + step for step in steps])
        if pictures is not None and len(found) < MOST_CAMERAS:
            found.append((name, pictures, steps))
    return found, episode


def _pictures(source: Contents, name: str, rows: list[int]) -> np.ndarray | None:
    try:
        array, _ = source.array(name)
        shape = picture_shape(array.shape[1:])
        if shape is None:
            return None
        with reading(name):
            stored: Any = np.stack([array[row] for row in rows])
    except DiffpolicyError:
        return None
    if shape != array.shape[1:]:
        stored = np.moveaxis(stored, 1, 3)
    pictures = np.empty((len(rows), *shape), np.uint8)
    factor = convert(stored, pictures, None)
    if factor == UNFIT:
        return None
    return pictures if factor else pictures * np.uint8(WHITE)
