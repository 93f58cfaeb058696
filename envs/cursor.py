"""Cursor on the picture of a fixed camera, and the point of the world under it.

A cursor [2] is x from the left and y from the top of the picture, each in [0, 1].
"""

# MuJoCo's bindings have no type stubs.
# pyright: reportAttributeAccessIssue=false

import math
from typing import Any

import mujoco
import numpy as np


def point_under(
    model: mujoco.MjModel, camera: str, cursor: np.ndarray, height_m: float
) -> np.ndarray:
    """Point [2], x and y, on the horizontal plane z = height_m that the picture shows there."""
    at, rotation, half = _optics(model, camera)
    x, y = cursor
    ray = rotation @ np.array([(2 * x - 1) * half[0], (1 - 2 * y) * half[1], -1.0])
    return (at + (height_m - at[2]) / ray[2] * ray)[:2]


def cursor_over(model: mujoco.MjModel, camera: str, point: Any) -> np.ndarray:
    """Cursor [2] over a point [3] of the world; the inverse of `point_under`."""
    at, rotation, half = _optics(model, camera)
    x, y, z = rotation.T @ (np.asarray(point) - at)
    return np.array([1 + x / (-z * half[0]), 1 - y / (-z * half[1])]) / 2


def _optics(model: mujoco.MjModel, camera: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Position, rotation [3, 3], and tangents [2] of half the angles of view, x and y."""
    fixed, size = model.camera(camera), model.vis.global_
    tangent = math.tan(math.radians(float(fixed.fovy[0])) / 2)
    half = np.array([tangent * size.offwidth / size.offheight, tangent])
    return fixed.pos0, fixed.mat0.reshape(3, 3), half
