"""Observations of Push-T: their spaces, and how states and recorded arrays become observations."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium import spaces

from .pusht_picture import SIDE_PX

# Recorded arrays of each kind of observation, and the shape of their rows.
DEMONSTRATION_ARRAYS = {
    "state": ("state",),
    "keypoint": ("keypoint", "state"),
    "image": ("img", "state"),
}
PICTURE = (SIDE_PX, SIDE_PX, 3)
ROW_SHAPES = {"state": (5,), "keypoint": (9, 2), "img": PICTURE}

# px; for the last two of a state, cosine and sine.
SENSOR_UNITS: dict[str, Any] = {
    "state": np.array([1.0] * 4 + [0.01] * 2),
    "keypoint": np.ones(20),
    "image": {"agent_pos": np.ones(2)},  # pictures are without noise
}

# Bounds of positions. They are never reached: the agent stays within its targets, and the block
# within the walls but for the depth to which the agent presses it into them.
LOW_PX, HIGH_PX = -512.0, 1024.0

# The nine points of the human demonstrations, in the frame of the block.
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


def observation_space(kind: str) -> spaces.Box | spaces.Dict:
    """Space of one kind of observation."""
    if kind == "image":
        agent = spaces.Box(LOW_PX, HIGH_PX, (2,), np.float32)
        return spaces.Dict({"agent_pos": agent, "image": spaces.Box(0, 255, PICTURE, np.uint8)})
    low, high = np.full((2, 20 if kind == "keypoint" else 6), [[LOW_PX], [HIGH_PX]])
    if kind == "state":
        low[4:], high[4:] = -1.0, 1.0
    return spaces.Box(low.astype(np.float32), high.astype(np.float32), dtype=np.float32)


def observations_from(kind: str, arrays: Mapping[str, Any]) -> Any:
    """Map recorded arrays of N rows to observations: [N, D_o], or {key: [N, …]} of pictures.

    `img` must be uint8 and is returned as it is. Raises ValueError for other arrays.
    """
    recorded = {name: _recorded(arrays, name) for name in DEMONSTRATION_ARRAYS[kind]}
    state = np.asarray(recorded["state"], np.float64)
    if kind == "image":
        return {"agent_pos": agent_observation(state), "image": recorded["img"]}
    if kind == "keypoint":
        return keypoint_observation(np.asarray(recorded["keypoint"], np.float64), state)
    return state_observation(state)


def agent_observation(state: np.ndarray) -> np.ndarray:
    """Position of the agent [..., 2] of a state [..., 5]."""
    return state[..., :2].astype(np.float32)


def keypoints_from_state(state: np.ndarray) -> np.ndarray:
    """Nine points on the nominal block, px: state [..., 5] → [..., 9, 2]."""
    cos, sin = np.cos(state[..., 4, None]), np.sin(state[..., 4, None])
    u, v = KEYPOINTS_PX.T
    points = np.stack([cos * u - sin * v, sin * u + cos * v], axis=-1)
    return points + state[..., None, 2:4]


def state_observation(state: np.ndarray) -> np.ndarray:
    """Observation [..., 6] of a state [..., 5], with the cosine and sine of the angle."""
    angle = state[..., 4:]
    parts = [state[..., :4], np.cos(angle), np.sin(angle)]
    return np.concatenate(parts, axis=-1).astype(np.float32)


def keypoint_observation(keypoint: np.ndarray, state: np.ndarray) -> np.ndarray:
    """Observation [..., 20] of keypoints [..., 9, 2] and a state [..., 5]: points, then agent."""
    flat = keypoint.reshape(*keypoint.shape[:-2], -1)
    return np.concatenate([flat, state[..., :2]], axis=-1).astype(np.float32)


def state_from_observation(observation: np.ndarray) -> np.ndarray:
    """State [5] from either kind of observation."""
    if len(observation) == 6:
        *agent_and_origin, cos, sin = observation.tolist()
        return np.array([*agent_and_origin, np.arctan2(sin, cos)])
    # Rigid motion with the least squared distance of the nine points (Procrustes).
    seen, own = observation[:18].reshape(9, 2) @ [1, 1j], KEYPOINTS_PX @ [1, 1j]
    turn = np.vdot(own - own.mean(), seen - seen.mean())
    turn /= abs(turn)
    origin = seen.mean() - turn * own.mean()
    return np.array([*observation[18:], origin.real, origin.imag, np.angle(turn)])


def _recorded(arrays: Mapping[str, Any], name: str) -> Any:
    if name not in arrays:
        needs = "; ".join(
            f"observation='{kind}' needs {' and '.join(map(_described, names))}"
            for kind, names in DEMONSTRATION_ARRAYS.items()
        )
        raise ValueError(f"recorded array '{name}' is missing; got {sorted(arrays)}; {needs}")
    array = arrays[name] if hasattr(arrays[name], "dtype") else np.asarray(arrays[name])
    if array.shape[1:] != ROW_SHAPES[name]:
        raise ValueError(f"each row of '{name}' must be {ROW_SHAPES[name]}; got {array.shape[1:]}")
    if name == "img" and array.dtype != np.uint8:
        raise ValueError(
            f"'img' must be uint8 of 0 to 255; got {array.dtype}; try numpy.rint(img).astype('u1')"
        )
    return array


def _described(name: str) -> str:
    return f"'{name}' {['N', *ROW_SHAPES[name]]}".replace("'N'", "N")
