"""Boundary to other people's Gymnasium environments: every value that crosses it is checked.

Outside, observations are copied float vectors [D_o], actions are vectors [D_a], reward is a number,
terminated and truncated are bools, and every exception is one DiffpolicyError.
"""

import functools
import math
import reprlib
import sys
import traceback
from collections.abc import Iterator, Mapping
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.spaces.utils import flatten, flatten_space

from diffpolicy.errors import DiffpolicyError

EXPECTED = {
    "reset": "reset(*, seed, options) -> (observation, info)",
    "step": "step(action) -> (observation, reward, terminated, truncated, info)",
}
FIXED = (spaces.Box, spaces.Discrete, spaces.MultiBinary, spaces.MultiDiscrete)
# Modules of wrappers: their lines in a traceback do not locate an error of the environment.
WRAPPERS = (
    *("gymnasium.core.", "gymnasium.wrappers.", "gymnasium.utils.", "gymnasium.spaces."),
    *("gymnasium.envs.registration.", "numpy.", "importlib."),
    *(f"diffpolicy.{name}." for name in ("boundary", "environment", "record")),
)


class Boundary(gymnasium.Wrapper):
    """An environment with flat observations and flat actions."""

    def __init__(self, env: gymnasium.Env, name: str):
        super().__init__(env)
        self.name = name
        self.seed: int | None = None
        self.tick = 0
        actions, observations = (
            getattr(env, f"{k}_space", None) for k in ("action", "observation")
        )
        if not isinstance(actions, spaces.Box) or not math.prod(actions.shape):
            raise DiffpolicyError(
                f"{name} must take a Box of actions; has {actions}. Try a "
                "gymnasium.ActionWrapper, registered under an id of its own"
            )
        if not np.all(actions.low <= actions.high):
            raise DiffpolicyError(f"{name} must take actions with low <= high; has {actions}")
        self._leaves = list(_leaves(observations))
        if not self._leaves or not all(isinstance(leaf, FIXED) for _, leaf in self._leaves):
            raise DiffpolicyError(
                f"{name} must observe a Box, or a Dict or Tuple of Box, Discrete, MultiBinary and "
                f"MultiDiscrete; has {observations}. Try a gymnasium.ObservationWrapper, "
                "registered under an id of its own"
            )
        self._shape = observations.shape if isinstance(observations, spaces.Box) else None
        self.action_shape = actions.shape
        if len(actions.shape) != 1:
            self.action_space = flatten_space(actions)
        if self._shape is None or len(self._shape) != 1:
            self.observation_space = flatten_space(observations)

    @property
    def spec(self):
        """Spec of the wrapped environment; it does not list this wrapper."""
        return self.env.spec

    @property
    def observation_keys(self) -> tuple[str, ...] | None:
        """Arrays of a Dict or Tuple in the order of the flat vector; None for a Box."""
        return tuple("/".join(map(str, path)) for path, _ in self._leaves if path) or None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        """The first observation [D_o] and info."""
        self.seed, self.tick = seed, -1
        try:
            outcome: Any = self.env.reset(seed=seed, options=options)
            if not isinstance(outcome, tuple) or len(outcome) != 2:
                raise self._unfit("returned", outcome, EXPECTED["reset"])
            return self._flat(outcome[0]), self._mapping(outcome[1])
        except DiffpolicyError:
            raise
        except Exception as error:
            raise self._raised(error) from error

    def step(self, action: np.ndarray):
        """One control tick; the environment may keep action [D_a]."""
        self.tick += 1
        try:
            outcome: Any = self.env.step(action.reshape(self.action_shape))
            if not isinstance(outcome, tuple) or len(outcome) != 5:
                raise self._unfit("returned", outcome, EXPECTED["step"])
            observation, reward, terminated, truncated, info = outcome
            return (
                self._flat(observation),
                self._number(reward),
                terminated if type(terminated) is bool else self._flag("terminated", terminated),
                truncated if type(truncated) is bool else self._flag("truncated", truncated),
                self._mapping(info),
            )
        except DiffpolicyError:
            raise
        except Exception as error:
            raise self._raised(error) from error

    def render(self):
        """A copy of the rendered picture."""
        picture = self.env.render()
        return None if picture is None else np.array(picture)

    def close(self) -> None:
        """Close the environment; a failure to close is a warning."""
        try:
            self.env.close()
        except (Exception, SystemExit) as error:
            _warn(f"{self.name} failed in close: {describe_error(error)}")

    def _flat(self, value: Any) -> np.ndarray:
        """The observation as a new vector, in the order of the space."""
        if type(value) is np.ndarray and value.shape == self._shape and value.dtype.kind == "f":
            return value.flatten()  # always a copy
        vector = np.concatenate([self._part(path, leaf, value) for path, leaf in self._leaves])
        return vector if vector.dtype.kind == "f" else vector.astype(np.float64)

    def _part(self, path: tuple[Any, ...], space: Any, observation: Any) -> np.ndarray:
        """One array of the observation as a vector."""
        value, name = observation, "".join(f"[{key!r}]" for key in path)
        try:
            for key in path:
                value = value[key]
        except (KeyError, IndexError, TypeError) as error:
            keys = list(observation) if isinstance(observation, Mapping) else observation
            raise self._unfit("observed", keys, f"observation{name}") from error
        if not isinstance(space, spaces.Box):
            if not space.contains(value):
                raise self._unfit(f"gave as observation{name}", value, f"one of {space}")
            return np.asarray(flatten(space, value))
        array = np.asarray(value) if hasattr(value, "__array__") else None
        if array is None or array.shape != space.shape or array.dtype.kind not in "fiub":
            wanted = f"an array of numbers of shape {space.shape}"
            raise self._unfit(f"gave as observation{name}", value, wanted)
        return array.ravel()

    def _mapping(self, info: Any) -> Any:
        if type(info) is dict or isinstance(info, Mapping):  # the first is quick
            return info
        raise self._unfit("gave as info", info, "a dict")

    def _number(self, reward: Any) -> float:
        found = number(reward)
        if found is None:
            raise self._unfit("gave as reward", reward, "a number")
        return found

    def _flag(self, name: str, value: Any) -> bool:
        found = number(value)
        if found not in (0, 1):
            raise self._unfit(f"gave as {name}", value, "a bool")
        return bool(found)

    def _unfit(self, verb: str, value: Any, expected: str) -> DiffpolicyError:
        shape = f" of shape {value.shape}" if isinstance(value, np.ndarray) else ""
        given = f"{verb} {reprlib.repr(value)}{shape}"
        return DiffpolicyError(f"{self.name} {given} in {self._call()}; expected {expected}")

    def _raised(self, error: Exception) -> DiffpolicyError:
        text = f"{self.name} failed in {self._call()}: {describe_error(error)}"
        if _place(error):
            return DiffpolicyError(text)
        name = "reset" if self.tick < 0 else "step"  # the call or its unpacking failed
        code = getattr(getattr(type(self.unwrapped), name), "__code__", None)
        place = f" ({code.co_filename}:{code.co_firstlineno})" if code else ""
        return DiffpolicyError(f"{text}; expected {EXPECTED[name]}{place}")

    def _call(self) -> str:
        if self.tick < 0:
            return f"reset(seed={self.seed}, options=None)"
        return f"step, tick {self.tick} of seed {self.seed}"


