"""An environment looked at once, before any episode, in a process of its own."""

import hashlib
import inspect
from collections.abc import Callable, MutableSequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffpolicy import environment
from diffpolicy.policy import Policy
from diffpolicy.rollout import check_fit
from diffpolicy.watched import Watched


@dataclass(frozen=True)
class Facts:
    """An environment that fits its policy."""

    limit: int
    control_dt_s: float
    source: str | None  # SHA-256 of the file that defines it, where there is one


def look(
    policy: Policy,
    make_env: Callable[[], Any],
    neutral: str | None,
    control_dt_s: float | None,
    at: MutableSequence[int],
) -> Facts:
    """The environment, checked against the policy and the options."""
    watched = Watched(make_env, 0, at)
    env = watched.env
    try:
        check_fit(policy, env)
        limit = environment.episode_limit(env)
        environment.neutral_rule(env, neutral)
        dt = environment.control_dt_s(env, control_dt_s)
        path = inspect.getsourcefile(type(env.unwrapped))
    finally:
        watched.close()
    return Facts(limit, dt, path and hashlib.sha256(Path(path).read_bytes()).hexdigest())
