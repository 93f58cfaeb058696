"""Demonstrations that a run was not trained on, read in the way that training read them."""

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from diffpolicy.checked import validate
from diffpolicy.checkpoint import Checkpoint
from diffpolicy.data.attributes import attribute
from diffpolicy.data.demonstrations import contents
from diffpolicy.errors import DiffpolicyError
from diffpolicy.specification import FLAT, NO_ENVIRONMENT, Task
from diffpolicy.training.config import TrainConfig
from diffpolicy.training.preparation import fingerprint, read, split_episodes

from .periods import same_period


@dataclass(frozen=True)
class HeldOut:
    """Demonstrations, and the numbers of the episodes [E] that the run was not trained on.

    observations {key: [N, …]}, arrays or pictures on disk, and actions [N, D_a]: of all episodes,
    in units of the data; ends: of all of them. reason: in words.
    """

    path: Path
    observations: dict[str, Any]
    actions: np.ndarray
    ends: np.ndarray
    episodes: np.ndarray
    reason: str


@dataclass(frozen=True)
class Reading:
    """The part of a training's configuration that says which data it read."""

    data: str | None = None
    action: str = "action"
    obs: list[str] = field(default_factory=list)
    seed: int = 0
    validation_fraction: float = 0.0


@dataclass(frozen=True)
class Trained:
    """The part of a training's provenance that identifies its data; imported policies have none."""

    config: Reading = field(default_factory=Reading)
    fingerprint: str | None = None


def held_out(run: Path, checkpoint: Checkpoint, data: Path | None) -> HeldOut:
    """Episodes of the training's store that it held out, or all episodes of another data set.

    Raises DiffpolicyError if there are none, or if the data do not fit the policy.
    """
    trained = _trained(run, checkpoint)
    every, attributes = _read(run, checkpoint, data, trained)
    count = len(every.ends)
    if fingerprint(*every.observations.values(), every.actions, every.ends) == trained.fingerprint:
        episodes, reason = _of_training(run, trained.config, count)
        return replace(every, episodes=episodes, reason=reason)
    _check_other(run, every.path, data, trained.config)
    _check_facts(every.path, attributes, checkpoint.specification.task)
    return replace(every, reason=_of_others(trained, count))


def all_episodes(run: Path, checkpoint: Checkpoint, data: Path | None) -> HeldOut:
    """All episodes of a data set, by default the training's, held out or not.

    Raises DiffpolicyError if they are not here or do not fit the policy.
    """
    return _read(run, checkpoint, data, _trained(run, checkpoint))[0]


def _read(
    run: Path, checkpoint: Checkpoint, data: Path | None, trained: Trained
) -> tuple[HeldOut, dict[str, Any]]:
    """All episodes of a data set, and its attributes."""
    path = data or _store_of(run, trained.config)
    options = _reading(checkpoint, trained.config, path)
    demonstrations, observations, task, *_ = read(options)
    _check_shapes(path, task, checkpoint.specification.task)
    ends = demonstrations.episode_ends
    numbers, reason = np.arange(len(ends)), f"all {len(ends)}"
    found = HeldOut(path, observations, demonstrations.action, ends, numbers, reason)
    return found, demonstrations.attributes


def _trained(run: Path, checkpoint: Checkpoint) -> Trained:
    """The provenance of a training here; that of an imported policy has fields of others."""
    found = checkpoint.specification.training
    if "fingerprint" not in found:
        return Trained()
    return validate(Trained, found, f"{run}: training provenance", others=True)


def _store_of(run: Path, trained: Reading) -> Path:
    if trained.data is None:
        raise DiffpolicyError(f"{run} does not say which data it was trained on; give --data")
    if not Path(trained.data).exists():
        raise DiffpolicyError(
            f"{run} was trained on {trained.data}, which is not here; give its place with --data"
        )
    return Path(trained.data)


def _reading(checkpoint: Checkpoint, trained: Reading, path: Path) -> TrainConfig:
    """Options that read the same observations and actions from a data set.

    Without the environment of the training, unless the data lack arrays of the policy's keys.
    """
    task = checkpoint.specification.task
    alone = task.env_id == NO_ENVIRONMENT or _holds(path, list(task.observations), trained.obs)
    flat = list(task.observations) == [FLAT]
    return TrainConfig(
        data=path,
        out=Path(),
        action=trained.action,
        obs=tuple(trained.obs if flat and not alone else task.observations),
        env=NO_ENVIRONMENT if alone else task.env_id,
        env_kwargs=None if alone else json.dumps(task.env_kwargs),
        camera=None if alone else task.camera,
        control_dt=task.control_dt_s,
        position_targets=task.position_targets,
        mirror="off",
        normalizer=checkpoint.specification.model.normalizer,
    )


def _holds(path: Path, keys: list[str], chosen: list[str]) -> bool:
    """True if the data hold an array of each key, and no others were chosen for training."""
    return chosen in ([], keys) and set(keys) <= set(contents(path).names)


def _check_shapes(path: Path, found: Task, task: Task) -> None:
    """Raise DiffpolicyError for observations or actions of other shapes than the policy's."""
    for key, spec in task.observations.items():
        if found.observations[key].shape != spec.shape:
            raise DiffpolicyError(
                f"{path}: {key} is {list(found.observations[key].shape)}; the policy observes "
                f"{list(spec.shape)}; give --data of the same robot"
            )
    if found.action_dim != task.action_dim:
        raise DiffpolicyError(
            f"{path} has actions of {found.action_dim} numbers, the policy gives "
            f"{task.action_dim}; give --data of the same robot"
        )


def _check_facts(path: Path, attributes: dict, task: Task) -> None:
    """Raise DiffpolicyError if other data declare another control period or meaning of actions."""
    dt = attribute(attributes, "control_dt_s")
    if dt and not same_period(dt, task.control_dt_s):
        raise DiffpolicyError(
            f"{path} has a control period of {dt:g} s, the policy was trained for "
            f"{task.control_dt_s:g} s; give --data of the same rate"
        )
    targets = attribute(attributes, "position_targets")
    if targets is not None and targets != task.position_targets:
        raise DiffpolicyError(
            f"{path} declares position_targets {targets}, the policy was trained for "
            f"{task.position_targets}; give --data with actions of the same meaning"
        )


def _of_training(run: Path, trained: Reading, count: int) -> tuple[np.ndarray, str]:
    """Episodes that were held out of the training, by its seed and fraction."""
    _, held = split_episodes(count, trained.validation_fraction, trained.seed)
    if not len(held):
        raise DiffpolicyError(
            f"{run} was trained on all {count} episodes of this data set; train with a "
            "--validation-fraction, or give --data with other episodes"
        )
    return held, f"{len(held)} of {count}, held out of the training by seed {trained.seed}"


def _of_others(trained: Trained, count: int) -> str:
    if trained.fingerprint is None:
        return f"all {count}; the run does not say which data it was trained on, perhaps on these"
    return f"all {count} of another data set than that of the training"


def _check_other(run: Path, path: Path, data: Path | None, trained: Reading) -> None:
    """Refuse the training's store if it has changed: its episodes may have been seen."""
    same = trained.data is not None and Path(trained.data).resolve() == path.resolve()
    if data is None or same:
        raise DiffpolicyError(
            f"{path} has changed since {run} was trained on it, so the episodes that were held out "
            "are not known; give --data with episodes that the policy has not seen"
        )
