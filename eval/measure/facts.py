"""Facts of an environment, read in a process of its own before any episode."""

import hashlib
import inspect
from collections.abc import Callable, MutableSequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffpolicy import environment
from diffpolicy.control.rollout import check_fit
from diffpolicy.environment.outcome import new_outcome
from diffpolicy.environment.watched import Watched
from diffpolicy.policy import Policy

from ..config import TaskConfig


@dataclass(frozen=True)
class Facts:
    """Facts of an environment that fits its policy."""

    limit: int
    control_dt_s: float
    score_key: str | None  # None: the score is success
    source: str | None  # SHA-256 of the file that defines it, if any


def look(
    policy: Policy,
    make_env: Callable[[], Any],
    config: TaskConfig,
    control_dt_s: float | None,
    at: MutableSequence[int],
) -> Facts:
    """Check the environment against the policy and the options. Raises DiffpolicyError."""
    watched = Watched(make_env, 0, at)
    env = watched.env
    try:
        check_fit(policy, env)
        limit = environment.episode_limit(env)
        environment.neutral_rule(env, config.neutral)
        outcome = new_outcome(env, config.success_from, config.success, config.score_from)
        dt = environment.control_dt_s(env, control_dt_s)
        source = _source(type(env.unwrapped))
    finally:
        watched.close()
    return Facts(limit, dt, outcome.score_key, source)


def _source(kind: type) -> str | None:
    try:
        path = inspect.getsourcefile(kind)
        return path and hashlib.sha256(Path(path).read_bytes()).hexdigest()
    except (TypeError, OSError):  # defined without a file
        return None
