"""Vocabulary of a policy: its horizons, its task, its network, and all that rebuilds it."""

from dataclasses import dataclass, field
from typing import Annotated, Any

from diffpolicy.checked import Range
from diffpolicy.config import CONTROL_DT, DIMENSIONS, HORIZON, ModelConfig
from diffpolicy.errors import DiffpolicyError


@dataclass(frozen=True)
class Horizons:
    """Lengths in control ticks: T_o observations seen, T_p actions predicted, T_a executed."""

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
        """Actions of a chunk that lie at or after the newest observation: T_p - T_o + 1."""
        return self.prediction - self.observation + 1


def default_horizons(
    control_dt_s: float, observation: int, prediction: int | None, action: int | None
) -> Horizons:
    """16 predicted and 8 executed actions; 24 and 2 for tasks of 50 Hz and faster."""
    fast = control_dt_s <= 0.02
    return Horizons(observation, prediction or (24 if fast else 16), action or (2 if fast else 8))


@dataclass(frozen=True)
class Task:
    """The facts that training writes down and control needs again."""

    env_id: str
    control_dt_s: Annotated[float, CONTROL_DT]
    position_targets: bool
    observation_dim: Annotated[int, DIMENSIONS]
    action_dim: Annotated[int, DIMENSIONS]
    env_kwargs: dict[str, Any] = field(default_factory=dict)
    observation_keys: tuple[str, ...] | None = None  # of a Dict, in the order of the flat vector


@dataclass(frozen=True)
class Specification:
    """Everything but the weights that rebuilds a policy."""

    model: ModelConfig
    horizons: Horizons
    task: Task
    clip_range: Annotated[float | None, Range(1e-30, 1e6)]  # in normalised units
    training: dict[str, Any]  # provenance: data, fingerprint, seed, steps, versions
