"""An environment while episodes run: recorded calls, errors with seed and tick, repeatable seeds.

The record `at` = [call, seed, tick, since_ns] may be memory that another process reads; since_ns is
0 between calls. A call that never returns, or that ends the process, can be named from outside.
"""

import time
from collections.abc import Callable, Mapping, MutableSequence
from typing import Any

import numpy as np

from diffpolicy.environment.boundary import describe_error
from diffpolicy.errors import DiffpolicyError, UnknownEnvironment
from diffpolicy.specification import FLAT

CALLS = ("constructor", "reset", "step", "close")
TRIED_TICKS = 8
UNBOUNDED = 1e6  # actions are tried in ±1 in a space with such bounds
ACTION_STREAM = 0xAC7  # apart from the environment's own stream of the same seed

Observed = dict[str, np.ndarray]


class EnvironmentFailure(DiffpolicyError):
    """An environment that raised, with the seed and the tick of its episode."""


class Monitored:
    """An environment with recorded calls and observations by key; raises EnvironmentFailure."""

    def __init__(self, make_env: Callable[[], Any], seed: int, at: MutableSequence[int] | None):
        self._make_env, self.seed, self.tick = make_env, seed, 0
        self._at = [0] * 4 if at is None else at
        self.env = self._call(0, make_env)

    def reset(self, seed: int) -> Observed:
        """The first observation {key: array} of the seed's episode."""
        self.seed, self.tick = seed, 0
        return by_key(self._call(1, lambda: self.env.reset(seed=seed))[0])

    def step(self, action: np.ndarray) -> tuple[Observed, Any, bool, bool, Any]:
        """Observation {key: array}, reward, terminated, truncated, info."""
        observation, *others = self._call(2, lambda: self.env.step(action))
        self.tick += 1
        return by_key(observation), *others

    def close(self) -> None:
        """Close the environment; a failure to close is a warning."""
        self._call(3, self.env.close)

    def renew(self) -> None:
        """Replace an environment that raised by a new one."""
        self.close()
        self.env = self._call(0, self._make_env)

    def _call(self, call: int, function: Callable[[], Any]) -> Any:
        self._at[0], self._at[1], self._at[2] = call, self.seed, self.tick
        self._at[3] = time.monotonic_ns()
        try:
            return function()
        except UnknownEnvironment:
            raise
        except DiffpolicyError as error:
            raise EnvironmentFailure(str(error)) from error
        except (Exception, SystemExit) as error:
            where = f", {place(self.seed, self.tick)}" if CALLS[call] in ("reset", "step") else ""
            text = f"the environment failed in its {CALLS[call]}: {describe_error(error)}{where}"
            raise EnvironmentFailure(text) from error
        finally:
            self._at[3] = 0


def by_key(observation: Any) -> Observed:
    """{key: array} of an observation; a single array gets the key `observation`."""
    return dict(observation) if isinstance(observation, Mapping) else {FLAT: observation}


def place(seed: int, tick: int) -> str:
    """Name a tick of an episode."""
    return f"at tick {tick} of seed {seed}"


def seeds_repeat(
    make_env: Callable[[], Any], seed: int, at: MutableSequence[int] | None = None
) -> str | None:
    """None if episodes of one seed repeat in their first ticks; else one sentence with figures.

    The same actions are applied twice after reset(seed), and once more after another seed's.
    """
    env = Monitored(make_env, seed, at)
    try:
        first, second, _, third = (_first_ticks(env, s) for s in (seed, seed, seed + 1, seed))
    finally:
        env.close()
    for again, when in ((second, "at once"), (third, "after another episode")):
        if gave := _difference(first, again):
            return (
                f"seeds do not repeat: reset(seed={seed}) and the same actions again, {when}, gave "
                f"{gave}"
            )
    return None


def _difference(first: list[Observed], again: list[Observed]) -> str | None:
    """The first difference of two episodes, with figures; None if there is none."""
    for tick, (one, other) in enumerate(zip(first, again, strict=False)):
        for key, values in one.items():
            if not np.array_equal(values, other[key], equal_nan=values.dtype.kind == "f"):
                index = np.argwhere(~((values == other[key]) | _both_nan(values, other[key])))[0]
                before, after = values[tuple(index)], other[key][tuple(index)]
                name = "" if key == FLAT else f"{key}, "
                where = f"({name}dimension {', '.join(map(str, index))})"
                return f"{after:.6g} instead of {before:.6g} at tick {tick} {where}"
    if len(first) != len(again):
        return f"an episode of {len(again) - 1} instead of {len(first) - 1} ticks"
    return None


def _both_nan(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return (one != one) & (other != other)


def _first_ticks(env: Monitored, seed: int) -> list[Observed]:
    """Observations under random actions, the same ones for every seed, to the episode's end."""
    space = env.env.action_space
    bounded = (np.abs(space.low) < UNBOUNDED) & (np.abs(space.high) < UNBOUNDED)
    low, high = np.where(bounded, space.low, -1), np.where(bounded, space.high, 1)
    rng = np.random.default_rng(ACTION_STREAM)
    seen = [env.reset(seed)]
    for _ in range(TRIED_TICKS):
        action = np.clip(rng.uniform(low, high), space.low, space.high).astype(space.dtype)
        observation, _, terminated, truncated, _ = env.step(action)
        seen.append(observation)
        if terminated or truncated:
            break
    return seen
