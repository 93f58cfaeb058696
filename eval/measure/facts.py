"""Facts of an environment, read in a process of its own before any episode."""

import hashlib
import inspect
from collections.abc import Callable, MutableSequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from diffpolicy import environment
from diffpolicy.control.episode import RolloutOptions, RunningEpisode, ask, begin_episode, observe
from diffpolicy.control.external import External
from diffpolicy.environment.monitored import Monitored
from diffpolicy.environment.outcome import new_outcome
from diffpolicy.errors import DiffpolicyError
from diffpolicy.specification import Task

from ..world_config import WorldConfig
from .description import Budget
from .periods import same_period
from .timing import Histories


class World(NamedTuple):
    """The environment of an evaluation; control_dt_s: None if it is to declare it."""

    env_id: str
    kwargs: dict[str, Any]
    control_dt_s: float | None
    camera: int | None


def world_of(config: WorldConfig, policy: Budget) -> World:
    """The environment of the options, else that of training."""
    given = None if config.env_kwargs is None else environment.parse_kwargs(config.env_kwargs)
    if isinstance(policy, External):
        return World(config.env or "", given or {}, config.control_dt, None)
    task = policy.task
    same = config.env in (None, task.env_id)
    kwargs = (task.env_kwargs if same else {}) if given is None else given
    dt_s = config.control_dt or (task.control_dt_s if same else None)
    return World(config.env or task.env_id, kwargs, dt_s, task.camera)


@dataclass(frozen=True)
class Facts:
    """Facts of an environment that fits its policy."""

    limit: int
    control_dt_s: float
    score_from: str | None  # None: the score is success
    source: str | None  # SHA-256 of the file that defines it, if any
    first: Histories | None = None  # given to a policy of others, which answered


def look(
    policy: Budget,
    make_env: Callable[[], Any],
    config: WorldConfig,
    control_dt_s: float | None,
    at: MutableSequence[int],
) -> Facts:
    """Check the environment against the policy and the options. Raises DiffpolicyError."""
    monitored = Monitored(make_env, 0, at)
    env = monitored.env
    try:
        if not isinstance(policy, External):
            environment.check_fit(env, policy.task)
        limit = environment.episode_limit(env)
        environment.neutral_rule(env, config.neutral)
        outcome = new_outcome(env, config.success_from, config.success, config.score_from)
        dt = environment.control_dt_s(env, control_dt_s)
        if not isinstance(policy, External) and config.control_dt is None:
            _check_period(env.spec.id, dt, policy.task)
        source = _source(type(env.unwrapped))
        first = try_out(policy, monitored, config.seed) if isinstance(policy, External) else None
    finally:
        monitored.close()
    return Facts(limit, dt, outcome.score_from, source, first)


def _check_period(env_id: str, found_s: float, task: Task) -> None:
    """Refuse another control period than that of training, unless --control-dt asks for it."""
    if not same_period(found_s, task.control_dt_s):
        raise DiffpolicyError(
            f"{env_id} has a control period of {found_s:g} s, the policy was trained for "
            f"{task.control_dt_s:g} s in {task.env_id}; give --control-dt {found_s:g} to evaluate "
            "it nevertheless"
        )


def try_out(policy: External, env: Monitored, seed: int) -> Histories:
    """The first histories {key: [1, T_o, …]} of an episode, which the policy has answered.

    Raises DiffpolicyError if the environment lacks a key, or if the answer is of no use.
    """
    environment.check_usable(env.env, getattr(policy, "observations", None))
    episode = begin_episode(env, seed, policy, None, RolloutOptions(control_dt_s=1.0))
    assert isinstance(episode, RunningEpisode)  # else an EnvironmentFailure was raised
    first = observe([episode], 1)
    [chunk] = ask(policy, first, [(seed, 0)], 1)
    episode.check_chunk(chunk)
    if episode.failure:
        raise DiffpolicyError(episode.failure)
    return first


def first_look(
    policy: External, make_env: Callable[[], Any], seed: int, at: MutableSequence[int]
) -> tuple[Histories, float | None]:
    """The histories of `try_out`, and the control period in s, if the environment declares it."""
    monitored, dt_s = Monitored(make_env, seed, at), None
    try:
        with suppress(DiffpolicyError):
            dt_s = environment.control_dt_s(monitored.env)
        return try_out(policy, monitored, seed), dt_s
    finally:
        monitored.close()


def _source(kind: type) -> str | None:
    try:
        path = inspect.getsourcefile(kind)
        return path and hashlib.sha256(Path(path).read_bytes()).hexdigest()
    except (TypeError, OSError):  # defined without a file
        return None
