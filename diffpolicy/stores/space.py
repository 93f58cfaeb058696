"""Action space of a store's environment, for comparison with the actions.

A store names the module of its environment. It is imported without being asked for only if it is
one of this project's or Gymnasium's own; another one must be named with --env.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from diffpolicy import environment
from diffpolicy.data.attributes import attribute
from diffpolicy.errors import DiffpolicyError
from diffpolicy.specification import NO_ENVIRONMENT

OURS = "diffpolicy."


@dataclass(frozen=True)
class Limits:
    """Limits [D_a] of an action space; env_id: of its environment."""

    env_id: str
    low: np.ndarray
    high: np.ndarray


def action_limits(
    attributes: Mapping[str, Any], env_id: str | None, dimensions: int
) -> tuple[Limits | None, str]:
    """Limits of the actions, or None and the reason; env_id: the one that the user named.

    Raises DiffpolicyError if the environment that the user named cannot be made or does not fit.
    """
    if env_id:
        return _limits(env_id, attributes, dimensions), ""
    try:
        stored = attribute(attributes, "env_id")
        if stored in (None, NO_ENVIRONMENT):
            return None, "the data name no environment; give --env ID"
        if ":" in stored and not stored.startswith(OURS):
            return None, f"give --env {stored} to import the module that the data name"
        return _limits(stored, attributes, dimensions), ""
    except DiffpolicyError as error:
        return None, " ".join(str(error).split())


def _limits(env_id: str, attributes: Mapping[str, Any], dimensions: int) -> Limits:
    kwargs = dict(attribute(attributes, "env_kwargs") or {})
    env = environment.make(env_id, kwargs, camera=attribute(attributes, "camera"))
    try:
        space: Any = env.action_space
        low, high = (np.asarray(bound, np.float64).ravel() for bound in (space.low, space.high))
    finally:
        env.close()
    if len(low) != dimensions:
        raise DiffpolicyError(f"{env_id} takes actions of {len(low)} numbers, not {dimensions}")
    return Limits(env_id, low, high)
