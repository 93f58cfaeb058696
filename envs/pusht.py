"""PushT-v0: push a T-shaped block onto a goal pose."""

# MuJoCo's bindings have no type stubs.
# pyright: reportAttributeAccessIssue=false

import math
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

import mujoco
import numpy as np
from gymnasium import spaces

from .cursor import cursor_over, point_under
from .planar import Pose
from .pusht_block import QPOS_SCALE, UNITS_PER_PX, Block, block_model
from .pusht_expert import Pusher
from .pusht_mirror import TABLE_PX, Reflection, reflection
from .pusht_observations import (
    DEMONSTRATION_ARRAYS,
    SENSOR_UNITS,
    agent_observation,
    keypoint_observation,
    keypoints_from_state,
    observation_space,
    observations_from,
    state_from_observation,
    state_observation,
)
from .pusht_picture import Painter
from .simulation import SimulatedEnv

# Agent x, y, centre of mass x, y and angle of the block, as in the human demonstrations: the
# original draws x, y in [100, 400] and places the block before it rotates it, so the drawn point is
# the centre of mass minus that of the upright block, (0, 45).
START_LOW = (50.0, 50.0, 100.0, 145.0, -math.pi)
START_HIGH = (450.0, 450.0, 400.0, 445.0, math.pi)
SUCCESS_COVERAGE = 0.95

NOMINAL = Block()


