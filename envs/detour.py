"""Detour-v0: carry a tool around a post to a goal, on the left or on the right."""

# MuJoCo's bindings have no type stubs.
# pyright: reportAttributeAccessIssue=false

import cmath
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mujoco
import numpy as np
from gymnasium import spaces

from .cursor import cursor_over, point_under
from .simulation import SimulatedEnv

MODEL_PATH = Path(__file__).parent / "assets" / "detour.xml"

_MODEL = mujoco.MjModel.from_xml_path(str(MODEL_PATH))  # with the default arguments

# Points of the table are complex numbers, x + iy in m: x away from the shoulder, y to the left.
POST = complex(*_MODEL.geom("post").pos[:2])
LINK_M = float(_MODEL.body("forearm").pos[0])  # length of either link
HOME_RAD = np.array([-0.9, 1.8])  # joint angles of action 0
TOUCH_M = float(_MODEL.geom("post").size[0] + _MODEL.geom("tool").size[0])  # between the axes
GOAL_RADIUS_M = float(_MODEL.geom("goal").size[0])
GOAL_SPEED_M_S = 0.1

# Places of the tool and the goal at reset. There are few, so each occurs with both paths, and even
# a network that memorises the demonstrations learns their mean.
TOOL_X_M, TOOL_Y_M = 0.235, (-0.02, 0.0, 0.02)
GOAL_X_M, GOAL_Y_M = 0.63, (-0.03, 0.0, 0.03)

# Ranges of the expert, which draws one value for each episode.
CLEARANCE_M = (0.125, 0.145)  # between the axes of post and tool
SPEED_M_S = (0.55, 0.65)
SERVO_LAG_S = -float(_MODEL.actuator_biasprm[0, 2] / _MODEL.actuator_gainprm[0, 0])  # kv / kp


