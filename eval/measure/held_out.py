"""Demonstrations that a run was not trained on, read in the way that training read them."""

import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from diffpolicy.checked import validate
from diffpolicy.checkpoint import Checkpoint
from diffpolicy.config import TrainConfig
from diffpolicy.data.attributes import attribute
from diffpolicy.errors import DiffpolicyError
from diffpolicy.specification import FLAT, NO_ENVIRONMENT, Task
from diffpolicy.training.preparation import fingerprint, read, split_episodes

SAME_PERIOD = 1e-3  # relative difference of control periods that is rounding


@dataclass(frozen=True)
class HeldOut:
    """Demonstrations, and the numbers of the episodes [E] that the run was not trained on.

    observations {key: [N, …]}, actions [N, D_a]: of all episodes, in units of the data; ends: of
    all of them. reason: in words.
    """

    path: Path
    observations: dict[str, np.ndarray]
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
    """The part of a training's provenance that identifies its data; other policies have none."""

    config: Reading = field(default_factory=Reading)
    fingerprint: str | None = None


def held_out(run: Path, checkpoint: Checkpoint, data: Path | None) -> HeldOut:
    """Episodes of the training's store that it held out, or all episodes of another data set.

    Raises DiffpolicyError if there are none, or if the data do not fit the policy.
    """
    trained: Trained = validate(
        Trained, checkpoint.specification.training, f"{run}: training provenance", others=True
    )
    path = data or _store_of(run, trained.config)
    config = _reading(checkpoint, trained.config, path)
    demonstrations, observations, task, _ = read(config)
    _check_fit(path, task, checkpoint.specification.task, demonstrations.attributes)
    actions, ends = demonstrations.action, demonstrations.episode_ends
    found = fingerprint(*observations.values(), actions, ends)
    if found == trained.fingerprint:
        episodes, reason = _of_training(run, trained.config, len(ends))
    else:
        _check_other(run, path, data, trained.config)
        episodes = np.arange(len(ends))
        reason = f"all {len(ends)} of another data set than that of the training"
    return HeldOut(path, observations, actions, ends, episodes, reason)


def _store_of(run: Path, trained: Reading) -> Path:
    if trained.data is None:
        raise DiffpolicyError(f"{run} does not say which data it was trained on; give --data")
    if not Path(trained.data).exists():
        raise DiffpolicyError(
            f"{run} was trained on {trained.data}, which is not here; give its place with --data"
        )
    return Path(trained.data)


def _reading(checkpoint: Checkpoint, trained: Reading, path: Path) -> TrainConfig:
    """Options that read the same observations and actions from a data set."""
    task = checkpoint.specification.task
    alone = task.env_id == NO_ENVIRONMENT
    mapped = not alone and list(task.observations) == [FLAT]
    return TrainConfig(
        data=path,
        out=Path(),
        action=trained.action,
        obs=tuple(trained.obs if mapped else task.observations),
        env=task.env_id,
        env_kwargs=None if alone else json.dumps(task.env_kwargs),
        camera=task.camera,
        control_dt=task.control_dt_s,
        position_targets=task.position_targets,
        normalizer=checkpoint.specification.model.normalizer,
    )


def _check_fit(path: Path, found: Task, task: Task, attributes: dict) -> None:
    """Raise DiffpolicyError for other keys, shapes, actions or another control period."""
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
    dt = attribute(attributes, "control_dt_s")
    if dt and abs(dt / task.control_dt_s - 1) > SAME_PERIOD:
        raise DiffpolicyError(
            f"{path} has a control period of {dt:g} s, the policy was trained for "
            f"{task.control_dt_s:g} s; give --data of the same rate"
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


def _check_other(run: Path, path: Path, data: Path | None, trained: Reading) -> None:
    """Refuse the training's store if it has changed: its episodes may have been seen."""
    same = trained.data is not None and Path(trained.data).resolve() == path.resolve()
    if data is None or same:
        raise DiffpolicyError(
            f"{path} has changed since {run} was trained on it, so the episodes that were held out "
            "are not known; give --data with episodes that the policy has not seen"
        )
