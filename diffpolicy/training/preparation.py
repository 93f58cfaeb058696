"""Prepare training: a store becomes normalised windows and a specification.

An environment, unless there is none, says what the policy observes; see alone.py for that case.

Shapes: N rows, D_a dimensions of an action.
"""

import hashlib
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from diffpolicy import environment
from diffpolicy.checkpoint import Checkpoint
from diffpolicy.config import BATCH, PICTURE_BATCH, ModelConfig
from diffpolicy.data.attributes import attribute
from diffpolicy.data.demonstrations import Demonstrations, contents
from diffpolicy.data.normalizer import FITS, Normalizer, pixels
from diffpolicy.data.stored_pictures import StoredPictures
from diffpolicy.data.windows import Windows, make_windows
from diffpolicy.denoisers.pretrained import Convolutions
from diffpolicy.environment.pictures import PIXELS
from diffpolicy.errors import DiffpolicyError
from diffpolicy.specification import NO_ENVIRONMENT, Specification, Task, default_horizons
from diffpolicy.training.actions import check_actions
from diffpolicy.training.alone import Read, read_alone, tell_observed
from diffpolicy.training.config import ABSENT, TrainConfig
from diffpolicy.training.mirror import mirror_images, with_images
from diffpolicy.training.observations import check_observations, check_size, read_observations
from diffpolicy.version import __version__


@dataclass(frozen=True)
class Prepared:
    """Everything that training needs from the data."""

    specification: Specification
    training: Windows
    validation: Windows | None
    observation_normalizers: dict[str, Normalizer]
    action_normalizer: Normalizer
    batch: int  # windows of a training step
    notes: tuple[str, ...]  # sentences for the user
    start: Convolutions | None  # weights that the cameras start from
    weights: Mapping[str, Tensor] | None = None  # that the whole network starts from
    teacher_times: tuple[int, ...] = ()  # timesteps of the states of a teacher's trajectories


def prepare(
    config: TrainConfig, started: Checkpoint | None = None, start: Convolutions | None = None
) -> Prepared:
    """Read the store, by the environment if there is one, fit normalisers, cut windows.

    started: policy of a run that is resumed; on the same data its normalisers are kept, and it has
    no mirror images if it had none. start: weights that the cameras of a new run start from.
    """
    if started and _mirror(started) == "off":
        config = replace(config, mirror="off")
    demonstrations, observations, task, notes, images = read(config)
    if task.env_id == NO_ENVIRONMENT:
        tell_observed(config.data, task)
    pictures = any(spec.is_picture for spec in task.observations.values())
    batch = config.batch or (PICTURE_BATCH if pictures else BATCH)
    asked = config.observation_horizon, config.prediction_horizon, config.action_horizon
    horizons = default_horizons(task.control_dt_s, *asked)
    ends, actions = demonstrations.episode_ends, demonstrations.action
    train, held_out = split_episodes(len(ends), config.validation_fraction, config.seed)
    used = replace(config, batch=batch, mirror="auto" if images else "off")
    provenance = _provenance(used, demonstrations, observations)
    if images:
        train = np.concatenate([train, train + len(ends)])
        observations, actions, ends = with_images(observations, actions, ends, images)
    rows = np.repeat(np.isin(np.arange(len(ends)), train), np.diff(ends, prepend=0))
    provenance["encoder_weights"] = _origin(started, start)
    fit = FITS[config.normalizer]
    if started and started.specification.training.get("fingerprint") == provenance["fingerprint"]:
        of_observations, of_action = started.observation_normalizers, started.action_normalizer
    else:
        of_observations = {
            key: pixels(spec.shape[2]) if spec.is_picture else fit(observations[key][rows])
            for key, spec in task.observations.items()
        }
        of_action = fit(actions[rows])
    normal_observations = {
        key: x if task.observations[key].is_picture else of_observations[key].normalize(x)
        for key, x in observations.items()
    }
    normal_actions = of_action.normalize(actions)
    provenance["action_std"] = normal_actions[rows].std(0, dtype=np.float64).tolist()

    def windows(episodes: np.ndarray) -> Windows:
        return make_windows(normal_observations, normal_actions, ends, horizons, episodes)

    specification = Specification(
        model=ModelConfig(**{f.name: getattr(config, f.name) for f in fields(ModelConfig)}),
        horizons=horizons,
        task=task,
        clip_range=float(np.abs(normal_actions[rows]).max()) if config.clip else None,
        training=provenance,
    )
    validation = windows(held_out) if len(held_out) else None
    normalizers = of_observations, of_action
    return Prepared(specification, windows(train), validation, *normalizers, batch, notes, start)


