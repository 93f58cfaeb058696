"""Base class of the environments in MuJoCo: noise, delay, pictures, save and restore."""

# MuJoCo's bindings have no type stubs.
# pyright: reportAttributeAccessIssue=false

from collections import deque
from copy import deepcopy
from typing import Any

import gymnasium
import mujoco
import numpy as np

from .rendering import open_renderer

ALL_STATE = mujoco.mjtState.mjSTATE_INTEGRATION


class SimulatedEnv(gymnasium.Env[Any, np.ndarray]):
    """Base class of a task in MuJoCo.

    A subclass defines `__init__` (which passes a model to this one and sets `action_space` and
    `observation_space`), `reset`, `step`, `expert(rng)` and these attributes:

    - `control_dt_s`: control period in seconds.
    - `neutral_action` [D_a]: action of a tick without a fresh action, an attribute or a property.
    - `position_targets`: True if actions are targets that can be held.
    - `metadata`: `render_modes` and `render_fps`.
    - `sensor_units` [D_o]: standard deviation of the sensor noise at `sensor_noise` = 1; with
      observations by key, {key: [D]} of the keys that have noise.
    - `camera`: name of the model's camera for `render`.
    - `episode_attributes`: names of the attributes that an episode changes; `save` includes them.

    It calls or overrides these hooks:

    - `_begin(seed)`, first in `reset`: seed `np_random`, reset MuJoCo's data and the delay.
    - `_actuated(action, before)`, in `step`: action that reaches the motors in this tick.
    - `_sensed(observation)`, in `reset` and `step`: observation with sensor noise.
    - `_latest(followed)`, in `neutral_action` if actions are targets: newest action.
    - `_pose_picture()`, overridden: set colours and mocap bodies before a picture.

    Arguments: `sensor_noise` is the standard deviation of the Gaussian noise on every observation,
    in `sensor_units`; `actuation_delay` is the number of control ticks until an action reaches the
    motors; `render_mode` is `"rgb_array"` or None.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"]}  # noqa: RUF012
    score_key = "score"  # of info, in [0, 1]
    camera = "picture"
    sensor_units: Any
    episode_attributes: tuple[str, ...] = ()

    def __init__(
        self,
        model: mujoco.MjModel,
        sensor_noise: float = 0.0,
        actuation_delay: int = 0,
        render_mode: str | None = None,
    ):
        if not 0 <= sensor_noise < np.inf:
            raise ValueError(f"sensor_noise must be finite and at least 0; got {sensor_noise}")
        if actuation_delay < 0 or not float(actuation_delay).is_integer():
            raise ValueError(
                f"actuation_delay must be a whole number of ticks; got {actuation_delay}"
            )
        self.sensor_noise, self.actuation_delay = sensor_noise, int(actuation_delay)
        self.render_mode = render_mode
        self.model, self.data = model, mujoco.MjData(model)
        self._under_way: deque[np.ndarray] = deque()
        self._renderer: mujoco.Renderer | None = None

    def _begin(self, seed: int | None) -> None:
        """Seed `np_random`, and reset MuJoCo's data and the delayed actions."""
        super().reset(seed=seed)
        mujoco.mj_resetData(self.model, self.data)
        self._under_way.clear()

    def save(self) -> dict[str, Any]:
        """State of the episode, without the count of a TimeLimit wrapper; it can be pickled."""
        physics = np.empty(mujoco.mj_stateSize(self.model, ALL_STATE))
        mujoco.mj_getState(self.model, self.data, physics, ALL_STATE)
        own = {name: getattr(self, name) for name in self.episode_attributes}
        return deepcopy(
            {
                "physics": physics,
                "random": self.np_random.bit_generator.state,
                "under_way": list(self._under_way),
                "own": own,
            }
        )

    def restore(self, saved: dict[str, Any]) -> None:
        """Restore a state from `save`, of this or another process, bit for bit."""
        saved = deepcopy(saved)
        mujoco.mj_setState(self.model, self.data, saved["physics"], ALL_STATE)
        self.np_random.bit_generator.state = saved["random"]
        self._under_way = deque(saved["under_way"])
        for name, value in saved["own"].items():
            setattr(self, name, value)

    def render(self) -> np.ndarray | None:
        """Picture [height, width, 3] uint8 of the current state, or None without a render mode."""
        if self.render_mode is None:
            return None
        if self._renderer is None:
            self._renderer = open_renderer(self.model)
        self._pose_picture()
        mujoco.mj_kinematics(self.model, self.data)  # mj_step leaves the poses of its start
        mujoco.mj_camlight(self.model, self.data)
        self._renderer.update_scene(self.data, camera=self.camera)
        return self._renderer.render()

    def close(self) -> None:
        """Close the renderer."""
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None

    def _pose_picture(self) -> None:
        """Set colours and mocap bodies for a picture; by default nothing."""

    def _actuated(self, action: np.ndarray, before: np.ndarray) -> np.ndarray:
        """Action that reaches the motors now: that of `actuation_delay` ticks ago, or `before`."""
        self._under_way.append(np.array(action))
        if len(self._under_way) <= self.actuation_delay:
            return before
        return self._under_way.popleft()

    def _latest(self, followed: np.ndarray) -> np.ndarray:
        """Newest action that has not reached the motors yet, or `followed`."""
        return self._under_way[-1] if self._under_way else followed

    def _sensed(self, observation: Any) -> Any:
        """Observation with sensor noise, clipped to the observation space."""
        if not self.sensor_noise:
            return observation
        space: Any = self.observation_space
        if not isinstance(observation, dict):
            return self._noisy(observation, self.sensor_units, space)
        noisy = {k: self._noisy(observation[k], u, space[k]) for k, u in self.sensor_units.items()}
        return {**observation, **noisy}

    def _noisy(self, values: np.ndarray, units: np.ndarray, space: Any) -> np.ndarray:
        noise = self.np_random.standard_normal(values.shape)
        return np.clip(values + self.sensor_noise * units * noise, space.low, space.high).astype(
            space.dtype
        )
