"""What a control loop has to know about a Gymnasium environment, whoever made it.

An environment may declare, on its unwrapped object: `control_dt_s` (or `dt`), `neutral_action`,
`position_targets`, `expert(rng)`, `observations_from(arrays)` with `demonstration_arrays`. The
command line says what it does not declare.
"""

import importlib
import inspect
import math
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np

from diffpolicy.checked import parse_json, shown, validate
from diffpolicy.config import CONTROL_DT, WIDTH
from diffpolicy.errors import DiffpolicyError
from diffpolicy.headless import prefer_egl

SuccessRule = Callable[[Mapping[str, Any]], bool]  # of a step's info
SUCCESS_KEYS = ("success", "is_success", "task_completions")


@dataclass(frozen=True)
class Task:
    """The facts that training writes down and control needs again."""

    env_id: str
    control_dt_s: Annotated[float, CONTROL_DT]
    position_targets: bool
    observation_dim: Annotated[int, WIDTH]
    action_dim: Annotated[int, WIDTH]
    env_kwargs: dict[str, Any] = field(default_factory=dict)
    observation_keys: tuple[str, ...] | None = None  # of a Dict, in the order of the flat vector


def parse_kwargs(text: str | None) -> dict[str, Any]:
    """A JSON object from the command line."""
    try:
        return validate(dict[str, Any], parse_json(text or "{}", "it"), "it")
    except DiffpolicyError as error:
        raise DiffpolicyError(
            f"--env-kwargs must be a JSON object; got {shown(text)}: {error}"
        ) from error


def make(
    env_id: str,
    kwargs: Mapping[str, Any],
    max_steps: int | None = None,
    render_mode: str | None = None,
):
    """gymnasium.make with one flat observation and one clear error; actions must be a Box."""
    prefer_egl()
    _see_working_directory()
    import gymnasium

    options: dict[str, Any] = {} if max_steps is None else {"max_episode_steps": max_steps}
    if render_mode:
        options["render_mode"] = render_mode
    try:
        env = gymnasium.make(env_id, disable_env_checker=True, **options, **kwargs)
    except (gymnasium.error.Error, ImportError, TypeError, ValueError, AssertionError) as error:
        text = str(error) or f"{type(error).__name__}, which may be a matter of versions"
        remedy = _remedy(error, env_id)
        raise DiffpolicyError(f"cannot make the environment {env_id!r}: {text}{remedy}") from error
    if not isinstance(env.action_space, gymnasium.spaces.Box) or len(env.action_space.shape) != 1:
        raise DiffpolicyError(f"{env_id} must take a flat Box of actions; has {env.action_space}")
    if not isinstance(env.observation_space, gymnasium.spaces.Box):
        env = gymnasium.wrappers.FlattenObservation(env)
    if len(env.observation_space.shape or ()) != 1:
        raise DiffpolicyError(
            f"{env_id} must give flat observations; has the shape {env.observation_space.shape}"
        )
    return env


def _remedy(error: Exception, env_id: str) -> str:
    """What would do, where that can be told."""
    from gymnasium.envs import registration
    from gymnasium.error import UnregisteredEnv

    if isinstance(error, UnregisteredEnv) and ":" not in env_id:
        return " Environments of a package are named module:Name-v0"
    if "unexpected keyword argument" not in str(error):
        return ""
    made_by = registration.spec(env_id.rpartition(":")[2]).entry_point
    made_by = registration.load_env_creator(made_by) if isinstance(made_by, str) else made_by
    return f". It takes: {', '.join(inspect.signature(made_by).parameters)}" if made_by else ""


def _see_working_directory() -> None:
    """Modules beside the user can be named by `module:Id` and `module:function`."""
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))


def declared(env, name: str) -> Any:
    """An attribute of the unwrapped environment, or None."""
    return getattr(env.unwrapped, name, None)