def describe_error(error: BaseException) -> str:
    """An exception in one line, with the file and line of the environment that raised it."""
    text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    place = _place(error)
    return f"{text} ({place})" if place else text


def number(value: Any) -> float | None:
    """A number, or an array of one, as a float; None for anything else."""
    if isinstance(value, float):  # quick, and NumPy's float64 too
        return float(value)
    try:
        return None if isinstance(value, str | None) else float(np.asarray(value).item())
    except (TypeError, ValueError):
        return None


def _place(error: BaseException | None) -> str:
    """ "file:line" of the last frame outside wrappers; "" if there is none."""
    if error is None:
        return ""
    frames = [
        f"{frame.f_code.co_filename}:{line}"
        for frame, line in traceback.walk_tb(error.__traceback__)
        if not f"{frame.f_globals.get('__name__', '')}.".startswith(WRAPPERS)
    ]
    return frames[-1] if frames else _place(error.__cause__)


def _leaves(space: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """(keys, space) of every array of a Dict or Tuple, in the order of the flat vector."""
    if not isinstance(space, spaces.Dict | spaces.Tuple):
        yield path, space
        return
    inside: Any = space.spaces
    for key, inner in inside.items() if isinstance(space, spaces.Dict) else enumerate(inside):
        yield from _leaves(inner, (*path, key))


@functools.cache
def _warn(text: str) -> None:
    """Warn once, not once for each environment."""
    sys.stderr.write(f"warning: {text}\n")
