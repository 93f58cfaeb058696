"""Facts that a control loop needs about a Gymnasium environment, and environments by id.

An environment may declare, on its unwrapped object: `control_dt_s` (or `dt`), `neutral_action`,
`position_targets`, `score_key` (of `info`, a score in [0, 1]), `expert(rng)`,
`observations_from(arrays)` with `demonstration_arrays`, `action_from_cursor(cursor)` with `cursor`,
`mirrored(observations, actions)`. Options of the command line supply the rest.
"""

import importlib
import inspect
import math
import sys
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium.envs import registration

from diffpolicy.checked import parse_json, shown, validate
from diffpolicy.environment.boundary import Boundary, describe_error
from diffpolicy.environment.fit import check_fit as check_fit
from diffpolicy.environment.fit import check_usable as check_usable
from diffpolicy.environment.fit import fitting_keys as fitting_keys
from diffpolicy.environment.fit import is_flat as is_flat
from diffpolicy.environment.headless import prefer_egl
from diffpolicy.environment.pictures import add_camera
from diffpolicy.errors import DiffpolicyError, UnknownEnvironment
from diffpolicy.specification import NO_ENVIRONMENT

CALLED = ("expert", "observations_from", "action_from_cursor", "mirrored")  # declared as functions


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
    camera: int | None = None,
):
    """gymnasium.make with checked observations, flat actions and one clear error: see `Boundary`.

    camera: side in px of the environment's picture, which is added to its observation as `pixels`.
    """
    if env_id == NO_ENVIRONMENT:
        raise DiffpolicyError(
            "this needs an environment, and there is none here; give --env ID, or see `diffpolicy "
            "offline`, which needs none"
        )
    prefer_egl()
    _see_working_directory()
    options: dict[str, Any] = {} if max_steps is None else {"max_episode_steps": max_steps}
    if render_mode or camera:
        options["render_mode"] = render_mode or "rgb_array"
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*not in the possible render_modes")
            env = gymnasium.make(env_id, disable_env_checker=True, **options, **kwargs)
    except DiffpolicyError:
        raise
    except Exception as error:
        text = f"cannot make the environment {env_id!r}: {describe_error(error)}"
        if not str(error):
            text += ", perhaps because of versions"
        if camera:
            text += "; a camera needs an environment with render_mode='rgb_array'"
        text += _remedy(error, env_id)
        if isinstance(error, gymnasium.error.UnregisteredEnv):
            raise UnknownEnvironment(text, env_id) from error
        raise DiffpolicyError(text) from error
    try:
        return Boundary(_with_camera(env, env_id, camera) if camera else env, env_id)
    except DiffpolicyError:
        raise
    except Exception as error:
        raise DiffpolicyError(
            f"cannot use the spaces of the environment {env_id!r}: {describe_error(error)}"
        ) from error


def _with_camera(env: gymnasium.Env, env_id: str, side: int) -> gymnasium.Env:
    try:
        return add_camera(env, side)
    except Exception as error:
        env.close()
        reason = str(error) if isinstance(error, DiffpolicyError) else describe_error(error)
        raise DiffpolicyError(
            f"{env_id} gives no picture for a camera: {reason}; expected an environment with "
            "render_mode='rgb_array'"
        ) from error


def _remedy(error: Exception, env_id: str) -> str:
    """A suggestion for the error message, or ''."""
    if isinstance(error, gymnasium.error.UnregisteredEnv) and ":" not in env_id:
        return (
            " Environments of a package are named module:Name-v0, and those of this one "
            "diffpolicy.envs:Name-v0"
        )
    if "unexpected keyword argument" not in str(error):
        return ""
    made_by = registration.spec(env_id.rpartition(":")[2]).entry_point
    made_by = registration.load_env_creator(made_by) if isinstance(made_by, str) else made_by
    return f". It takes: {', '.join(inspect.signature(made_by).parameters)}" if made_by else ""


def _see_working_directory() -> None:
    """Let `module:Id` and `module:function` name modules of the working directory."""
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))


def declared(env, name: str) -> Any:
    """An attribute of the unwrapped environment, or None."""
    try:
        value = getattr(env.unwrapped, name, None)
    except Exception as error:
        raise DiffpolicyError(
            f"{env.spec.id} failed in its {name}: {describe_error(error)}"
        ) from error
    if value is not None and callable(value) != (name in CALLED):
        kind = "a function" if name in CALLED else "a value, such as a property"
        raise DiffpolicyError(f"{name} of {env.spec.id} must be {kind}; got {value!r}")
    return value


def control_dt_s(env, override: float | None = None) -> float:
    """Seconds between two actions: the override, `control_dt_s`, or MuJoCo's usual `dt`."""
    try:
        found = override or declared(env, "control_dt_s") or declared(env, "dt")
        if found and 0 < float(found) < math.inf:
            return float(found)
        trouble = f"{env.spec.id} does not say how long a control tick lasts"
    except (DiffpolicyError, TypeError, ValueError) as error:
        trouble = f"{env.spec.id} does not say how long a control tick lasts: {error}"
    raise DiffpolicyError(f"{trouble}; give --control-dt SECONDS")


def applicable(action: np.ndarray, space: Any) -> np.ndarray:
    """A new action inside the space and of its type; rounded for integer types."""
    inside = np.clip(action, space.low, space.high)
    return (inside if space.dtype.kind == "f" else np.rint(inside)).astype(space.dtype)


def episode_limit(env) -> int:
    """Maximal length of an episode in ticks."""
    limit = env.spec.max_episode_steps
    if limit is None:
        raise DiffpolicyError(f"{env.spec.id} has no step limit; give --max-steps")
    return int(limit)


def neutral_rule(env, text: str | None) -> Callable[[np.ndarray | None], np.ndarray]:
    """Action of a tick without one: a function of the last applied action (or None).

    text is hold, zero, a vector like "0,0.5", or None for the environment's declaration, by default
    hold. hold before any action is zero.
    """
    [size], dtype = env.action_space.shape, np.result_type(env.action_space.dtype, np.float32)
    if text is None and declared(env, "neutral_action") is not None:
        return lambda last: _vector(
            declared(env, "neutral_action"), size, dtype, f"neutral_action of {env.spec.id} must be"
        )
    if text in (None, "hold"):
        return lambda last: np.zeros(size, dtype) if last is None else last
    if text == "zero":
        return lambda last: np.zeros(size, dtype)
    vector = _vector(text, size, dtype, "--neutral must be hold, zero or")
    return lambda last: vector


def _vector(values: Any, size: int, dtype: np.dtype, what: str) -> np.ndarray:
    """A new action [D_a] of finite numbers from an array, or from text like "0,0.5"."""
    try:
        parts = values.split(",") if isinstance(values, str) else values
        vector = np.array(parts, dtype).ravel()
    except (TypeError, ValueError):
        vector = np.empty(0)
    if vector.shape != (size,) or not np.isfinite(vector).all():
        raise DiffpolicyError(f"{what} {size} numbers (with commas, as text); got {values!r}")
    return vector


def load_function(reference: str) -> Callable[..., Any]:
    """The function named `module:function`, with the working directory on the path."""
    module, _, name = reference.partition(":")
    _see_working_directory()
    try:
        function = getattr(importlib.import_module(module), name)
    except Exception as error:
        raise DiffpolicyError(
            f"--policy must be module:function, importable from here; got {reference!r}: "
            f"{describe_error(error)}"
        ) from error
    if not callable(function):
        raise DiffpolicyError(f"--policy must be module:function; {reference!r} is {function!r}")
    return function
