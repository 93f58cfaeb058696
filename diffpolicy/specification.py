"""Vocabulary of a policy: its horizons, observations, task and network.

Shapes: T_o observations seen, T_p actions predicted, T_a executed, D_o and D_a dimensions.
"""

import math
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from diffpolicy.checked import NOT_EMPTY, Range
from diffpolicy.config import (
    CAMERA,
    CONTROL_DT,
    DIMENSIONS,
    HORIZON,
    LEVEL,
    ModelConfig,
    Normalization,
)
from diffpolicy.errors import DiffpolicyError

FLAT = "observation"  # key of an observation that is one vector
ACTION = "action"
CHANNELS = (1, 3, 4)  # of a picture
NO_ENVIRONMENT = "none"  # env_id of a policy that was trained from a store alone


@dataclass(frozen=True)
class Horizons:
    """Lengths in control ticks: T_o, T_p and T_a."""

    observation: Annotated[int, HORIZON]
    prediction: Annotated[int, HORIZON]
    action: Annotated[int, HORIZON]

    def __post_init__(self):
        if min(self.observation, self.prediction, self.action) < 1 or self.action > self.usable:
            raise DiffpolicyError(
                "horizons must be at least 1 with T_a ≤ T_p - T_o + 1; got "
                f"T_o {self.observation}, T_p {self.prediction}, T_a {self.action}"
            )

    @property
    def usable(self) -> int:
        """Actions of a chunk at or after the newest observation: T_p - T_o + 1."""
        return self.prediction - self.observation + 1


def default_horizons(
    control_dt_s: float, observation: int, prediction: int | None, action: int | None
) -> Horizons:
    """16 predicted and 8 executed actions; 24 and 2 for tasks of 50 Hz and faster."""
    fast = control_dt_s <= 0.02
    return Horizons(observation, prediction or (24 if fast else 16), action or (2 if fast else 8))


@dataclass(frozen=True)
class ObservationSpec:
    """One key of an observation: the shape of one tick's array, its dtype and its normaliser.

    A vector is float32 [D]; a picture is uint8 [H, W, C] of 0 to 255 (see `picture_shape`).
    normalizer: kind of the affine normaliser, fitted to the data for a vector and `pixels` for a
    picture; None without one. crop: top, left, height and width in px of the part of a picture that
    control sees; by default the centre, of `ModelConfig.crop`.
    """

    shape: Annotated[tuple[int, ...], DIMENSIONS, NOT_EMPTY]
    dtype: Literal["float32", "uint8"] = "float32"
    normalizer: Literal["limits", "gaussian", "pixels"] | None = "limits"
    crop: Annotated[tuple[int, int, int, int] | None, Range(0, CAMERA.high)] = None

    def __post_init__(self):
        if (len(self.shape), self.normalizer == "pixels") not in ((1, False), (3, True)) or (
            (self.dtype == "uint8") != self.is_picture
        ):
            raise DiffpolicyError(
                "an observation is a float32 vector or a uint8 picture [H, W, C] with the "
                f"normaliser pixels; got {self.dtype} {list(self.shape)} with {self.normalizer}"
            )
        fits = picture_shape(self.shape) == self.shape and max(self.shape) <= CAMERA.high
        if self.is_picture and not fits:
            raise DiffpolicyError(
                f"a picture [H, W, C] has sides of {CAMERA.low} to {CAMERA.high} px and 1, 3 or 4 "
                f"channels; got {list(self.shape)}"
            )
        if self.crop and not (self.is_picture and _inside(self.crop, self.shape)):
            raise DiffpolicyError(
                "a crop is the top, left, height and width of a part of a picture [H, W, C]; got "
                f"{list(self.crop)} of {list(self.shape)}"
            )

    @property
    def is_picture(self) -> bool:
        """True for [H, W, C]."""
        return len(self.shape) == 3

    @property
    def normalized_shape(self) -> tuple[int, ...]:
        """Shape of the normaliser: [D] of a vector, [C] of a picture."""
        return self.shape[-1:]

    @property
    def size(self) -> int:
        """Numbers of one tick's array."""
        return math.prod(self.shape)

    def advice(self, shape: tuple[int, ...], dtype: Any) -> str:
        """The likely mistake in an array of one tick that does not fit; "" for a vector."""
        if not self.is_picture:
            return ""
        height, width, channels = self.shape
        if shape == (channels, height, width) != self.shape:
            return "; channels come last, try numpy.moveaxis(x, -3, -1)"
        return "; pictures are uint8 of 0 to 255" if dtype != self.dtype else ""


def _inside(crop: tuple[int, int, int, int], shape: tuple[int, ...]) -> bool:
    """True for a crop of at least one pixel inside a picture [H, W, C]."""
    top, left, height, width = crop
    return min(height, width) > 0 and top + height <= shape[0] and left + width <= shape[1]


def picture_shape(shape: tuple[int, ...]) -> tuple[int, int, int] | None:
    """(H, W, C) of a picture with its channels last or first; None for other shapes.

    A picture has 1, 3 or 4 channels and sides of 8 px or more.
    """
    if len(shape) != 3:
        return None
    first, middle, last = shape
    if last in CHANNELS and min(first, middle) >= CAMERA.low:
        return first, middle, last
    if first in CHANNELS and min(middle, last) >= CAMERA.low:
        return middle, last, first
    return None


def picture(height: int, width: int, channels: int = 3) -> ObservationSpec:
    """Specification of a camera."""
    return ObservationSpec((height, width, channels), "uint8", "pixels")


def flat_observation(
    dimensions: int, normalizer: Normalization = "limits"
) -> dict[str, ObservationSpec]:
    """Observations that are one vector of so many numbers."""
    return {FLAT: ObservationSpec((dimensions,), normalizer=normalizer)}


@dataclass(frozen=True)
class Task:
    """Facts that training records and control needs; observations by key, in the encoder's order.

    observation_keys: parts of a Dict observation in the order of the flat vector. camera: side in
    px of the picture of the environment that is added to its observation, if one is.
    """

    env_id: str
    control_dt_s: Annotated[float, CONTROL_DT]
    position_targets: bool
    observations: dict[str, ObservationSpec]
    action_dim: Annotated[int, DIMENSIONS]
    env_kwargs: dict[str, Any] = field(default_factory=dict)
    observation_keys: tuple[str, ...] | None = None
    camera: Annotated[int | None, CAMERA] = None

    def __post_init__(self):
        if not self.observations or ACTION in self.observations:
            raise DiffpolicyError(
                f"a task needs at least one observation, none of them named {ACTION!r}; got "
                f"{', '.join(self.observations) or 'none'}"
            )

    @property
    def observation_dim(self) -> int:
        """D_o: numbers of all keys in one tick."""
        return sum(spec.size for spec in self.observations.values())


@dataclass(frozen=True)
class Specification:
    """Everything but the weights that rebuilds a policy.

    grid: timestep grid of its samplers, unless another is asked for. rederive: where x̂0 is clipped,
    ε̂ is read from the clipped x̂0 instead of the network's output (see `ddim_row`). schedules: lists
    of falling timesteps, one for a budget, that the grid "optimised" takes by their length.
    """

    model: ModelConfig
    horizons: Horizons
    task: Task
    clip_range: Annotated[float | None, Range(1e-30, 1e6)]  # in normalised units
    training: dict[str, Any]  # provenance: data, fingerprint, seed, steps, versions
    grid: Literal["trailing", "leading", "linspace", "loop", "quadratic", "optimised"] = "trailing"
    rederive: bool = True
    schedules: tuple[tuple[Annotated[int, LEVEL], ...], ...] = ()