def control_dt_s(env, override: float | None = None) -> float:
    """Seconds between two actions: the override, `control_dt_s`, or MuJoCo's usual `dt`."""
    found = override or declared(env, "control_dt_s") or declared(env, "dt")
    if not found or not 0 < found < math.inf:
        raise DiffpolicyError(
            f"{env.spec.id} does not say how long a control tick lasts; give --control-dt SECONDS"
        )
    return float(found)


def episode_limit(env) -> int:
    """Ticks an episode lasts at most."""
    limit = env.spec.max_episode_steps
    if limit is None:
        raise DiffpolicyError(f"{env.spec.id} has no limit of steps; give --max-steps")
    return int(limit)


def success_rule(condition: str | None) -> SuccessRule:
    """Whether a step's `info` tells of success: a function of it.

    condition is the name of a key, "key>number" or "key<number"; by default the first of the usual
    keys, or that no task is left to complete. A list (of completed tasks, say) stands for its
    length.
    """
    name, sign, threshold = _parsed(condition)
    keys = SUCCESS_KEYS if name is None else (name,)

    def success(info: Mapping[str, Any]) -> bool:
        if condition is None and "tasks_to_complete" in info:
            return len(info["tasks_to_complete"]) == 0
        for key in keys:
            if key in info:
                return _holds(key, info[key], sign, threshold)
        raise DiffpolicyError(
            f"info has no {' or '.join(keys)}; it holds: {', '.join(map(str, info)) or 'nothing'}. "
            "Name the key, or a condition such as key>0.5, with --success-from"
        )

    return success


def _holds(key: str, value: Any, sign: str, threshold: float) -> bool:
    if isinstance(value, list | tuple | set):
        value = len(value)
    try:
        number = np.asarray(value, np.float64)
    except (TypeError, ValueError) as error:
        raise DiffpolicyError(f"info[{key!r}] is no number and no list: {value!r}") from error
    if not number.size or np.isnan(number).any():
        raise DiffpolicyError(f"info[{key!r}] is no number and no list: {value!r}")
    if not sign:
        return bool(np.all(number))
    return bool(np.all(number > threshold if sign == ">" else number < threshold))


def _parsed(text: str | None) -> tuple[str | None, str, float]:
    """ "key", "key>number" or "key<number" as (key, sign or "", number)."""
    key, *rest = re.split(r"\s*([<>])\s*", text or "", maxsplit=1)
    sign, number = rest or ("", "0")
    try:
        threshold = float(number)
    except ValueError:
        threshold = math.nan
    if not math.isfinite(threshold) or (sign and not key):
        raise DiffpolicyError(f"--success-from must be key, key>number or key<number; got {text!r}")
    return key or None, sign, threshold


def neutral_rule(env, text: str | None) -> Callable[[np.ndarray | None], np.ndarray]:
    """What a tick without any action applies: a function of the last applied action (or None).

    text is hold, zero, a vector like "0,0.5", or None for the environment's own declaration, and
    hold where it declares none. hold before any action is zero.
    """
    space = env.action_space
    if text is None and declared(env, "neutral_action") is not None:
        return lambda last: np.asarray(declared(env, "neutral_action"), space.dtype)
    if text in (None, "hold"):
        return lambda last: np.zeros(space.shape, space.dtype) if last is None else last
    if text == "zero":
        return lambda last: np.zeros(space.shape, space.dtype)
    try:
        vector = np.array([float(x) for x in text.split(",")], space.dtype)
    except ValueError:
        vector = np.empty(0)
    if vector.shape != space.shape or not np.isfinite(vector).all():
        raise DiffpolicyError(
            f"--neutral must be hold, zero or {space.shape[0]} numbers with commas; got {text!r}"
        )
    return lambda last: vector


def load_function(reference: str) -> Callable[..., Any]:
    """`module:function`, with the working directory on the path."""
    module, _, name = reference.partition(":")
    _see_working_directory()
    try:
        function = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, SyntaxError, TypeError, ValueError) as error:
        raise DiffpolicyError(
            f"--policy must be module:function, importable from here; got {reference!r}: {error}"
        ) from error
    if not callable(function):
        raise DiffpolicyError(f"--policy must be module:function; {reference!r} is {function!r}")
    return function
