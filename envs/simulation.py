"""What our environments share: a MuJoCo model, sensors and motors that may be imperfect, pictures,
and the whole state of an episode, to keep and to go back to."""

# MuJoCo's bindings come without type stubs.
# pyright: reportAttributeAccessIssue=false

from collections import deque
from copy import deepcopy
from typing import Any

import gymnasium
import mujoco
import numpy as np

from .rendering import open_renderer

ALL_STATE = mujoco.mjtState.mjSTATE_INTEGRATION


class SimulatedEnv(gymnasium.Env[np.ndarray, np.ndarray]):
    """A task in MuJoCo, whose own file says what is moved, seen, rewarded and successful.

    sensor_noise: standard deviation of the Gaussian noise on every observation, in `sensor_units`.
    actuation_delay: control ticks from an action's arrival until the motors follow it.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"]}  # noqa: RUF012
    score_key = "score"  # of info, in [0, 1]
    camera = "picture"
    sensor_units: np.ndarray  # [D_o], of good sensors
    episode_attributes: tuple[str, ...] = ()  # what an episode changes outside of MuJoCo's data

    def __init__(
        self,
        model: mujoco.MjModel,
        sensor_noise: float = 0.0,
        actuation_delay: int = 0,
        render_mode: str | None = None,
    ):
        if not 0 <= sensor_noise < np.inf:
            raise ValueError(f"sensor_noise must be 0 or more, and finite; got {sensor_noise}")
        if actuation_delay < 0 or not float(actuation_delay).is_integer():
            raise ValueError(f"actuation_delay must be a count of ticks; got {actuation_delay}")
        self.sensor_noise, self.actuation_delay = sensor_noise, int(actuation_delay)
        self.render_mode = render_mode
        self.model, self.data = model, mujoco.MjData(model)
        self._under_way: deque[np.ndarray] = deque()
        self._renderer: mujoco.Renderer | None = None

    def _begin(self, seed: int | None) -> None:
        """Seeds, and empties the motors' queue; a task's reset goes on from here."""
        super().reset(seed=seed)
        mujoco.mj_resetData(self.model, self.data)
        self._under_way.clear()

    def save(self) -> dict[str, Any]:
        """Everything that the rest of the episode depends on (a TimeLimit counts by itself)."""
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
        """Back to what `save` gave, here or in another process, to the bit."""
        saved = deepcopy(saved)
        mujoco.mj_setState(self.model, self.data, saved["physics"], ALL_STATE)
        self.np_random.bit_generator.state = saved["random"]
        self._under_way = deque(saved["under_way"])
        for name, value in saved["own"].items():
            setattr(self, name, value)

    def render(self) -> np.ndarray | None:
        """An image [height, width, 3] uint8 of the state as it is now, or None without a mode."""
        if self.render_mode is None:
            return None
        if self._renderer is None:
            self._renderer = open_renderer(self.model)
        self._pose_picture()
        mujoco.mj_kinematics(self.model, self.data)  # mj_step leaves the poses of its beginning
        mujoco.mj_camlight(self.model, self.data)
        self._renderer.update_scene(self.data, camera=self.camera)
        return self._renderer.render()

    def close(self) -> None:
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None

    def _pose_picture(self) -> None:
        """What only the picture shows; a task may set colours and mocap bodies here."""

    def _actuated(self, action: np.ndarray, before: np.ndarray) -> np.ndarray:
        """What reaches the motors now: the action of `actuation_delay` ticks ago, or `before`
        while there is none."""
        self._under_way.append(np.array(action))
        if len(self._under_way) <= self.actuation_delay:
            return before
        return self._under_way.popleft()

    def _latest(self, followed: np.ndarray) -> np.ndarray:
        """The newest action, also while it is under way; `followed` where none is."""
        return self._under_way[-1] if self._under_way else followed

    def _sensed(self, observation: np.ndarray) -> np.ndarray:
        """The observation with its noise, inside the declared space."""
        if not self.sensor_noise:
            return observation
        noise = self.np_random.standard_normal(observation.shape)
        noisy = observation + self.sensor_noise * self.sensor_units * noise
        space: Any = self.observation_space
        return np.clip(noisy, space.low, space.high).astype(space.dtype)
