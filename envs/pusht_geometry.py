"""Poses of the block, distances from it, and the table, in complex numbers.

Points and rotations of the plane are complex numbers: rotation by θ is multiplication by e^iθ. A
pose is the place of the block's centre of mass and its rotation. Lengths are in px.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .planar import Box, corners
from .pusht_block import Block

TABLE = 512.0
Points = NDArray[np.complex128]


@dataclass(frozen=True)
class Poses:
    """Array of poses: places and rotations."""

    place: Points
    turn: Points

    def __getitem__(self, index: Any) -> "Poses":
        return Poses(self.place[index], self.turn[index])

    def __matmul__(self, inner: "Poses") -> "Poses":
        """Compose: poses `inner`, given in the frames of these, in the outer frame."""
        return Poses(self.outer(inner.place), self.turn * inner.turn)

    def outer(self, points: Any) -> Any:
        """Points given in the frames of these poses, in the outer frame."""
        return self.place + self.turn * points

    def inner(self, points: Any) -> Any:
        """Points given in the outer frame, in the frames of these poses."""
        return (points - self.place) / self.turn

    def vectors(self, block: Block) -> np.ndarray:
        """Vectors [..., 4] whose distance is the RMS distance of the points of the block."""
        turn = np.sqrt(block.gyration_px2) * self.turn
        return np.stack([self.place.real, self.place.imag, turn.real, turn.imag], axis=-1)


STILL = Poses(np.zeros(1, complex), np.ones(1, complex))


def corner_points(boxes: Sequence[Box], outset: float = 0.0) -> Points:
    """Corners [4 M] of M boxes, each enlarged by `outset` on every side."""
    larger = np.array(boxes) + outset * np.array([-1, -1, 1, 1])
    return np.array([corners(box) for box in larger.tolist()]).reshape(-1, 2) @ np.array([1, 1j])


def nearest(points: Points, boxes: Sequence[Box]) -> Points:
    """Nearest points of the boxes."""
    of_each = [
        points.real.clip(x_min, x_max) + 1j * points.imag.clip(y_min, y_max)
        for x_min, y_min, x_max, y_max in boxes
    ]
    return np.choose(np.argmin([abs(points - near) for near in of_each], axis=0), of_each)


def clearance(points: Points, boxes: Sequence[Box]) -> np.ndarray:
    """Distances from the boxes, 0 inside."""
    return abs(points - nearest(points, boxes))


def on_table(points: Points) -> np.ndarray:
    """Mask of the points on the table."""
    middle = points - (1 + 1j) * TABLE / 2
    return np.maximum(abs(middle.real), abs(middle.imag)) <= TABLE / 2
