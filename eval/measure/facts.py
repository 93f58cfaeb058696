"""An environment looked at once, before any episode, in a process of its own."""

import hashlib
import inspect
from collections.abc import Callable, MutableSequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffpolicy import environment
from diffpolicy.environment.monitored import Monitored
from diffpolicy.environment.outcome import new_outcome
from diffpolicy.policy import Policy

from ..config import TaskConfig


@dataclass(frozen=True)
class Facts:
    """An environment that fits its policy."""

    limit: int
    control_dt_s: float
    score_key: str | None  # None: the score is success
    source: str | None  # SHA-256 of the file that defines it, where there is one


def look(
    policy: Policy,
    make_env: Callable[[], Any],
    config: TaskConfig,
    control_dt_s: float | None,
    at: MutableSequence[int],
) -> Facts:
    """The environment, checked against the policy and the options."""
    monitored = Monitored(make_env, 0, at)
    env = monitored.env
    try:
        environment.check_fit(env, policy.task)
        limit = environment.episode_limit(env)
        environment.neutral_rule(env, config.neutral)
        outcome = new_outcome(env, config.success_from, config.success, config.score_from)
        dt = environment.control_dt_s(env, control_dt_s)
        source = _source(type(env.unwrapped))
    finally:
        monitored.close()
    return Facts(limit, dt, outcome.score_key, source)


def _source(kind: type) -> str | None:
    try:
        path = inspect.getsourcefile(kind)
        return path and hashlib.sha256(Path(path).read_bytes()).hexdigest()
    except (TypeError, OSError):  # made without a file
        return None
