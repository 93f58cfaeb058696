"""The T of Push-T: its shape, its poses and what is observed of it, as pure functions."""

import numpy as np

from .planar import Box, Pose, shared_area, transform

UNITS_PER_PX = 0.01
QPOS_SCALE = np.array([UNITS_PER_PX] * 4 + [1.0])  # four positions and an angle

BLOCK: tuple[Box, ...] = ((-60.0, 0.0, 60.0, 30.0), (-15.0, 30.0, 15.0, 120.0))  # bar, stem
BLOCK_AREA_PX2 = 120.0 * 30.0 + 30.0 * 90.0
CENTRE_OF_MASS_PX = 45.0  # down the stem from the block's origin, the middle of the bar's top

# Where the human demonstrations have their nine points, in the block's frame.
KEYPOINTS_PX = np.array(
    [
        [9.269787, 90.040974],
        [-60.983472, -1.186730],
        [60.912755, -1.393363],
        [-0.270504, 25.543625],
        [-14.064927, 122.815854],
        [39.002738, 32.857404],
        [-39.966414, 32.729655],
        [-16.824344, 62.863179],
        [23.541461, -1.700288],
    ]
)


def coverage(block: Pose, goal: Pose) -> float:
    """area(block ∩ goal) / area(goal)"""
    return shared_area(BLOCK, block, goal) / BLOCK_AREA_PX2


def qpos_from_state(state: np.ndarray) -> np.ndarray:
    """Agent x, y, block x, y, angle (px, rad) → joints, which turn about the centre of mass."""
    *agent, x, y, angle = state.tolist()
    [centre] = transform([(0.0, CENTRE_OF_MASS_PX)], (x, y, angle))
    return np.array([*agent, *centre, angle]) * QPOS_SCALE


def state_from_qpos(qpos: np.ndarray) -> np.ndarray:
    """The inverse of `qpos_from_state`."""
    *agent, x, y, angle = (qpos / QPOS_SCALE).tolist()
    [origin] = transform([(0.0, -CENTRE_OF_MASS_PX)], (x, y, angle))
    return np.array([*agent, *origin, angle])


def keypoints_from_state(state: np.ndarray) -> np.ndarray:
    """Nine points on the block, px: [..., 5] → [..., 9, 2]."""
    cos, sin = np.cos(state[..., 4, None]), np.sin(state[..., 4, None])
    u, v = KEYPOINTS_PX.T
    points = np.stack([cos * u - sin * v, sin * u + cos * v], axis=-1)
    return points + state[..., None, 2:4]


def state_observation(state: np.ndarray) -> np.ndarray:
    """[..., 5] → [..., 6], the angle as its cosine and sine: it jumps at 2π, they do not."""
    angle = state[..., 4:]
    parts = [state[..., :4], np.cos(angle), np.sin(angle)]
    return np.concatenate(parts, axis=-1).astype(np.float32)


def keypoint_observation(keypoint: np.ndarray, state: np.ndarray) -> np.ndarray:
    """[..., 9, 2] and [..., 5] → [..., 20]: the block's points, then the agent."""
    flat = keypoint.reshape(*keypoint.shape[:-2], -1)
    return np.concatenate([flat, state[..., :2]], axis=-1).astype(np.float32)
