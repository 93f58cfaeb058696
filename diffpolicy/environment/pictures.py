"""Pictures of environments: the cameras of an observation space, and a camera made by rendering.

Inside, a picture is uint8 [H, W, C] of 0 to 255. Environments give them as that, channels first
[C, H, W], or as floats in [0, 1] or [0, 255]; their space tells which.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.wrappers import AddRenderObservation, TransformObservation
from PIL import Image

from diffpolicy.config import CAMERA
from diffpolicy.errors import DiffpolicyError, UnknownEnvironment
from diffpolicy.specification import CHANNELS, FLAT, ObservationSpec, picture, picture_shape

PIXELS = "pixels"  # key of the picture that `add_camera` adds
REMEDY = "Try a gymnasium.ObservationWrapper, registered under an id of its own"
UNUSED = "or train on other keys with --obs"


@dataclass(frozen=True)
class Camera:
    """Layout of the pictures of one Box; scale: from its numbers to 0 … 255."""

    shape: tuple[int, ...]
    channels_first: bool
    is_float: bool
    scale: float

    @property
    def spec(self) -> ObservationSpec:
        """Specification of the picture [H, W, C]."""
        order = (1, 2, 0) if self.channels_first else (0, 1, 2)
        return picture(*(self.shape[axis] for axis in order))

    @property
    def expected(self) -> str:
        """Description of the values that `read` takes."""
        kind = f"floats in [0, {255 / self.scale:g}]" if self.is_float else "uint8"
        return f"{kind}, {list(self.shape)}"

    def read(self, values: Any) -> np.ndarray | None:
        """A new array uint8 [H, W, C]; None for another shape, type or range."""
        kind = getattr(values, "dtype", np.dtype(object))
        fits = kind.kind == "f" if self.is_float else kind == np.uint8
        if not fits or np.shape(values) != self.shape:
            return None
        found = np.asarray(values)
        if self.is_float:
            found = np.rint(found * self.scale)
            if not (found.min() >= 0 and found.max() <= 255):  # NaN neither
                return None
        if self.channels_first:
            found = found.transpose(1, 2, 0)
        return np.array(found, np.uint8, order="C")


def camera_of(space: Any, name: str) -> Camera | None:
    """Camera of a Box; None for a Box of another shape (see `picture_shape`), which is a vector.

    Raises DiffpolicyError, with the name of the observation, for a picture of unknown range or of
    too many px, and for bytes that are pictures without a channel axis or several in a row.
    """
    if not isinstance(space, spaces.Box):
        return None
    shape, low, high = picture_shape(space.shape), space.low, space.high
    whole = [top for top in (1, 255) if np.all(low == 0) and np.all(high == top)]
    if shape is None:
        if space.dtype == np.uint8 and whole == [255]:
            _check_axes(space.shape, name)
        return None
    is_float = space.dtype.kind == "f"
    if not whole or (not is_float and (space.dtype != np.uint8 or whole != [255])):
        raise DiffpolicyError(
            f"{name} has the shape of a picture, but not its range; expected uint8 of 0 to 255, or "
            f"floats in [0, 1] or [0, 255]; got {space.dtype} from {low.min():g} to "
            f"{high.max():g}. {REMEDY}, {UNUSED}"
        )
    if max(shape) > CAMERA.high:
        raise DiffpolicyError(
            f"{name} is a picture of {shape[0]} × {shape[1]} px; expected sides of at most "
            f"{CAMERA.high} px. {REMEDY}, {UNUSED}"
        )
    return Camera(space.shape, shape != space.shape, is_float, 255 / whole[0])


def _check_axes(shape: tuple[int, ...], name: str) -> None:
    """Refuse pictures without a channel axis, and stacks of pictures."""
    if len(shape) == 2 and min(shape) >= CAMERA.low:
        found = "a picture without a channel axis"
    elif len(shape) == 4 and picture_shape(shape[1:]):
        found = "a stack of pictures"
    else:
        return
    raise DiffpolicyError(
        f"{name} has the shape of {found}; expected one picture [H, W, C] (a policy keeps earlier "
        f"ones itself, --observation-horizon); got uint8 {list(shape)}. {REMEDY}, {UNUSED}"
    )


def described(values: Any) -> str:
    """Type, shape and range of an array, for an error message."""
    array = np.asarray(values)
    if array.dtype.kind not in "fiub" or not array.size:
        return f"{array.dtype} {list(array.shape)}"
    return f"{array.dtype} {list(array.shape)} from {array.min():g} to {array.max():g}"


def add_camera(env: gymnasium.Env, side: int) -> gymnasium.Env:
    """The environment with its `rgb_array` picture [side, side, C] as observation `pixels`.

    A Dict keeps its other keys, in their order; any other observation gets the key `observation`.
    """
    if env.render_mode != "rgb_array":
        raise DiffpolicyError(f"it has no render mode rgb_array; its mode is {env.render_mode}")
    own: Any = env.observation_space
    parts = own.spaces if isinstance(own, spaces.Dict) else {FLAT: own}
    if PIXELS in parts:
        raise DiffpolicyError(f"the key {PIXELS!r} already exists in its observation")
    env = AddRenderObservation(env, render_only=False, render_key=PIXELS, obs_key=FLAT)
    seen: Any = env.observation_space
    rendered = seen[PIXELS].shape
    if len(rendered) != 3 or rendered[2] not in CHANNELS:
        raise DiffpolicyError(f"its pictures have the shape {rendered}; expected [H, W, 3]")
    small = spaces.Box(0, 255, (side, side, rendered[2]), np.uint8)
    space = spaces.Dict([*parts.items(), (PIXELS, small)])
    return TransformObservation(env, lambda o: {**o, PIXELS: _resized(o[PIXELS], side)}, space)


def without_camera(observation: dict[str, np.ndarray]) -> dict[str, np.ndarray] | np.ndarray:
    """The observation as it is without `add_camera`: a vector if it has no other picture."""
    own = {key: values for key, values in observation.items() if key != PIXELS}
    pictures = any(values.ndim == 3 for values in own.values())
    return own if pictures else np.concatenate(list(own.values()))


def _resized(values: np.ndarray, side: int) -> np.ndarray:
    """A picture [H, W, C] as [side, side, C], averaged over the pixels it covers."""
    if values.dtype != np.uint8 or values.shape[:2] == (side, side):
        return values
    channels = values[:, :, 0] if values.shape[2] == 1 else values
    found = Image.fromarray(channels).resize((side, side), Image.Resampling.BILINEAR)
    return np.asarray(found).reshape(side, side, -1)


def to_rgb(frame: np.ndarray) -> np.ndarray:
    """A picture uint8 [H, W, 3] of one [H, W, C]: grey, RGB or RGBA, bytes or floats in [0, 1].

    Raises ValueError for another shape.
    """
    if frame.ndim != 3:
        raise ValueError(f"its frames have the shape {frame.shape}; expected [H, W, 3]")
    if frame.dtype.kind == "f":
        frame = np.rint(255 * np.clip(frame, 0, 1))
    colours = frame[:, :, :3] if frame.shape[2] >= 3 else frame[:, :, :1].repeat(3, axis=2)
    return np.ascontiguousarray(colours, np.uint8)


def made_to_render(make: Callable[..., Any]) -> Any:
    """The environment make(render_mode="rgb_array"), or make() if it cannot render."""
    try:
        return make(render_mode="rgb_array")
    except UnknownEnvironment:
        raise
    except DiffpolicyError:
        return make()
