"""Demonstrations without an environment: a store, or any other data set, and a few options.

Every array is a key of the observation under its own name, so a robot's program calls the policy
by these names. Shapes: N rows, D_a dimensions of an action.
"""

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from diffpolicy.data.attributes import attribute
from diffpolicy.data.demonstrations import Contents, Demonstrations, read_demonstrations
from diffpolicy.errors import DiffpolicyError
from diffpolicy.specification import (
    ACTION,
    NO_ENVIRONMENT,
    ObservationSpec,
    Task,
    picture,
    picture_shape,
)
from diffpolicy.training.actions import check_actions
from diffpolicy.training.config import TrainConfig
from diffpolicy.training.mirror import Pair
from diffpolicy.training.observations import as_vector, check_options, pictures_on_disk

OF_ENVIRONMENTS = ("env_kwargs", "camera")  # options


class Read(NamedTuple):
    """Demonstrations, their observations {key: [N, …]}, the task, notes, and mirror images."""

    demonstrations: Demonstrations
    observations: dict[str, np.ndarray]
    task: Task
    notes: tuple[str, ...]
    images: Pair | None = None


def read_alone(config: TrainConfig, source: Contents) -> Read:
    """Demonstrations, observations {key: [N, …]} by the names of their arrays, the task, and notes.

    Keys are those of --obs, in that order, or all arrays but actions and outcomes. Arrays with the
    shape of pictures are pictures, all others are vectors. Raises DiffpolicyError for actions among
    the keys, and for a control period or a meaning of the actions that neither the store nor an
    option declares.
    """
    _check_options(config)
    keys = list(dict.fromkeys(config.obs)) or _observed(config, source)
    dt, targets = declared_facts(config, source.store.attributes)
    rows = {key: source.store.array(f"data/{key}").shape[1:] for key in keys if key in source.names}
    if not any(map(picture_shape, rows.values())):
        check_options(config, keys)
    on_disk = pictures_on_disk(config, source, list(rows))
    demonstrations = read_demonstrations(source, keys, config.action, on_disk=on_disk)
    observations = {key: _of_key(demonstrations.arrays[key]) for key in keys}
    action = demonstrations.action
    task = Task(
        env_id=NO_ENVIRONMENT,
        control_dt_s=dt,
        position_targets=targets,
        observations={key: _spec(x, config) for key, x in observations.items()},
        action_dim=action.shape[1],
    )
    unlimited = np.full(action.shape[1], np.inf)
    notes = check_actions(f"{config.data}: data/{config.action}", action, -unlimited, unlimited)
    return Read(demonstrations, observations, task, (*demonstrations.notes, *notes))


def _check_options(config: TrainConfig) -> None:
    for name in OF_ENVIRONMENTS:
        if getattr(config, name) is not None:
            raise DiffpolicyError(
                f"--{name.replace('_', '-')} needs an environment; leave it out, or give --env ID"
            )
    if config.action in config.obs:
        raise DiffpolicyError(
            f"--obs names {config.action}, the actions that the policy is to predict; leave it out"
        )


def _observed(config: TrainConfig, source: Contents) -> list[str]:
    """Every array but actions and outcomes."""
    found = [name for name in source.names if name not in (config.action, ACTION)]
    if not found:
        raise DiffpolicyError(
            f"{config.data} holds no observation; expected arrays beside the actions "
            f"(data/{config.action}); it holds: {', '.join(source.names)}"
        )
    return found


def declared_facts(config: TrainConfig, attributes: Mapping[str, Any]) -> tuple[float, bool]:
    """Control period in seconds, and True for position targets; an option overrides the store."""
    dt = config.control_dt or attribute(attributes, "control_dt_s")
    targets = config.position_targets
    if targets is None:
        targets = attribute(attributes, "position_targets")
    missing = [
        text
        for value, text in (
            (dt, "the control period: give --control-dt SECONDS"),
            (
                targets,
                "the meaning of its actions: give --position-targets True for targets of "
                "positions, such as joint angles, or False for velocities, forces or changes",
            ),
        )
        if value is None
    ]
    if missing:
        raise DiffpolicyError(f"{config.data} does not declare {'; nor '.join(missing)}")
    return float(dt), bool(targets)


def _of_key(values: np.ndarray) -> np.ndarray:
    return values if values.dtype == np.uint8 else as_vector(values)


def _spec(values: np.ndarray, config: TrainConfig) -> ObservationSpec:
    if values.dtype == np.uint8:
        return picture(*values.shape[1:])
    return replace(ObservationSpec(values.shape[1:]), normalizer=config.normalizer)


def tell_observed(data: Path, task: Task) -> None:
    """Tell what the policy will observe, as its user must give it."""
    found = ", ".join(f"{key} {list(spec.shape)}" for key, spec in task.observations.items())
    logger = logging.getLogger("diffpolicy")
    logger.info(
        "%s: no environment; the policy observes %s at %.6g Hz and gives %d numbers",
        *(data, found, 1 / task.control_dt_s, task.action_dim),
    )
