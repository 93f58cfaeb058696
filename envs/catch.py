"""Catch-v0: catch a ball whose last bounce is unpredictable."""

# MuJoCo's bindings have no type stubs.
# pyright: reportAttributeAccessIssue=false

from collections.abc import Callable
from pathlib import Path
from typing import Any

import mujoco
import numpy as np
from gymnasium import spaces

from .simulation import SimulatedEnv

MODEL_PATH = Path(__file__).parent / "assets" / "catch.xml"

_MODEL = mujoco.MjModel.from_xml_path(str(MODEL_PATH))  # with the default arguments

CONTROL_DT_S = 0.02
GRAVITY_M_S2 = -float(_MODEL.opt.gravity[2])

# Heights z are relative to mid-rail; x = 0 is the plane of the cup's mouth; the ball comes from -x.
RAIL_HALF_LENGTH_M = float(_MODEL.actuator("servo").ctrlrange[1])
START_HALF_RANGE_M = 0.4  # of the cup
BOUNCE_HEIGHT_M = -0.55  # of the ball's centre

FALL_TICKS = (30, 45)  # from the throw to the bounce
RELEASE_HEIGHT_M = (1.0, 1.5)  # above the bounce
BALL_SPEED_M_S = (2.4, 3.4)  # towards the cup, all the way
RESTITUTION = 0.65
RISE_TICKS = 12  # from the bounce to the cup
RISE_S = RISE_TICKS * CONTROL_DT_S

MAX_DEFLECTION_M = 0.4  # more would lead below the ground
CATCH_RADIUS_M = 0.07
CATCH_SPEED_M_S = 1.0  # greatest speed of the cup
MISS_SCALE_M = 0.5
NEAR_SCORE = 0.5  # for the narrowest miss

CUP, BALL_X, BALL_Z = 0, 1, 2  # indices in qpos and qvel
TRAIL_GAP_TICKS = 2