class PushTEnv(SimulatedEnv):
    """Push a T-shaped block onto a goal pose with a round agent.

    ## Description
    A round agent (radius 15 px) pushes a T-shaped block over a table of 512 × 512 px until it
    covers a goal pose. The task, its units and its scores are those of Push-T in Diffusion Policy
    (Chi et al., RSS 2023, https://arxiv.org/abs/2303.04137), after Florence et al., "Implicit
    Behavioral Cloning", 2021; the physics is MuJoCo's instead of pymunk's. x points right, y down.
    Control runs at 10 Hz.

    Replaying the 206 human demonstrations open-loop reaches a coverage of 0.85 / 0.90 / 0.95 in
    98.5 / 44.7 / 3.4 % of the episodes (99.5 / 47 / 3.4 % in pymunk).

    ## Action Space
    `Box(0, 512, (2,), float32)`: the target of the agent, which a spring and a damper pull there.
    Actions beyond the table are clipped.

    | Num | Action                 | Min | Max | Unit |
    |-----|------------------------|-----|-----|------|
    | 0   | target x of the agent  | 0   | 512 | px   |
    | 1   | target y of the agent  | 0   | 512 | px   |

    ## Observation Space
    `observation="state"`: `Box((6,), float32)`. The origin of the block is the
    middle of the top of its bar.

    | Num | Observation             | Min  | Max  | Unit |
    |-----|-------------------------|------|------|------|
    | 0   | x of the agent          | -512 | 1024 | px   |
    | 1   | y of the agent          | -512 | 1024 | px   |
    | 2   | x of the block's origin | -512 | 1024 | px   |
    | 3   | y of the block's origin | -512 | 1024 | px   |
    | 4   | cos of the block's angle| -1   | 1    |      |
    | 5   | sin of the block's angle| -1   | 1    |      |

    `observation="keypoint"`: `Box((20,), float32)`.

    | Num   | Observation                                          | Min  | Max  | Unit |
    |-------|------------------------------------------------------|------|------|------|
    | 0–17  | x, y of nine points on the block, as in the human set| -512 | 1024 | px   |
    | 18    | x of the agent                                       | -512 | 1024 | px   |
    | 19    | y of the agent                                       | -512 | 1024 | px   |

    `observation="image"`: `Dict` of two arrays. The picture is drawn without OpenGL, as those of
    the human set are.

    | Key         | Observation                                    | Min  | Max  | Unit |
    |-------------|------------------------------------------------|------|------|------|
    | `agent_pos` | x, y of the agent, float32 [2]                 | -512 | 1024 | px   |
    | `image`     | picture from above, RGB, uint8 [96, 96, 3]     | 0    | 255  |      |

    ## Rewards
    min(coverage / 0.95, 1), where coverage = area(block ∩ goal) / area(goal).

    `info` contains, at every step and reset, `coverage`; `max_coverage`, the largest since the
    reset; `score` = min(max_coverage / 0.95, 1), as published; and `success`, `success_90` and
    `success_85`, true once max_coverage has reached 0.95, 0.90 and 0.85. Most human demonstrations
    end slightly below 0.95.

    ## Starting State
    At rest, distributed as in the human demonstrations: agent x, y uniform in [50, 450] px; centre
    of mass of the block (midway between the centres of bar and stem; by default 45 px below its
    origin) uniform in [100, 400] × [145, 445] px; angle uniform in [-π, π]. Starts with a contact
    are drawn again.
    `reset(options={"state": [agent x, y, block x, y, block angle]})`, in px and rad, sets the
    start, for example to a row of `data/state` of the human demonstrations.

    ## Episode End
    Terminates when coverage reaches 0.95. `gymnasium.make` truncates after 300 steps.

    ## Arguments
    | Parameter             | Default         | Meaning                                            |
    |-----------------------|-----------------|----------------------------------------------------|
    | `goal_pose`           | (256, 256, π/4) | x, y of the block's origin and its angle (px, rad) |
    | `observation`         | `"state"`       | `"state"`, `"keypoint"` or `"image"`               |
    | `bar_px`              | (120, 30)       | width and height of the bar, 20 to 200 px          |
    | `stem_px`             | (30, 90)        | of the stem; keypoints need the default block      |
    | `block_mass_kg`       | 1               | 0.1 to 100; the inertia is proportional to it      |
    | `table_friction_kg_s` | 1000            | viscous force on the block / velocity, 10 to 10⁵;  |
    |                       |                 | the speed decays with time constant mass / friction|
    | `sensor_noise`        | 0               | standard deviation of the noise on observations,   |
    |                       |                 | in units of 1 px, and 0.01 for cosine and sine; an |
    |                       |                 | image has none                                     |
    | `actuation_delay`     | 0               | ticks until a target reaches the agent             |
    | `render_mode`         | `None`          | `"rgb_array"` (256 × 256, from above) or `None`    |

    ## Version History
    * v0: first version.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012
    control_dt_s = 0.1
    position_targets = True
    camera = "top"
    episode_attributes = ("_max_coverage",)

    def __init__(
        self,
        goal_pose: Sequence[float] = (256.0, 256.0, math.pi / 4),
        observation: str = "state",
        bar_px: Sequence[float] = NOMINAL.bar_px,
        stem_px: Sequence[float] = NOMINAL.stem_px,
        block_mass_kg: float = 1.0,
        table_friction_kg_s: float = 1000.0,
        sensor_noise: float = 0.0,
        actuation_delay: int = 0,
        render_mode: str | None = None,
    ):
        x, y, angle = _checked("goal_pose", goal_pose, "x, y in px and an angle in rad", 3).tolist()
        if observation not in DEMONSTRATION_ARRAYS:
            kinds = ", ".join(map(repr, DEMONSTRATION_ARRAYS))
            raise ValueError(f"observation must be one of {kinds}; got {observation!r}")
        self.block = Block(_sides("bar_px", bar_px), _sides("stem_px", stem_px))
        if observation == "keypoint" and self.block != NOMINAL:
            raise ValueError(f"observation='keypoint' needs the default block; got {self.block}")
        model = block_model(self.block, block_mass_kg, table_friction_kg_s)
        goal = model.body("goal")
        goal.pos[:2] = x * UNITS_PER_PX, y * UNITS_PER_PX
        goal.quat[:] = math.cos(angle / 2), 0.0, 0.0, math.sin(angle / 2)
        super().__init__(model, sensor_noise, actuation_delay, render_mode)
        self.goal_pose: Pose = (x, y, angle)
        self.observation = observation
        self.demonstration_arrays = DEMONSTRATION_ARRAYS[observation]
        self.observation_space = observation_space(observation)
        self.sensor_units = SENSOR_UNITS[observation]
        self.action_space = spaces.Box(0.0, TABLE_PX, (2,), np.float32)
        self._substeps = round(self.control_dt_s / self.model.opt.timestep)
        self._max_coverage = 0.0

    @property
    def state(self) -> np.ndarray:
        """State [5] as in the human demonstrations: agent x, y, block x, y in px, angle in rad."""
        return self.block.state_from_qpos(self.data.qpos)

    @property
    def neutral_action(self) -> np.ndarray:
        """Newest target of the agent [2]; after a reset, its position."""
        return self._latest(self.data.ctrl / UNITS_PER_PX).astype(np.float32)

    @property
    def cursor(self) -> np.ndarray:
        """Cursor over the agent, see `action_from_cursor`."""
        return cursor_over(self.model, self.camera, (*self.data.qpos[:2], 0.0))

    def action_from_cursor(self, cursor: np.ndarray) -> np.ndarray:
        """Target of the agent [2] under a cursor [2]: x from the left, y from the top."""
        target = point_under(self.model, self.camera, cursor, 0.0) / UNITS_PER_PX
        return np.clip(target, 0.0, TABLE_PX).astype(np.float32)

    @cached_property
    def painter(self) -> Painter:
        """Function that draws the picture [96, 96, 3] of a state [5]."""
        return Painter(self.block, self.goal_pose)

    def expert(self, rng: np.random.Generator) -> Callable[[Any], np.ndarray]:
        """Straight pushes, planned two ahead: a function observation -> action [2].

        `rng` draws the pushes to choose from. It succeeds with all seeds from 0 to 199, in a median
        of 71 steps. From an image it takes the exact state of the environment instead.
        """
        pusher = Pusher(self.block, self.goal_pose, rng)
        if self.observation == "image":
            return lambda observation: pusher(self.state)
        return lambda observation: pusher(state_from_observation(observation))

    def observations_from(self, arrays: Mapping[str, Any]) -> Any:
        """Map recorded `demonstration_arrays`, of N rows each, to observations.

        Returns [N, D_o], or {"agent_pos": [N, 2], "image": `img` itself} for images, where `img`
        must be uint8 [N, 96, 96, 3]. Raises ValueError for other arrays.
        """
        return observations_from(self.observation, arrays)

    @property
    def mirrored(self) -> Reflection | None:
        """Reflection of observations and actions at the axis of the goal, see `pusht_mirror`."""
        return reflection(self.observation, self.goal_pose)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Start an episode; return the observation and `info`."""
        self._begin(seed)
        if options and "state" in options:
            meaning = "agent x, y, block x, y in px and the block's angle in rad"
            state = _checked("options['state']", options["state"], meaning, 5)
            self._place(self.block.qpos_from_state(state))
        else:
            self._place_at_random()
        self._max_coverage = 0.0
        state = self.state
        return self._sensed(self._observation(state)), self._info(state)

    def step(self, action: np.ndarray) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Advance one control tick."""
        target = _checked("action", action, "the agent's target x, y in px", 2)
        followed = self._actuated(target.clip(0.0, TABLE_PX), self.data.ctrl / UNITS_PER_PX)
        self.data.ctrl[:] = followed * UNITS_PER_PX
        mujoco.mj_step(self.model, self.data, nstep=self._substeps)
        state = self.state
        info = self._info(state)
        reward = min(info["coverage"] / SUCCESS_COVERAGE, 1.0)
        terminated = info["coverage"] >= SUCCESS_COVERAGE
        return self._sensed(self._observation(state)), reward, terminated, False, info

    def _pose_picture(self) -> None:
        self.data.mocap_pos[self.model.body("target").mocapid[0], :2] = self.data.ctrl

    def _place(self, qpos: np.ndarray) -> None:
        mujoco.mj_resetData(self.model, self.data)
        self.data.qpos[:] = qpos
        self.data.ctrl[:] = self.data.qpos[:2]

    def _place_at_random(self) -> None:
        """Draw a start in which neither agent nor walls touch the block."""
        while True:
            self._place(self.np_random.uniform(START_LOW, START_HIGH) * QPOS_SCALE)
            mujoco.mj_fwdPosition(self.model, self.data)
            if self.data.ncon == 0:
                return

    def _observation(self, state: np.ndarray) -> Any:
        if self.observation == "image":
            return {"agent_pos": agent_observation(state), "image": self.painter(state)}
        if self.observation == "keypoint":
            return keypoint_observation(keypoints_from_state(state), state)
        return state_observation(state)

    def _info(self, state: np.ndarray) -> dict[str, Any]:
        x, y, angle = state[2:].tolist()
        now = self.block.coverage((x, y, angle), self.goal_pose)
        best = self._max_coverage = max(self._max_coverage, now)
        return {
            "coverage": now,
            "max_coverage": best,
            "score": min(best / SUCCESS_COVERAGE, 1.0),
            "success": best >= SUCCESS_COVERAGE,
            "success_90": best >= 0.90,
            "success_85": best >= 0.85,
        }


def _checked(name: str, values: Any, meaning: str, count: int) -> np.ndarray:
    array = np.asarray(values, dtype=np.float64)
    if array.shape != (count,) or not np.isfinite(array).all():
        raise ValueError(f"{name} must be {count} finite numbers ({meaning}); got {values!r}")
    return array


def _sides(name: str, values: Any) -> tuple[float, ...]:
    return tuple(_checked(name, values, "a width and a height in px", 2).tolist())
