"""One episode while it is recorded, tick by tick: checked copies of everything, as it is stored.

Shapes: T actions of the episode, D_a action dimensions.
"""

from typing import Any

import numpy as np

from diffpolicy import environment
from diffpolicy.data.demonstration import OUTCOME_TYPES, OUTCOMES, Demonstration
from diffpolicy.environment.monitored import by_key
from diffpolicy.environment.outcome import Outcome
from diffpolicy.errors import DiffpolicyError
from diffpolicy.specification import ACTION


class Recording:
    """An episode from its reset on; `step` applies an action, which belongs to the row before it.

    Floats are stored in float32, pictures as they are. The stored action is the applied one:
    float32, inside the space. observation: the newest one, which an expert may change. who: name in
    error messages of the source of actions.
    """

    def __init__(self, env: Any, seed: int, outcome: Outcome, who: str = "the expert"):
        self.env, self.seed, self.outcome, self.who = env, seed, outcome, who
        self.observation, _ = env.reset(seed=seed)
        self.over = False
        self._rows: list[dict[str, np.ndarray]] = []
        self._outcomes: list[tuple[float, bool, bool]] = []
        self._seen = _seen(self.observation, self.when)

    @property
    def when(self) -> str:
        """Name of the newest tick."""
        return (
            f"the end of seed {self.seed}"
            if self.over
            else f"tick {self.ticks} of seed {self.seed}"
        )

    @property
    def ticks(self) -> int:
        """T so far."""
        return len(self._rows)

    def step(self, given: Any) -> None:
        """Apply an action [D_a] of the person or the expert, clipped to the space.

        Raises DiffpolicyError for one that is no action, and for values that cannot be stored.
        """
        action = as_action(given, self.env, self.who, self.when)
        self._rows.append({**self._seen, ACTION: np.asarray(action, np.float32)})
        self.observation, reward, terminated, truncated, info = self.env.step(action.copy())
        self._outcomes.append((reward, terminated, truncated))
        self.over = terminated or truncated
        self.outcome.see(reward, info, self.over)
        self._seen = _seen(self.observation, self.when)

    def stop(self) -> None:
        """End the episode here: its last row counts as truncated."""
        reward, terminated, _ = self._outcomes[-1]
        self._outcomes[-1], self.over = (reward, terminated, True), True

    def demonstration(self) -> Demonstration:
        """The episode so far, of one tick or more."""
        columns = zip(OUTCOMES, zip(*self._outcomes, strict=True), strict=True)
        return Demonstration(
            {key: np.stack([row[key] for row in self._rows]) for key in self._rows[0]},
            {name: np.array(values, OUTCOME_TYPES[name]) for name, values in columns},
            self._seen,
            self.outcome.success,
        )


def _seen(observation: Any, when: str) -> dict[str, np.ndarray]:
    """Arrays of an observation by key, as they are stored."""
    found = by_key(observation)
    return {key: _stored(value, "the environment observes", when) for key, value in found.items()}


def _stored(values: np.ndarray, who: str, when: str) -> np.ndarray:
    """A finite copy, floats in float32."""
    if values.dtype.kind != "f":
        return values.copy()
    with np.errstate(over="ignore"):  # beyond float32 is infinite, and refused below
        copy = np.array(values, np.float32)
    if not np.isfinite(copy).all():
        where = int(np.flatnonzero(~np.isfinite(copy))[0])
        raise DiffpolicyError(
            f"{who} {values.flat[where]} at index {where}, {when}; expected finite numbers that "
            "float32 can hold"
        )
    return copy


def as_action(given: Any, env: Any, who: str, when: str) -> np.ndarray:
    """The given action in float32, clipped to the space and of its type."""
    try:
        action = np.asarray(given, np.float64)
    except (TypeError, ValueError) as error:
        raise DiffpolicyError(f"{who} gives no numbers: {given!r}, {when}") from error
    space = env.action_space
    if action.shape not in (space.shape, env.action_shape):
        raise DiffpolicyError(f"{who} gives {action.shape}; actions are {space.shape}, {when}")
    if not np.isfinite(action).all():
        raise DiffpolicyError(f"{who} gives an action that is not finite: {action}, {when}")
    inside = np.clip(action.ravel(), space.low, space.high)
    return environment.applicable(_stored(inside, f"{who} gives", when), space)