class DetourEnv(SimulatedEnv):
    """Carry a tool around a post with a two-link arm; both paths are equally good.

    ## Description

    A SCARA arm (two links of 0.4 m on vertical hinges) stands at the origin of a table. Its links
    pass over a post of radius 0.07 m at (0.42, 0), but the tool at its end, of radius 0.02 m, does
    not. The tool starts in front of the post, and the goal is behind it. The expert passes on the
    left or on the right with equal probability, independent of start and goal, so the mean of its
    actions hits the post within 0.3 s. There are only nine starts, so the first observation does
    not identify a demonstration either.

    x points away from the shoulder, y to the left, and angles grow anticlockwise. Control runs at
    20 Hz, the physics at 200 Hz.

    ## Action space

    `Box(-1, 1, (2,), float32)`: targets of the position servos of the joints, with torque limits of
    12 and 6 N·m. Actions beyond the bounds are clipped.

    | Num | Action                                       | Min  | Max | Unit |
    | --- | -------------------------------------------- | ---- | --- | ---- |
    | 0   | angle of the shoulder, from -0.9 rad         | -1   | 1   | rad  |
    | 1   | angle of the elbow, from 1.8 rad             | -1   | 1   | rad  |

    ## Observation space

    `Box(6, float64)`. The arm stays inside the bounds; observations beyond them would be clipped.

    | Num | Observation                            | Min  | Max | Unit  |
    | --- | -------------------------------------- | ---- | --- | ----- |
    | 0   | angle of the shoulder, 0 along x       | -π   | π   | rad   |
    | 1   | angle of the elbow, 0 if straight      | -π   | π   | rad   |
    | 2   | angular velocity of the shoulder       | -20  | 20  | rad/s |
    | 3   | angular velocity of the elbow          | -20  | 20  | rad/s |
    | 4   | x from the tool to the goal            | -1.5 | 1.5 | m     |
    | 5   | y from the tool to the goal            | -1.5 | 1.5 | m     |

    ## Reward

    1 on the tick of success, 0 otherwise.

    ## Starting state

    At rest, with the targets of the servos at the joint angles. The tool is at x = 0.235 m and y =
    -0.02, 0 or 0.02 m, the goal at x = 0.63 m and y = -0.03, 0 or 0.03 m, with equal probability.

    ## Episode end

    - Termination by success: the tool is within 0.03 m of the goal and slower than 0.1 m/s.
    - Termination by failure: the tool touches the post, that is, the distance of their axes is less
      than 0.09 m, the sum of their radii. It is computed from the joint angles after each physics
      step, and ends the tick.
    - Truncation: `gymnasium.make` truncates after 60 ticks (3 s); the expert takes about 1.1 s.

    `info["success"]` is True on the tick of success. `info["score"]` is 1 − d / d₀, at least 0, for
    a distance d to the goal that was d₀ at the start, and 1 on success.

    ## Arguments

    | Parameter           | Default | Meaning                                                  |
    | ------------------- | ------- | -------------------------------------------------------- |
    | `payload_kg`        | 0.2     | mass at the tool, 0 to 2; the links have 1.2 and 0.8 kg  |
    | `joint_friction_nm` | 0       | dry friction of each joint in N·m, up to 5               |
    | `sensor_noise`      | 0       | standard deviation of the noise on observations, in      |
    |                     |         | units of 0.1°, 1 °/s and 1 mm                            |
    | `actuation_delay`   | 0       | ticks until an action reaches the servos                 |
    | `render_mode`       | `None`  | `"rgb_array"` or `None`; a touched post turns bright red |

    ## Version history

    - v0: first version.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 20}  # noqa: RUF012
    control_dt_s = 0.05
    position_targets = True
    sensor_units = np.array([*np.radians([0.1, 0.1, 1.0, 1.0]), 1e-3, 1e-3])
    episode_attributes = ("goal", "start_distance_m")

    def __init__(
        self,
        payload_kg: float = 0.2,
        joint_friction_nm: float = 0.0,
        sensor_noise: float = 0.0,
        actuation_delay: int = 0,
        render_mode: str | None = None,
    ):
        model = mujoco.MjModel.from_xml_path(str(MODEL_PATH))
        super().__init__(model, sensor_noise, actuation_delay, render_mode)
        bounds = np.array([np.pi, np.pi, 20.0, 20.0, 1.5, 1.5])
        self.observation_space = spaces.Box(-bounds, bounds, dtype=np.float64)
        self.action_space = spaces.Box(-1.0, 1.0, (2,), np.float32)
        self._substeps = round(self.control_dt_s / self.model.opt.timestep)
        self._place(0.0, 0.0)
        self._set_up_model(payload_kg, joint_friction_nm)

    @property
    def neutral_action(self) -> np.ndarray:
        """Newest targets of the servos [2]; after a reset, the initial pose."""
        return self._latest(self._followed)

    @property
    def cursor(self) -> np.ndarray:
        """Cursor over the foot of the tool, see `action_from_cursor`."""
        tool = tool_position(self.data.qpos)
        return cursor_over(self.model, self.camera, (tool.real, tool.imag, 0.0))

    def action_from_cursor(self, cursor: np.ndarray) -> np.ndarray:
        """Joint targets [2] for the tool under a cursor [2]: x from the left, y from the top."""
        return action_towards(complex(*point_under(self.model, self.camera, cursor, 0.0)))

    @property
    def _followed(self) -> np.ndarray:
        return (self.data.ctrl - HOME_RAD).astype(np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Start an episode; return the observation [D_o] and `info`."""
        self._begin(seed)
        tool_y, goal_y = self.np_random.choice(TOOL_Y_M), self.np_random.choice(GOAL_Y_M)
        self._place(float(tool_y), float(goal_y))
        return self._sensed(self._observation()), self._info(success=False)

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Advance one control tick; the observation has shape [D_o]."""
        target = np.clip(action, -1.0, 1.0).astype(np.float32)
        self.data.ctrl[:] = HOME_RAD + self._actuated(target, self._followed)
        touched = self._advance()
        success = not touched and self._arrived()
        observation = self._sensed(self._observation())
        return observation, float(success), success or touched, False, self._info(success)

    def expert(self, rng: np.random.Generator) -> Callable[[np.ndarray], np.ndarray]:
        """Take the shortest path around a disc about the post: observation [6] -> action [2].

        `rng` draws the side, the radius of the disc and the speed.
        """
        side = int(rng.choice((-1, 1)))
        clearance_m, speed_m_s = rng.uniform(*CLEARANCE_M), rng.uniform(*SPEED_M_S)
        return detour(side, clearance_m, speed_m_s)

    def _advance(self) -> bool:
        """Advance one control tick; stop early and return True if the tool touches the post."""
        for _ in range(self._substeps):
            mujoco.mj_step(self.model, self.data)
            if self._touching():
                return True
        return False

    def _place(self, tool_y: float, goal_y: float) -> None:
        self.goal = complex(GOAL_X_M, goal_y)
        start = action_towards(complex(TOOL_X_M, tool_y))
        self.data.qpos[:] = self.data.ctrl[:] = HOME_RAD + start
        self.start_distance_m = self._distance_m()

    def _set_up_model(self, payload_kg: float, joint_friction_nm: float) -> None:
        if not 0 <= payload_kg <= 2:
            raise ValueError(f"payload_kg must be between 0 and 2; got {payload_kg}")
        if not 0 <= joint_friction_nm <= 5:
            raise ValueError(f"joint_friction_nm must be between 0 and 5; got {joint_friction_nm}")
        self.model.body("tool").mass = payload_kg
        self.model.dof_frictionloss[:] = joint_friction_nm
        mujoco.mj_setConst(self.model, self.data)

    def _pose_picture(self) -> None:
        self.data.mocap_pos[0, :2] = self.goal.real, self.goal.imag
        post = "touched" if self._touching() else "post"
        self.model.geom("post").matid = self.model.material(post).id

    def _touching(self) -> bool:
        return abs(tool_position(self.data.qpos) - POST) < TOUCH_M

    def _arrived(self) -> bool:
        slow = abs(tool_velocity(self.data.qpos, self.data.qvel)) < GOAL_SPEED_M_S
        return slow and self._distance_m() <= GOAL_RADIUS_M

    def _distance_m(self) -> float:
        return abs(self.goal - tool_position(self.data.qpos))

    def _observation(self) -> np.ndarray:
        way = self.goal - tool_position(self.data.qpos)
        observation = np.array([*self.data.qpos, *self.data.qvel, way.real, way.imag])
        space: Any = self.observation_space
        return observation.clip(space.low, space.high)

    def _info(self, success: bool) -> dict[str, Any]:
        covered = max(0.0, 1.0 - self._distance_m() / self.start_distance_m)
        return {"success": success, "score": 1.0 if success else covered}


def tool_position(qpos: np.ndarray) -> complex:
    """Position of the tool in m, for joint angles [2]."""
    shoulder, elbow = qpos.tolist()
    return cmath.rect(LINK_M, shoulder) + cmath.rect(LINK_M, shoulder + elbow)


def tool_velocity(qpos: np.ndarray, qvel: np.ndarray) -> complex:
    """Time derivative of `tool_position`, m/s."""
    (shoulder, elbow), (shoulder_rate, elbow_rate) = qpos.tolist(), qvel.tolist()
    upper_arm = 1j * shoulder_rate * cmath.rect(LINK_M, shoulder)
    return upper_arm + 1j * (shoulder_rate + elbow_rate) * cmath.rect(LINK_M, shoulder + elbow)


def joint_angles(tool: complex) -> np.ndarray:
    """Inverse of `tool_position` with the elbow on the right; a straight arm beyond its reach."""
    elbow = 2 * math.acos(min(abs(tool) / (2 * LINK_M), 1.0))
    return np.array([_angle(tool) - elbow / 2, elbow])


def action_towards(tool: complex) -> np.ndarray:
    """Action whose targets are the joint angles for a position of the tool, clipped."""
    return np.clip(joint_angles(tool) - HOME_RAD, -1.0, 1.0).astype(np.float32)


def detour(side: int, clearance_m: float, speed_m_s: float) -> Callable[[np.ndarray], np.ndarray]:
    """Expert, observation [6] -> action [2], that passes on `side`: +1 is left, -1 is right."""

    def act(observation: np.ndarray) -> np.ndarray:
        tool = tool_position(observation[:2])
        way = complex(*observation[4:])
        bearing = detour_bearing(POST - tool, way, side, clearance_m)
        lead_m = min(speed_m_s * SERVO_LAG_S, abs(way))
        return action_towards(tool + cmath.rect(lead_m, bearing))

    return act


def detour_bearing(to_post: complex, to_goal: complex, side: int, clearance_m: float) -> float:
    """Initial direction (rad) of the shortest path to the goal past the disc on `side`.

    It is straight to the goal, or along the tangent on that side if the disc is in between.
    """
    half_angle = math.asin(min(clearance_m / abs(to_post), 1.0))
    between = abs(_angle(to_goal * to_post.conjugate()))
    if between < half_angle and abs(to_goal) > abs(to_post) * math.cos(half_angle):
        return _angle(to_post) + side * half_angle
    return _angle(to_goal)


def _angle(z: complex) -> float:
    """Angle (rad) of z; cmath.phase raises an error for subnormal numbers."""
    return math.atan2(z.imag, z.real)
