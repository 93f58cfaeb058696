"""Boundary to other people's Gymnasium environments: every value that crosses it is checked.

Outside, observations are copies, float vectors [D_o] or with pictures {key: array} (see `Parts`),
actions are vectors [D_a], reward is a number, terminated and truncated are bools, and every
exception is one DiffpolicyError.
"""

import functools
import math
import sys
import traceback
from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.spaces.utils import flatten_space

from diffpolicy.environment.observing import Parts, Unfit
from diffpolicy.errors import DiffpolicyError
from diffpolicy.specification import ObservationSpec

EXPECTED = {
    "reset": "reset(*, seed, options) -> (observation, info)",
    "step": "step(action) -> (observation, reward, terminated, truncated, info)",
}
# Modules of wrappers: their lines in a traceback do not locate an error of the environment.
WRAPPERS = (
    *("gymnasium.core.", "gymnasium.wrappers.", "gymnasium.utils.", "gymnasium.spaces."),
    *("gymnasium.envs.registration.", "numpy.", "importlib.", "PIL."),
    *(f"diffpolicy.{name}." for name in ("boundary", "environment", "record", "control.external")),
)


class Boundary(gymnasium.Wrapper):
    """An environment with flat actions and, without pictures, flat observations."""

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
        self.action_shape = actions.shape
        if len(actions.shape) != 1:
            self.action_space = flatten_space(actions)
        self._parts = Parts(observations, name)
        if self._parts.space is not observations:
            self.observation_space = self._parts.space
        self._observed = self._parts.read

    @property
    def spec(self):
        """Spec of the wrapped environment; it does not list this wrapper."""
        return self.env.spec

    @property
    def observation_keys(self) -> tuple[str, ...] | None:
        """Arrays of a Dict or Tuple in the order of the flat vector; None without one."""
        return self._parts.order

    @property
    def observations(self) -> dict[str, ObservationSpec]:
        """Specification by key; `limits` stands for a normaliser that is to be fitted."""
        return self._parts.specs

    @property
    def refused(self) -> dict[str, str]:
        """Error message by key of the pictures that are left out of the observations."""
        return self._parts.refused

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        """The first observation and info."""
        self.seed, self.tick = seed, -1
        try:
            outcome: Any = self.env.reset(seed=seed, options=options)
            if not isinstance(outcome, tuple) or len(outcome) != 2:
                raise Unfit("returned", outcome, EXPECTED["reset"])
            return self._observed(outcome[0]), self._mapping(outcome[1])
        except Unfit as error:
            raise self._unfit(error) from error
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
                raise Unfit("returned", outcome, EXPECTED["step"])
            observation, reward, terminated, truncated, info = outcome
            return (
                self._observed(observation),
                self._number(reward),
                terminated if type(terminated) is bool else self._flag("terminated", terminated),
                truncated if type(truncated) is bool else self._flag("truncated", truncated),
                self._mapping(info),
            )
        except Unfit as error:
            raise self._unfit(error) from error
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

    def _mapping(self, info: Any) -> Any:
        if type(info) is dict or isinstance(info, Mapping):  # the first is quick
            return info
        raise Unfit("gave as info", info, "a dict")

    def _number(self, reward: Any) -> float:
        found = number(reward)
        if found is None:
            raise Unfit("gave as reward", reward, "a number")
        return found

    def _flag(self, name: str, value: Any) -> bool:
        found = number(value)
        if found not in (0, 1):
            raise Unfit(f"gave as {name}", value, "a bool")
        return bool(found)

    def _unfit(self, error: Unfit) -> DiffpolicyError:
        return DiffpolicyError(
            f"{self.name} {error.given} in {self._call()}; expected {error.expected}"
        )

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
    """Place, "file:line", of the last frame outside wrappers; "" if there is none."""
    if error is None:
        return ""
    frames = [
        f"{frame.f_code.co_filename}:{line}"
        for frame, line in traceback.walk_tb(error.__traceback__)
        if not f"{frame.f_globals.get('__name__', '')}.".startswith(WRAPPERS)
    ]
    return frames[-1] if frames else _place(error.__cause__)


@functools.cache
def _warn(text: str) -> None:
    """Warn once, not once for each environment."""
    sys.stderr.write(f"warning: {text}\n")
