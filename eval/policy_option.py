"""Rules of the option --policy, which names a policy of others instead of a run."""

from dataclasses import fields
from typing import Any

from diffpolicy.config import STEPS
from diffpolicy.errors import DiffpolicyError

OF_A_RUN = (  # options without a meaning for a policy of others
    *("device", "engine", "precision", "sampler", "grid", "start", "end", "eta", "noise_scale"),
    *("clip", "start_scale", "regression", "baseline"),
)


def check_policy(config: Any) -> None:
    """Raise DiffpolicyError for options that do not go with --policy."""
    given = [f.name for f in fields(config) if f.name in OF_A_RUN]
    given = [name for name in given if getattr(config, name) != getattr(type(config), name)]
    if given:
        options = ", ".join("--" + name.replace("_", "-") for name in given)
        raise DiffpolicyError(
            f"--policy makes the policy itself; leave out {options}, which a run alone has"
        )
    if config.env is None:
        raise DiffpolicyError("--policy needs its environment; give --env module:Name-v0")
    steps = getattr(config, "ddim_steps", None)
    for number in (steps,) if isinstance(steps, int) else steps or ():
        if not STEPS.low <= number <= STEPS.high:
            raise DiffpolicyError(f"--ddim-steps must be at least 1 with --policy; got {number}")