class CatchEnv(SimulatedEnv):
    """Catch a ball after a bounce on rough ground that cannot be predicted.

    ## Description

    A ball flies in a vertical plane towards a cup on an upright rail. It strikes rough ground 12
    control ticks (0.24 s) before it reaches the plane of the cup's mouth, and rises from there at a
    random angle: the height of arrival differs by up to ±0.35 m from that after smooth ground. A
    force of up to 24 N moves the cup, which weighs 1 kg together with its arm.

    A cup that waits at the mean height of arrival and responds to the bounce at once has just
    enough force to reach every ball. A late response fails, because the distance that the cup can
    move decreases with the square of the remaining time.

    The ball is caught if it arrives within 0.07 m of the middle of the mouth while the cup moves at
    no more than 1 m/s. Bounce and arrival coincide with control ticks.

    ## Action space

    `Box(-0.5, 0.5, (1,), float32)`, the target of the position servo of the cup for one control
    period of 0.02 s (50 Hz). Within its force limit the servo is critically damped at 30 rad/s.

    | Num | Action                                 | Min  | Max | Unit |
    | --- | -------------------------------------- | ---- | --- | ---- |
    | 0   | target height of the cup, 0 mid-rail   | -0.5 | 0.5 | m    |

    ## Observation space

    `Box(6, float64)`. No episode reaches the bounds. The observation shows whether the bounce is
    still to come: before it, the parabola of the ball reaches the ground (height -0.55 m) before
    the plane of the cup's mouth.

    | Num | Observation                                          | Min | Max | Unit |
    | --- | ---------------------------------------------------- | --- | --- | ---- |
    | 0   | height of the cup, 0 mid-rail                        | -1  | 1   | m    |
    | 1   | position of the ball, 0 in the plane of the mouth    | -5  | 5   | m    |
    | 2   | height of the ball's centre, 0 mid-rail              | -2  | 2   | m    |
    | 3   | velocity of the cup                                  | -15 | 15  | m/s  |
    | 4   | velocity of the ball towards the cup                 | -10 | 10  | m/s  |
    | 5   | upward velocity of the ball                          | -10 | 10  | m/s  |

    ## Reward

    The score (see below) on the tick of arrival, 0 before.

    ## Starting state

    The cup is at rest within ±0.4 m of mid-rail. The ball is thrown from 1.0 to 1.5 m above the
    ground, with 2.4 to 3.4 m/s towards the cup, and strikes the ground after 30 to 45 ticks (0.60
    to 0.90 s). These values are uniform; the upward velocity and the distance follow from them.
    Smooth ground would return 0.65 of the falling speed; the velocity towards the cup is constant.

    ## Episode end

    - Termination: the ball reaches the plane of the cup's mouth, on tick 42 to 57.
    - Truncation: never.

    `info["success"]` is True on the last tick if the ball is caught, and False everywhere else.
    `info["score"]` is 0 before the ball arrives, 1 if it is caught, and otherwise
    0.5 · (1 - miss / 0.5 m), but at least 0, where miss is the distance by which the ball's centre
    lies outside the 0.07 m.

    ## Arguments

    | Parameter         | Default | Meaning                                                    |
    | ----------------- | ------- | ---------------------------------------------------------- |
    | `deflection_m`    | 0.35    | greatest deflection of the height of arrival, 0 (smooth    |
    |                   |         | ground) to 0.4; deflections are uniform within ± this      |
    | `arm_mass_kg`     | 1       | mass of the cup with its arm, 0.5 to 4                     |
    | `rail_friction_n` | 0       | dry friction of the arm in N, up to 12                     |
    | `sensor_noise`    | 0       | standard deviation of the noise on observations, in units  |
    |                   |         | of 1 mm and 1 cm/s for the cup, 5 mm and 5 cm/s for the    |
    |                   |         | ball                                                       |
    | `actuation_delay` | 0       | ticks until an action reaches the servo                    |
    | `render_mode`     | `None`  | `"rgb_array"` or `None`; the cup turns green with a catch, |
    |                   |         | red with a miss                                            |

    ## Version history

    - v0: first version.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 50}  # noqa: RUF012
    control_dt_s = CONTROL_DT_S
    position_targets = True
    camera = "side"
    sensor_units = np.array([1e-3, 5e-3, 5e-3, 1e-2, 5e-2, 5e-2])
    episode_attributes = ("bounce_tick", "deflected_m", "tick", "path")

    def __init__(
        self,
        deflection_m: float = 0.35,
        arm_mass_kg: float = 1.0,
        rail_friction_n: float = 0.0,
        sensor_noise: float = 0.0,
        actuation_delay: int = 0,
        render_mode: str | None = None,
    ):
        if not 0 <= deflection_m <= MAX_DEFLECTION_M:
            raise ValueError(
                f"deflection_m must be between 0 and {MAX_DEFLECTION_M}; got {deflection_m}"
            )
        model = mujoco.MjModel.from_xml_path(str(MODEL_PATH))
        super().__init__(model, sensor_noise, actuation_delay, render_mode)
        bounds = np.array([1.0, 5.0, 2.0, 15.0, 10.0, 10.0])
        self.observation_space = spaces.Box(-bounds, bounds, dtype=np.float64)
        self.action_space = spaces.Box(-RAIL_HALF_LENGTH_M, RAIL_HALF_LENGTH_M, (1,), np.float32)
        self.deflection_m = deflection_m
        self.bounce_tick, self.deflected_m, self.tick = 0, 0.0, 0
        self.path = [(0.0, 0.0)]  # positions of the ball, for the picture
        self._substeps = round(CONTROL_DT_S / self.model.opt.timestep)
        self._set_up_model(arm_mass_kg, rail_friction_n)

    @property
    def neutral_action(self) -> np.ndarray:
        """Newest target of the servo [1]; after a reset, the position of the cup."""
        return self._latest(self._followed).astype(np.float32)

    @property
    def _followed(self) -> np.ndarray:
        return self.data.ctrl.astype(np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Start an episode; return the observation [D_o] and `info`."""
        self._begin(seed)
        rng = self.np_random
        self.bounce_tick = int(rng.integers(FALL_TICKS[0], FALL_TICKS[1], endpoint=True))
        cup_m = rng.uniform(-START_HALF_RANGE_M, START_HALF_RANGE_M)
        release_m, speed_m_s = rng.uniform(*RELEASE_HEIGHT_M), rng.uniform(*BALL_SPEED_M_S)
        self.deflected_m = self.deflection_m * rng.uniform(-1.0, 1.0)
        position, velocity = throw(self.bounce_tick, release_m, speed_m_s)
        self.data.qpos[:], self.data.qvel[:] = (cup_m, *position), (0.0, *velocity)
        self.data.ctrl[:] = cup_m
        self.tick, self.path = 0, [position]
        return self._sensed(self._observation()), self._info()

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Advance one control tick; the observation has shape [D_o]."""
        if self.tick == self.bounce_tick:
            self.data.qvel[BALL_Z] *= -RESTITUTION
            self.data.qvel[BALL_Z] += self.deflected_m / RISE_S
        self.data.ctrl[:] = self._actuated(action, self._followed)
        mujoco.mj_step(self.model, self.data, self._substeps)
        self.tick += 1
        self.path.append((self.data.qpos[BALL_X], self.data.qpos[BALL_Z]))
        info = self._info()
        return self._sensed(self._observation()), info["score"], self._arrived, False, info

    def expert(self, rng: np.random.Generator | None = None) -> Callable[[np.ndarray], np.ndarray]:
        """Move to the expected height of arrival: a function observation [6] -> action [1].

        It is deterministic and ignores `rng`; throws and bounces make demonstrations vary.
        """

        def act(observation: np.ndarray) -> np.ndarray:
            height_m = expected_arrival_m(*observation[[BALL_X, BALL_Z, 3 + BALL_X, 3 + BALL_Z]])
            target_m = np.clip(height_m, -RAIL_HALF_LENGTH_M, RAIL_HALF_LENGTH_M)
            return np.array([target_m], np.float32)

        return act

    @property
    def _arrived(self) -> bool:
        return self.tick >= self.bounce_tick + RISE_TICKS

    def _set_up_model(self, arm_mass_kg: float, rail_friction_n: float) -> None:
        if not 0.5 <= arm_mass_kg <= 4:
            raise ValueError(f"arm_mass_kg must be between 0.5 and 4; got {arm_mass_kg}")
        if not 0 <= rail_friction_n <= 12:
            raise ValueError(f"rail_friction_n must be between 0 and 12; got {rail_friction_n}")
        self.model.body("arm").mass = arm_mass_kg
        self.model.joint("rail").frictionloss = rail_friction_n
        mujoco.mj_setConst(self.model, self.data)

    def _observation(self) -> np.ndarray:
        return np.concatenate([self.data.qpos, self.data.qvel])

    def _info(self) -> dict[str, Any]:
        if not self._arrived:
            return {"success": False, "score": 0.0}
        miss_m = float(self.data.qpos[BALL_Z] - self.data.qpos[CUP])
        return outcome(miss_m, float(self.data.qvel[CUP]))

    def _pose_picture(self) -> None:
        arrived = "caught" if self._info()["success"] else "missed"
        material = self.model.material(arrived if self._arrived else "cup")
        for name in ("cup_side", "cup_back", "cup_top", "cup_bottom"):
            self.model.geom(name).matid = material.id
        past = [max(self.tick - TRAIL_GAP_TICKS * i, 0) for i in range(1, self.model.nmocap)]
        # The first mocap body is the thrower, the others are the trail.
        self.data.mocap_pos[:, [0, 2]] = [self.path[tick] for tick in (0, *past)]


def outcome(miss_m: float, cup_m_s: float) -> dict[str, Any]:
    """`info` for a ball that arrives `miss_m` from the middle of a cup with velocity `cup_m_s`."""
    outside_m = max(abs(miss_m) - CATCH_RADIUS_M, 0.0)
    if outside_m == 0 and abs(cup_m_s) <= CATCH_SPEED_M_S:
        return {"success": True, "score": 1.0}
    return {"success": False, "score": NEAR_SCORE * max(1 - outside_m / MISS_SCALE_M, 0.0)}


def throw(
    fall_ticks: int, release_m: float, speed_m_s: float
) -> tuple[tuple[float, float], tuple[float, float]]:
    """Initial position (m) and velocity (m/s), each (x, z), of a ball.

    From `release_m` above the ground it falls to the ground in `fall_ticks`, and reaches the plane
    of the cup's mouth `RISE_TICKS` later.
    """
    fall_s = fall_ticks * CONTROL_DT_S
    position = (-speed_m_s * (fall_s + RISE_S), BOUNCE_HEIGHT_M + release_m)
    return position, (speed_m_s, GRAVITY_M_S2 * fall_s / 2 - release_m / fall_s)


def expected_arrival_m(x: float, z: float, vx: float, vz: float) -> float:
    """Height of the ball in the plane of the cup's mouth, with a regular bounce."""
    arrival_s = -x / vx
    drop_m = max(z - BOUNCE_HEIGHT_M, 0.0)
    bounce_s = (vz + np.sqrt(vz**2 + 2 * GRAVITY_M_S2 * drop_m)) / GRAVITY_M_S2
    if bounce_s < arrival_s:
        vz = RESTITUTION * (GRAVITY_M_S2 * bounce_s - vz)
        z, arrival_s = BOUNCE_HEIGHT_M, arrival_s - bounce_s
    return z + vz * arrival_s - GRAVITY_M_S2 * arrival_s**2 / 2
