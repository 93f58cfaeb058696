"""Fit of an environment and a task: the same observations, in the same order, and actions."""

import json
from collections.abc import Iterable, Mapping, Sequence

from diffpolicy.environment.pictures import PIXELS
from diffpolicy.errors import DiffpolicyError
from diffpolicy.specification import FLAT, NO_ENVIRONMENT, ObservationSpec, Task


def fitting_keys(env, known: Sequence[str] | None) -> tuple[str, ...] | None:
    """Parts of a Dict observation in their order; DiffpolicyError if a known order differs."""
    found = env.observation_keys
    if known is not None and found is not None and tuple(known) != found:
        raise DiffpolicyError(
            f"{env.spec.id} observes {', '.join(found)}, in this order; expected, as in the data, "
            f"{', '.join(known)}. Try the environment and the versions of the recording, or a "
            "Dict of pairs in that order"
        )
    return found or (None if known is None else tuple(known))


def check_fit(env, task: Task) -> None:
    """Raise DiffpolicyError unless the environment has the observations and actions of the task.

    It may observe more keys than the task.
    """
    actions = env.action_space.shape[0]
    check_usable(env, task.observations)
    if is_flat(env.observations) and is_flat(task.observations):
        found = (env.observations[FLAT].size, actions)
        if found != (task.observation_dim, task.action_dim):
            raise DiffpolicyError(
                f"{env.spec.id} has {found[0]} observations and {found[1]} actions; the checkpoint "
                f"was trained for {task.observation_dim} and {task.action_dim} ({task.env_id})"
            )
    elif actions != task.action_dim:
        raise DiffpolicyError(
            f"{env.spec.id} has {actions} actions; the checkpoint was trained for "
            f"{task.action_dim} ({task.env_id})"
        )
    for key, spec in task.observations.items():
        _check_key(env, key, spec, task)
    fitting_keys(env, task.observation_keys)


def check_usable(env, keys: Iterable[str] | None) -> None:
    """Raise DiffpolicyError for a key, by default of all, whose pictures cannot be told apart.

    The environment leaves such keys out of its observations; see `Parts`.
    """
    for key in env.refused if keys is None else keys:
        if key in env.refused:
            raise DiffpolicyError(env.refused[key])


def _check_key(env, key: str, spec: ObservationSpec, task: Task) -> None:
    found = env.observations.get(key)
    if found and found.shape == spec.shape:
        return
    observed = ", ".join(f"{k} ({described(s)})" for k, s in env.observations.items())
    advice = (
        f"the environment of the training, --env {task.env_id} --env-kwargs "
        f"'{json.dumps(task.env_kwargs)}', or train with --camera N for a picture {PIXELS!r} of "
        "its own"
    )
    if task.env_id == NO_ENVIRONMENT:
        advice = f"an environment with these keys, or train with --env {env.spec.id}"
    raise DiffpolicyError(
        f"{env.spec.id} observes {observed}; the checkpoint was trained for {key} "
        f"({described(spec)}). Try {advice}"
    )


def described(spec: ObservationSpec) -> str:
    """One key in words."""
    if spec.is_picture:
        return "a picture of {} × {} px with {} channels".format(*spec.shape)
    return f"a vector of {spec.size}"


def is_flat(observations: Mapping[str, ObservationSpec]) -> bool:
    """True for one vector."""
    return list(observations) == [FLAT] and not observations[FLAT].is_picture
