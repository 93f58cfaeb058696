"""An environment while episodes run: calls on record, errors with seed and tick, seeds that repeat.

The record `at` = [call, seed, tick, since_ns] may be memory that another process reads; since_ns is
0 between calls. So a call that never returns, or that ends the process, can be named from outside.
"""

import time
from collections.abc import Callable, MutableSequence
from typing import Any

import numpy as np

from diffpolicy.environment.boundary import told
from diffpolicy.errors import DiffpolicyError

CALLS = ("constructor", "reset", "step", "close")
TRIED_TICKS = 8
UNBOUNDED = 1e6  # actions are tried in ±1 where a space goes that far
ACTION_STREAM = 0xAC7  # apart from the environment's own stream of the same seed


class EnvironmentFailure(DiffpolicyError):
    """An environment that raised, with the seed and the tick of its episode."""


class Watched:
    """An environment whose calls are on record; what it raises is an EnvironmentFailure."""

    def __init__(self, make_env: Callable[[], Any], seed: int, at: MutableSequence[int] | None):
        self._make_env, self.seed, self.tick = make_env, seed, 0
        self._at = [0] * 4 if at is None else at
        self.env = self._call(0, make_env)

    def reset(self, seed: int) -> np.ndarray:
        """The first observation of the seed's episode."""
        self.seed, self.tick = seed, 0
        return self._call(1, lambda: self.env.reset(seed=seed))[0]

    def step(self, action: np.ndarray) -> tuple[Any, ...]:
        """observation, reward, terminated, truncated, info."""
        outcome = self._call(2, lambda: self.env.step(action))
        self.tick += 1
        return outcome

    def close(self) -> None:
        """Close the environment; one that cannot be closed is a warning."""
        self._call(3, self.env.close)

    def renew(self) -> None:
        """Make the environment anew, in place of one that raised."""
        self.close()
        self.env = self._call(0, self._make_env)

    def _call(self, call: int, function: Callable[[], Any]) -> Any:
        self._at[0], self._at[1], self._at[2] = call, self.seed, self.tick
        self._at[3] = time.monotonic_ns()
        try:
            return function()
        except DiffpolicyError as error:
            raise EnvironmentFailure(str(error)) from error
        except (Exception, SystemExit) as error:
            where = f", {place(self.seed, self.tick)}" if CALLS[call] in ("reset", "step") else ""
            text = f"the environment failed in its {CALLS[call]}: {told(error)}{where}"
            raise EnvironmentFailure(text) from error
        finally:
            self._at[3] = 0


def place(seed: int, tick: int) -> str:
    """Name a tick of an episode."""
    return f"at tick {tick} of seed {seed}"


def seeds_repeat(
    make_env: Callable[[], Any], seed: int, at: MutableSequence[int] | None = None
) -> str | None:
    """None where episodes of one seed repeat in their first ticks; else one sentence with figures.

    The same actions twice after reset(seed), and once more after an episode of another seed.
    """
    env = Watched(make_env, seed, at)
    try:
        first, second, _, third = (_first_ticks(env, s) for s in (seed, seed, seed + 1, seed))
    finally:
        env.close()
    for again, when in ((second, "at once"), (third, "after another episode")):
        differs = np.argwhere(~((first == again) | (np.isnan(first) & np.isnan(again))))
        if len(differs):
            at_tick = tuple(differs[0])
            return (
                f"seeds do not repeat: reset(seed={seed}) and the same actions again, {when}, gave "
                f"{again[at_tick]:.6g} instead of {first[at_tick]:.6g} at tick {at_tick[0]} "
                f"(dimension {at_tick[1]})"
            )
    return None


def _first_ticks(env: Watched, seed: int) -> np.ndarray:
    """Observations [ticks + 1, D_o] under random actions, the same ones for every seed.

    Not a number after the end of an episode.
    """
    space = env.env.action_space
    bounded = (np.abs(space.low) < UNBOUNDED) & (np.abs(space.high) < UNBOUNDED)
    low, high = np.where(bounded, space.low, -1), np.where(bounded, space.high, 1)
    rng = np.random.default_rng(ACTION_STREAM)
    observation = env.reset(seed)
    seen = np.full((TRIED_TICKS + 1, *np.shape(observation)), np.nan)
    seen[0] = observation
    for tick in range(1, TRIED_TICKS + 1):
        action = np.clip(rng.uniform(low, high), space.low, space.high).astype(space.dtype)
        seen[tick], _, terminated, truncated, _ = env.step(action)
        if terminated or truncated:
            break
    return seen
