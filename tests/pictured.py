"""Look-v0: an environment that is seen by a camera, for tests; importable in worker processes."""

from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces

from diffpolicy import environment
from diffpolicy.checkpoint import Checkpoint
from diffpolicy.config import ModelConfig
from diffpolicy.data.normalizer import identity, pixels
from diffpolicy.denoisers import build_network
from diffpolicy.specification import Horizons, ObservationSpec, Specification, Task, picture

SIDE, TICKS = 16, 12
LOOK = "pictured:Look-v0"
LINE = spaces.Box(-np.inf, np.inf, (1,), np.float32)
LAYOUTS: dict[str, Any] = {  # name: (space of the picture, from uint8 [H, W, 3] to it)
    "hwc": (spaces.Box(0, 255, (SIDE, SIDE, 3), np.uint8), lambda p: p),
    "chw": (spaces.Box(0, 255, (3, SIDE, SIDE), np.uint8), lambda p: p.transpose(2, 0, 1)),
    "unit": (
        spaces.Box(0, 1, (SIDE, SIDE, 3), np.float32),
        lambda p: p.astype(np.float32) / np.float32(255),
    ),
    "bytes": (
        spaces.Box(0, 255, (3, SIDE, SIDE), np.float64),
        lambda p: 1.0 * p.transpose(2, 0, 1),
    ),
}


class LookEnv(gymnasium.Env):
    """A dot that the action moves along a line; success near the middle.

    layout: of the picture, signed for one of unknown range, or "" for the place alone. side: of
    the picture in px. habit: at tick 3 the picture is float, wide, dark (below the range), nan,
    none, gone, or other (layout).
    """

    control_dt_s = 0.1
    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012
    action_space = spaces.Box(-1, 1, (1,), np.float32)

    def __init__(self, layout="hwc", side=SIDE, habit="", render_mode=None, key="image"):
        self.side, self.habit, self.render_mode, self.key = side, habit, render_mode, key
        self.observation_space: Any = LINE
        if layout == "signed":
            space = spaces.Box(-1, 1, (side, side, 3), np.float32)
            self.observation_space = spaces.Dict({"place": LINE, key: space})
        elif layout:
            space, self.convert = LAYOUTS[layout]
            shape = tuple(side if n == SIDE else n for n in space.shape)
            low, high = space.low.min(), space.high.max()
            space = spaces.Box(low, high, shape, space.dtype.type)
            self.observation_space = spaces.Dict({"place": LINE, key: space})
        self.layout, self.buffer = layout, np.zeros((side, side, 3), np.uint8)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.tick, self.place = 0, float(self.np_random.uniform(-1, 1))
        return self.observe(), {}

    def step(self, action):
        self.tick += 1
        self.place = float(np.clip(self.place + 0.2 * action[0], -1, 1))
        return self.observe(), 0.0, False, self.tick == TICKS, {"success": abs(self.place) < 0.3}

    def observe(self):
        place = np.array([self.place], np.float32)
        if not self.layout:
            return place
        picture = self.convert(self.draw(self.side))
        if self.habit and self.tick == 3:
            picture = {
                "float": lambda: picture.astype(np.float64),
                "wide": lambda: picture[:, :-1],
                "dark": lambda: picture - 1,
                "nan": lambda: np.nan * picture,
                "other": lambda: picture.transpose(2, 0, 1),
                "none": lambda: None,
            }.get(self.habit, lambda: picture)()
        if self.habit == "gone" and self.tick == 3:
            return {"place": place}
        return {"place": place, self.key: picture}

    def draw(self, side):
        """The buffer, which is used again, with the dot in its place."""
        self.buffer[:] = np.arange(3, dtype=np.uint8) * 40
        column = int((self.place + 1) / 2 * (side - 3))
        self.buffer[side // 2 : side // 2 + 3, column : column + 3] = (255, 200, 10)
        return self.buffer

    def render(self):
        return np.repeat(self.draw(self.side), 2, axis=1)  # twice as wide as high

    def expert(self, rng):
        def act(observation):
            place = observation if isinstance(observation, np.ndarray) else observation["place"]
            return -np.sign(place)

        return act


gymnasium.register("Look-v0", entry_point="pictured:LookEnv", max_episode_steps=TICKS)


def make_look(**kwargs):
    """The environment as every loop gets it."""
    camera = kwargs.pop("camera", None)
    return environment.make(LOOK, kwargs, camera=camera)


def image_checkpoint(*keys, side=SIDE, camera=None):
    """An untrained policy of Look-v0 that sees some of its keys, with a small encoder."""
    specs = {"image": picture(side, side), "place": ObservationSpec((1,))}
    specs["pixels"] = picture(side, side)
    task = Task(LOOK, 0.1, False, {k: specs[k] for k in keys}, 1, {"side": side}, None, camera)
    model = ModelConfig(hidden=16, blocks=1, encoder="cnn", keypoints=4)
    normalizers = {
        key: pixels(3) if spec.is_picture else identity(1)
        for key, spec in task.observations.items()
    }
    specification = Specification(model, Horizons(2, 6, 2), task, 1.0, {})
    torch.manual_seed(0)
    weights = build_network(specification, normalizers).state_dict()
    return Checkpoint(specification, weights, normalizers, identity(1))
