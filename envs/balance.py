"""Balance-v0: keep a pole upright on a cart while unpredictable impulses strike it."""

# MuJoCo's bindings have no type stubs.
# pyright: reportAttributeAccessIssue=false

from collections.abc import Callable
from pathlib import Path
from typing import Any

import mujoco
import numpy as np
from gymnasium import spaces
from scipy.linalg import solve_discrete_are

from .simulation import SimulatedEnv

MODEL_PATH = Path(__file__).parent / "assets" / "balance.xml"

EPISODE_TICKS = 300
TRACK_HALF_LENGTH_M = 2.5
FALLEN_RAD = np.pi / 4
START_SPREAD = 0.05  # m, m/s, rad and rad/s alike

IMPULSE_RAD_S = (0.8, 2.2)
IMPULSE_GAP_TICKS = 45
IMPULSE_WINDOW_TICKS = (25, 250)  # a later impulse would have no time to make the pole fall
MAX_IMPULSES = 1 + (IMPULSE_WINDOW_TICKS[1] - IMPULSE_WINDOW_TICKS[0]) // IMPULSE_GAP_TICKS
FLASH_TICKS = 8

HINGE = 1  # index of the pole in qpos and qvel, after the cart


class BalanceEnv(SimulatedEnv):
    """Inverted pendulum on a cart, struck by impulses at unpredictable times.

    ## Description

    The mass of the pole is at its tip, l = 0.4 m above the hinge, so an uncorrected tilt grows by
    a factor of e every √(l/g) = 0.2 s, or ten control periods. Two or three impulses per episode
    change the angular velocity of the pole. Without impulses, latency matters little. After an
    impulse, the tilt grows by a tenth with each tick of delay before the cart responds, and the
    acceleration of the cart is limited.

    Impulses depend on the seed of the episode only, not on the actions: two or three (2.5 on
    average) between 0.5 s and 5 s, at least 0.9 s apart, of 0.8 to 2.2 rad/s in either direction.

    ## Action space

    `Box(-1, 1, (1,), float32)`, applied for one control period of 0.02 s (50 Hz).

    | Num | Action                            | Min | Max | Unit           |
    | --- | --------------------------------- | --- | --- | -------------- |
    | 0   | acceleration of the cart          | -1  | 1   | 8 m/s²         |

    ## Observation space

    `Box(4, float64)`. No episode reaches the bounds.

    | Num | Observation                                  | Min  | Max | Unit  |
    | --- | -------------------------------------------- | ---- | --- | ----- |
    | 0   | position of the cart, 0 at mid-track         | -3   | 3   | m     |
    | 1   | velocity of the cart                         | -10  | 10  | m/s   |
    | 2   | angle of the pole, 0 upright, + towards +x   | -π/2 | π/2 | rad   |
    | 3   | angular velocity of the pole                 | -20  | 20  | rad/s |

    ## Reward

    1 for every tick with the pole up and the cart on its track.

    ## Starting state

    Each observation is uniform within ±0.05.

    ## Episode end

    - Termination: the pole leans by more than 45°, or the cart is more than 2.5 m from mid-track.
      Above 39°, gravity exceeds the effect of the greatest acceleration, so a pole that falls
      past 45° cannot be recovered.
    - Truncation: tick 300 (6 s).

    `info["success"]` is True on tick 300 if the pole is still up, and False everywhere else;
    `info["score"]` is the share of the 300 ticks survived so far.

    ## Arguments

    | Parameter              | Default | Meaning                                               |
    | ---------------------- | ------- | ----------------------------------------------------- |
    | `impulses_per_episode` | 2.5     | mean number of impulses, 0 to 6; the number of an     |
    |                        |         | episode is rounded up or down at random               |
    | `tip_mass_kg`          | 0.01    | mass of the tip of the pole; the cart has 10 kg       |
    | `rail_friction_n`      | 0       | dry friction of the cart in N; the motor has 80 N     |
    | `sensor_noise`         | 0       | standard deviation of the noise on observations, in   |
    |                        |         | units of 1 mm, 1 cm/s, 0.1° and 1 °/s                 |
    | `actuation_delay`      | 0       | ticks until an action reaches the motor               |
    | `render_mode`          | `None`  | `"rgb_array"` or `None`; a struck pole flashes red    |

    ## Version history

    - v0: first version.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 50}  # noqa: RUF012
    control_dt_s = 0.02
    position_targets = False
    neutral_action = np.zeros(1, np.float32)
    camera = "side"
    sensor_units = np.array([1e-3, 1e-2, np.radians(0.1), np.radians(1.0)])
    episode_attributes = ("impulses", "tick")

    def __init__(
        self,
        impulses_per_episode: float = 2.5,
        tip_mass_kg: float = 0.01,
        rail_friction_n: float = 0.0,
        sensor_noise: float = 0.0,
        actuation_delay: int = 0,
        render_mode: str | None = None,
    ):
        if not 0 <= impulses_per_episode <= MAX_IMPULSES:
            raise ValueError(
                f"impulses_per_episode must be between 0 and {MAX_IMPULSES} (more do not fit "
                f"{IMPULSE_GAP_TICKS} ticks apart); got {impulses_per_episode}"
            )
        model = mujoco.MjModel.from_xml_path(str(MODEL_PATH))
        super().__init__(model, sensor_noise, actuation_delay, render_mode)
        bounds = np.array([3.0, 10.0, np.pi / 2, 20.0])
        self.observation_space = spaces.Box(-bounds, bounds, dtype=np.float64)
        self.action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)
        self.impulses_per_episode = impulses_per_episode
        self.impulses: dict[int, float] = {}
        self.tick = 0
        self._set_up_model(tip_mass_kg, rail_friction_n)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Start an episode; return the observation [D_o] and `info`."""
        self._begin(seed)
        self.tick = 0
        self.data.qpos[:] = self.np_random.uniform(-START_SPREAD, START_SPREAD, 2)
        self.data.qvel[:] = self.np_random.uniform(-START_SPREAD, START_SPREAD, 2)
        self.impulses = draw_impulses(self.np_random, self.impulses_per_episode)
        return self._sensed(self._observation()), self._info(up=True)

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Advance one control tick; the observation has shape [D_o]."""
        self.data.qvel[HINGE] += self.impulses.get(self.tick, 0.0)
        self.data.ctrl[:] = self._actuated(action, self.neutral_action)
        mujoco.mj_step(self.model, self.data)
        position_m, angle_rad = self.data.qpos
        up = bool(abs(angle_rad) <= FALLEN_RAD and abs(position_m) <= TRACK_HALF_LENGTH_M)
        self.tick += up
        truncated = up and self.tick >= EPISODE_TICKS
        observation = self._sensed(self._observation())
        return observation, float(up), not up, truncated, self._info(up)

    def expert(self, rng: np.random.Generator | None = None) -> Callable[[np.ndarray], np.ndarray]:
        """Linear-quadratic state feedback: a function observation [4] -> action [1].

        It is deterministic and ignores `rng`; the impulses make demonstrations vary.
        """
        gain = lqr_gain(self.model)

        def act(observation: np.ndarray) -> np.ndarray:
            return np.clip(-gain @ observation, -1.0, 1.0).astype(np.float32)

        return act

    def _set_up_model(self, tip_mass_kg: float, rail_friction_n: float) -> None:
        if not 0 < tip_mass_kg <= 10:
            raise ValueError(f"tip_mass_kg must be above 0, at most 10; got {tip_mass_kg}")
        if not 0 <= rail_friction_n <= 40:
            raise ValueError(f"rail_friction_n must be between 0 and 40; got {rail_friction_n}")
        self.model.body("pole").mass = tip_mass_kg
        self.model.joint("slider").frictionloss = rail_friction_n
        mujoco.mj_setConst(self.model, self.data)

    def _pose_picture(self) -> None:
        struck = any(t < self.tick <= t + FLASH_TICKS for t in self.impulses)
        self.model.geom("tip").matid = self.model.material("struck" if struck else "tip").id

    def _observation(self) -> np.ndarray:
        return np.stack([self.data.qpos, self.data.qvel], axis=1).ravel()

    def _info(self, up: bool) -> dict[str, Any]:
        success = up and self.tick >= EPISODE_TICKS
        return {"success": success, "score": self.tick / EPISODE_TICKS}


def draw_impulses(rng: np.random.Generator, per_episode: float) -> dict[int, float]:
    """Draw {tick: change of the angular velocity in rad/s}, `per_episode` impulses on average."""
    count = int(per_episode + rng.random())
    first, last = IMPULSE_WINDOW_TICKS
    # Sorted draws from the window without the gaps; adding the gaps keeps the draw uniform.
    slack = last - first - IMPULSE_GAP_TICKS * (count - 1)
    ticks = first + np.sort(rng.integers(0, slack + 1, count))
    ticks += IMPULSE_GAP_TICKS * np.arange(count)
    sizes = rng.uniform(*IMPULSE_RAD_S, count) * rng.choice([-1.0, 1.0], count)
    return dict(zip(ticks.tolist(), sizes.tolist(), strict=True))


def lqr_gain(model: mujoco.MjModel) -> np.ndarray:
    """Feedback gain [1, 4] on the observation, for the model linearised about the upright pole.

    The cost has only the action and the position of the cart, which gives the weakest feedback that
    returns to mid-track: it does not saturate the motor, and it tolerates delay.
    """
    a, b = linearise(model)
    q, r = np.diag([1.0, 0.0, 0.0, 0.0]), np.array([[50.0]])
    p = solve_discrete_are(a, b, q, r)
    return np.linalg.solve(r + b.T @ p @ b, b.T @ p @ a)


def linearise(model: mujoco.MjModel, eps: float = 1e-5) -> tuple[np.ndarray, np.ndarray]:
    """Linearise one control period near upright by central differences: A [4, 4], B [4, 1]."""

    def advance(z: np.ndarray) -> np.ndarray:
        data = mujoco.MjData(model)
        data.qpos[:], data.qvel[:], data.ctrl[:] = z[[0, 2]], z[[1, 3]], z[4:]
        mujoco.mj_step(model, data)
        return np.stack([data.qpos, data.qvel], axis=1).ravel()

    columns = [(advance(dz) - advance(-dz)) / (2 * eps) for dz in eps * np.eye(5)]
    jacobian = np.stack(columns, axis=1)
    return jacobian[:, :4], jacobian[:, 4:]
