"""Devices that move a cursor over the picture: mouse and arrow keys.

A cursor [2] is x from the left and y from the top of the picture, each in [0, 1].
"""

from collections.abc import Iterable

import numpy as np

KEY_SPEED = 0.4  # pictures a second
DIRECTIONS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}


def from_mouse(position_px: tuple[int, int], size_px: tuple[int, int]) -> np.ndarray:
    """Cursor [2] under a mouse at a position in a picture of width and height in px."""
    return np.clip(np.asarray(position_px) / np.asarray(size_px), 0.0, 1.0)


def from_keys(cursor: np.ndarray, held: Iterable[str], seconds: float) -> np.ndarray:
    """Cursor [2] after so many seconds with arrow keys held; diagonals are not faster."""
    direction = np.sum([DIRECTIONS[key] for key in held] or [(0, 0)], axis=0)
    length = np.linalg.norm(direction)
    step = direction / length * KEY_SPEED * seconds if length else 0.0
    return np.clip(cursor + step, 0.0, 1.0)
