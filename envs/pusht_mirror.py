"""Reflection of Push-T at the diagonal x + y = 512: (x, y) → (512 - y, 512 - x).

The block is its own mirror image at its own axis, so its angle becomes π/2 - angle, and each
keypoint the image of the point across that axis. The walls are symmetric but for a pixel.
"""

import math
from collections.abc import Callable

import numpy as np

from .planar import Pose
from .pusht_observations import KEYPOINTS_PX

TABLE_PX = 512.0  # side

# Points (-u, v) across the axis of the block, as affine combinations of the nine points (u, v):
# I - 2 u (A⁺)₁ with A = [u, v, 1]. Applied twice, it is the identity, also of points with noise.
_AFFINE = np.column_stack([KEYPOINTS_PX, np.ones(9)])
ACROSS_AXIS = np.eye(9) - 2 * np.outer(KEYPOINTS_PX[:, 0], np.linalg.pinv(_AFFINE)[0])

Reflection = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]


def reflection(kind: str, goal_pose: Pose) -> Reflection | None:
    """Function observations [N, D_o], actions [N, 2] -> their mirror images.

    None for pictures, and for a goal that is not its own image.
    """
    x, y, angle = goal_pose
    symmetric = math.isclose(x + y, TABLE_PX) and math.isclose(math.tan(angle), 1, rel_tol=1e-5)
    return {"state": _states, "keypoint": _keypoints}.get(kind) if symmetric else None


def _states(observations: np.ndarray, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    agent, origin, turn = np.split(observations, (2, 4), axis=1)
    return _row(_across(agent), _across(origin), turn[:, ::-1]), _across(actions)


def _keypoints(observations: np.ndarray, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    points = ACROSS_AXIS @ observations[:, :18].reshape(-1, 9, 2)
    return _row(_across(points).reshape(-1, 18), _across(observations[:, 18:])), _across(actions)


def _row(*parts: np.ndarray) -> np.ndarray:
    return np.concatenate(parts, axis=1).astype(np.float32)


def _across(points: np.ndarray) -> np.ndarray:
    """Points [..., 2] across the diagonal."""
    return TABLE_PX - points[..., ::-1]
