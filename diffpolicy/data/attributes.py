"""Attributes of a store: one schema for recording, import and training."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from diffpolicy.config import CAMERA
from diffpolicy.errors import DiffpolicyError

VERSION = "format_version"


@dataclass(frozen=True)
class StoreAttributes:
    """Attributes that recording writes. Other stores may lack any of them; see `attribute`.

    observation_keys: parts of a Dict observation in the order of the flat vector. The fields from
    `expert` to `first_seed` are provenance. camera: side in px of the environment's picture that is
    observed as `pixels`; older stores lack it, and have none.
    """

    env_id: str
    env_kwargs: dict[str, Any]
    control_dt_s: float
    position_targets: bool
    observation_keys: list[str] | None
    expert: str
    success_from: str | None
    success: str | None  # None for at-any-tick, as in stores from before there was a choice
    max_steps: int | None
    first_seed: int
    camera: int | None = None


def _is_positive(value: Any) -> bool:
    return isinstance(value, int | float) and 0 < value < math.inf and value is not True


def _is_camera(value: Any) -> bool:
    return value is None or (type(value) is int and CAMERA.low <= value <= CAMERA.high)


def _are_names(value: Any) -> bool:
    return value is None or (isinstance(value, list) and all(isinstance(v, str) for v in value))


READ = {  # by training: (expected, rule, option that overrides it)
    "env_id": ("a name", lambda v: isinstance(v, str) and v, "--env"),
    "env_kwargs": ("a JSON object", lambda v: isinstance(v, dict), "--env-kwargs"),
    "control_dt_s": ("a positive number", _is_positive, "--control-dt"),
    "position_targets": ("true or false", lambda v: v in (True, False, None), "--position-targets"),
    "camera": ("a side in px, or null", _is_camera, "--camera"),
    "observation_keys": ("a list of names or null", _are_names, "another store"),
}


def attribute(attributes: Mapping[str, Any], name: str) -> Any:
    """One checked attribute that training reads; None if it is absent."""
    expected, rule, option = READ[name]
    if name in attributes and not rule(attributes[name]):
        raise DiffpolicyError(
            f"the store's attribute {name} is not {expected}; got {attributes[name]!r}; give "
            f"{option}"
        )
    return attributes.get(name)