def read(config: TrainConfig) -> Read:
    """The demonstrations as the policy sees them, by the environment if there is one."""
    source = contents(config.data)
    attributes = source.store.attributes
    env_id = config.env or attribute(attributes, "env_id")
    if not env_id:
        raise DiffpolicyError(
            f"{config.data} does not name its environment; give --env ID, or --env "
            f"{NO_ENVIRONMENT} to train without one"
        )
    if env_id == NO_ENVIRONMENT:
        return read_alone(config, source)
    if config.env_kwargs is not None:
        kwargs = environment.parse_kwargs(config.env_kwargs)
    else:
        kwargs = dict(attribute(attributes, "env_kwargs") or {})
    camera = _camera(config, attributes, env_id, kwargs)
    env = environment.make(env_id, kwargs, camera=camera)
    try:
        demonstrations, observations = read_observations(config, source, env)
        task = _task(config, attributes, env, list(observations), env_id, kwargs, camera)
        space: Any = env.action_space
        action = demonstrations.action
        check_observations(config.data, observations, task)
        check_size(config.data, "actions", action.shape[1], task.action_dim, env_id)
        images = None
        if config.mirror == "auto":
            images = mirror_images(config.data, env, observations, action)
    finally:
        env.close()
    name = f"{config.data}: data/{config.action}"
    notes = check_actions(name, action, space.low, space.high)
    if images:
        notes += check_actions(f"{name}, mirrored,", images[1], space.low, space.high)
    notes = [*demonstrations.notes, *_other_environment(config, attributes), *notes]
    return Read(demonstrations, observations, task, tuple(notes), images)


def _other_environment(config: TrainConfig, attributes: Mapping[str, Any]) -> list[str]:
    """A note if the demonstrations are of another environment than --env, whatever its module."""
    recorded = attributes.get("env_id")
    ids = {n.rpartition(":")[2] for n in (config.env, recorded) if n and isinstance(n, str)}
    if len(ids) < 2:
        return []
    return [f"{config.data} was recorded in {recorded}, not in {config.env}, which --env names"]


def _camera(
    config: TrainConfig, attributes: Mapping[str, Any], env_id: str, kwargs: dict[str, Any]
) -> int | None:
    """Side in px of the added picture; None where the keys that are asked for do not need it.

    A Dict without a picture of its own has its keys only beside the added one, which it keeps.
    """
    camera = config.camera or attribute(attributes, "camera")
    if camera is None or not config.obs or PIXELS in config.obs:
        return camera
    plain = environment.make(env_id, kwargs)
    plain.close()
    same = plain.observation_keys is None and plain.observations.keys() >= set(config.obs)
    return None if same else camera


def _task(
    config: TrainConfig,
    attributes: Mapping[str, Any],
    env: Any,
    keys: list[str],
    env_id: str,
    kwargs: dict[str, Any],
    camera: int | None,
) -> Task:
    if sorted(config.obs) == sorted(env.observation_keys or ()):
        environment.fitting_keys(env, config.obs)
    targets = config.position_targets
    if targets is None:
        targets = attribute(attributes, "position_targets")
    if targets is None:
        targets = environment.declared(env, "position_targets")
    dt = environment.control_dt_s(env, config.control_dt or attribute(attributes, "control_dt_s"))
    specs = {key: env.observations[key] for key in keys}
    return Task(
        env_id=env_id,
        control_dt_s=dt,
        position_targets=bool(targets),
        observations={
            key: spec if spec.is_picture else replace(spec, normalizer=config.normalizer)
            for key, spec in specs.items()
        },
        action_dim=env.action_space.shape[0],
        env_kwargs=kwargs,
        observation_keys=environment.fitting_keys(env, attribute(attributes, "observation_keys")),
        camera=camera,
    )


def split_episodes(count: int, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(training, held out) episode numbers; at least one of each if there are two."""
    held = min(count - 1, int(np.ceil(count * fraction))) if fraction > 0 else 0
    order = np.random.default_rng([seed, 0x5917]).permutation(count)
    return np.sort(order[held:]), np.sort(order[:held])


def fingerprint(*arrays: np.ndarray | StoredPictures) -> str:
    """A hash of the arrays' bytes and shapes: a checkpoint's identity of its data."""
    digest = hashlib.blake2b(digest_size=16)
    for array in arrays:
        digest.update(repr((array.shape, array.dtype.str)).encode())
        for block in array.blocks() if isinstance(array, StoredPictures) else (array,):
            digest.update(np.ascontiguousarray(block).data)
    return digest.hexdigest()


def _mirror(started: Checkpoint) -> str:
    """The option of the training of a policy; older ones lack it."""
    return {**ABSENT, **(started.specification.training.get("config") or {})}["mirror"]


def _origin(started: Checkpoint | None, start: Convolutions | None) -> Any:
    """File of the cameras' first weights and its digest; that of the first run if resumed."""
    if started:
        return started.specification.training.get("encoder_weights")
    return {"path": str(start.path), "digest": start.digest} if start else None


def _provenance(
    config: TrainConfig, demonstrations: Demonstrations, observations: dict[str, np.ndarray]
) -> dict[str, Any]:
    import torch

    settings = {
        key: str(value) if isinstance(value, Path) else value
        for key, value in asdict(config).items()
        if key not in ("resume", "out", "encoder_weights", "picture_memory")
    }
    ends = demonstrations.episode_ends
    return {
        "config": settings,
        "fingerprint": fingerprint(*observations.values(), demonstrations.action, ends),
        "episodes": len(ends),
        "rows": int(ends[-1]),
        "versions": {
            "diffpolicy": __version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
    }
