"""Observations of the demonstrations, key by key as the environment gives them.

An environment without pictures observes one vector, the key FLAT. Shapes: N rows, D numbers of a
vector, H, W and C of a picture.
"""

import logging
import math
from collections.abc import Container, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from diffpolicy import environment
from diffpolicy.checkpoint import WITHOUT_PICTURES
from diffpolicy.data.demonstrations import Contents, Demonstrations, read_demonstrations
from diffpolicy.data.pictures import held_bytes
from diffpolicy.data.stored_pictures import StoredPictures
from diffpolicy.data.zarr_store import check_bytes
from diffpolicy.environment.boundary import describe_error
from diffpolicy.errors import DiffpolicyError
from diffpolicy.specification import FLAT, ObservationSpec, Task, picture_shape
from diffpolicy.training.config import TrainConfig

OF_PICTURES = {**WITHOUT_PICTURES, "encoder_weights": None, "colour_jitter": 0.0}
Specs = Mapping[str, ObservationSpec]
Read = tuple[Demonstrations, dict[str, np.ndarray]]


def read_observations(config: TrainConfig, source: Contents, env: Any) -> Read:
    """The demonstrations and their observations {key: [N, …]}, in the order of the encoder.

    Raises DiffpolicyError for keys that the environment or the store lacks.
    """
    environment.check_usable(env, config.obs or None)
    declared: list[str] = list(environment.declared(env, "demonstration_arrays") or [])
    if environment.is_flat(env.observations):
        return _joined(config, source, env, declared)
    return _by_key(config, source, env, declared)


def _joined(config: TrainConfig, source: Contents, env: Any, declared: list[str]) -> Read:
    """One vector: mapped by the environment from its own arrays, else joined."""
    keys = list(config.obs) or ([FLAT] if FLAT in source.names else declared)
    if not keys:
        raise DiffpolicyError(
            f"name the arrays of {config.data} that make the observation with --obs; it holds: "
            f"{', '.join(source.names)}"
        )
    check_options(config, keys)
    mapping = environment.declared(env, "observations_from") if keys == declared else None
    if mapping is None:
        _check_no_pictures(config.data, source, keys, env)
    demonstrations = read_demonstrations(source, keys, config.action, vectors=keys)
    if mapping is None:
        return demonstrations, {FLAT: demonstrations.observation(keys)}
    mapped = _mapped(config.data, demonstrations, env)
    _check_present(config.data, source, [FLAT], mapped, env.observations)
    return demonstrations, {FLAT: as_vector(mapped[FLAT])}


def _by_key(config: TrainConfig, source: Contents, env: Any, declared: list[str]) -> Read:
    """Arrays named as the keys; if the store lacks one, mapped by the environment first."""
    specs, keys = env.observations, list(dict.fromkeys(config.obs or env.observations))
    for key in keys:
        if key not in specs:
            raise DiffpolicyError(
                f"{env.spec.id} does not observe {key}; it observes {', '.join(specs)}; choose "
                "among them with --obs, or add its picture as pixels with --camera"
            )
    if not any(specs[key].is_picture for key in keys):
        check_options(config, keys)
    stored = [key for key in keys if key in source.names]
    mapping = environment.declared(env, "observations_from")
    mappable = mapping and stored != keys and set(declared) <= set(source.names)
    mapped = declared if mappable else []
    read = list(dict.fromkeys([*stored, *mapped]))
    if not mappable:
        _check_present(config.data, source, keys, stored, specs)
    on_disk = pictures_on_disk(config, source, read)
    vectors = [key for key in stored if not specs[key].is_picture]
    demonstrations = read_demonstrations(source, read, config.action, vectors, mapped, on_disk)
    found = {key: demonstrations.arrays[key] for key in stored}
    if mappable:
        found |= _mapped(config.data, demonstrations, env)
    _check_present(config.data, source, keys, found, specs)
    return demonstrations, {
        key: found[key] if specs[key].is_picture else as_vector(found[key]) for key in keys
    }


def check_options(config: TrainConfig, keys: list[str]) -> None:
    """Refuse an option about pictures that is not its default; the keys are vectors."""
    for name, default in OF_PICTURES.items():
        if getattr(config, name) != default:
            raise DiffpolicyError(
                f"--{name.replace('_', '-')} needs pictures; the observation is made of "
                f"{', '.join(keys)}; leave the option out, or choose pictures with --obs, "
                "--env-kwargs or --camera"
            )


def as_vector(values: np.ndarray) -> np.ndarray:
    """Rows [N, …] as vectors [N, D] float32."""
    return values.reshape(len(values), -1).astype(np.float32, copy=False)


def _mapped(data: Path, demonstrations: Demonstrations, env: Any) -> dict[str, np.ndarray]:
    """Observations by key, mapped by the environment; a single array is its vector."""
    try:
        mapped = environment.declared(env, "observations_from")(demonstrations.arrays)
    except ValueError as error:
        advice = _remedies(demonstrations, env.observations)
        raise DiffpolicyError("; ".join([f"{data}: {error}", *advice])) from error
    except Exception as error:
        name = f"observations_from of {env.spec.id}"
        raise DiffpolicyError(f"{data}: {name} failed: {describe_error(error)}") from error
    by_key = mapped if isinstance(mapped, Mapping) else {FLAT: np.asarray(mapped, np.float32)}
    found, rows = {key: _as_array(values) for key, values in by_key.items()}, demonstrations.rows
    for key, values in found.items():
        if values.ndim < 2 or len(values) != rows:
            raise DiffpolicyError(
                f"observations_from of {env.spec.id} gave {key} of shape {list(values.shape)}; "
                f"expected one row for each of {rows:,} actions, [{rows}, …]"
            )
    return found


def _as_array(values: Any) -> Any:
    return values if isinstance(values, StoredPictures) else np.asarray(values)


def _check_present(
    data: Path, source: Contents, keys: list[str], found: Container[str], specs: Specs
) -> None:
    for key in keys:
        if key not in found:
            kind = f"uint8 [N, {_sides(specs[key].shape)}]" if specs[key].is_picture else "numbers"
            raise DiffpolicyError(
                f"{data} has no data/{key}, which the environment observes; it holds: "
                f"{', '.join(source.names)}; store it as {kind}, or choose other keys with --obs"
            )


def _check_no_pictures(data: Path, source: Contents, keys: list[str], env: Any) -> None:
    """Refuse pictures for a vector of another size before they are read."""
    rows = {k: source.store.array(f"data/{k}").shape[1:] for k in keys if k in source.names}
    size = env.observations[FLAT].size
    for key, row in rows.items():
        if picture_shape(row) and sum(map(math.prod, rows.values())) != size:
            raise DiffpolicyError(
                f"{data}: data/{key} holds pictures [{_sides(row)}]; {env.spec.id} observes one "
                f"vector of {size} numbers; choose other arrays with --obs, or an environment "
                "with pictures with --env-kwargs or --camera"
            )


def pictures_on_disk(config: TrainConfig, source: Contents, names: list[str]) -> bool:
    """Tell where the pictures will be; True for the disk, because they take more than allowed.

    Raises DiffpolicyError for pictures that are to be held and take more than the memory.
    """
    arrays = (source.store.array(f"data/{name}") for name in names)
    size = sum(held_bytes(array, source.rows) for array in arrays)
    on_disk = size > config.picture_memory * 1e9
    if not on_disk:
        check_bytes(size, f"the pictures of {config.data}")
    if size:
        limit = f"read from disk in training (--picture-memory {config.picture_memory:g} GB)"
        place = limit if on_disk else "in memory"
        logger = logging.getLogger("diffpolicy")
        logger.info("%s: pictures: %s MB %s", config.data, f"{size / 1e6:,.0f}", place)
    return on_disk


def check_observations(data: Path, observations: dict[str, np.ndarray], task: Task) -> None:
    """Raise DiffpolicyError unless each key has the shape and type that the task says."""
    for key, spec in task.observations.items():
        values = observations[key]
        if spec.is_picture and (values.dtype != np.uint8 or values.shape[1:] != spec.shape):
            raise DiffpolicyError(
                f"{data}: {key} has rows of {values.dtype} [{_sides(values.shape[1:])}]; expected "
                f"pictures uint8 [{_sides(spec.shape)}], as {task.env_id} observes them; "
                f"{_remedy(values.shape[1:], spec.shape)}"
            )
        if not spec.is_picture:
            name = "observations" if key == FLAT else key
            check_size(data, name, values.shape[1], spec.size, task.env_id)


def check_size(data: Path, name: str, found: int, wanted: int, env_id: str) -> None:
    """Raise DiffpolicyError unless the rows have as many numbers as the environment's."""
    if found != wanted:
        raise DiffpolicyError(
            f"{data} has {name} of {found} numbers, {env_id} has {wanted}; choose other arrays "
            "with --obs, or another --env or --env-kwargs"
        )


def _remedies(demonstrations: Demonstrations, specs: Specs) -> list[str]:
    """Advice for the first pictures of which the environment observes none of that shape."""
    wanted = [spec.shape for spec in specs.values() if spec.is_picture]
    pictures = [x.shape[1:] for x in demonstrations.arrays.values() if x.dtype == np.uint8]
    return [_remedy(shape, wanted[0]) for shape in pictures if wanted and shape not in wanted][:1]


def _remedy(found: tuple[int, ...], wanted: tuple[int, ...]) -> str:
    """Advice for pictures of another shape."""
    if found == wanted:
        return "return the array that observations_from was given, or one of uint8"
    if len(found) != 3 or found[2] != wanted[2]:
        return "store pictures with the channels of the environment, or choose --env-kwargs"
    if found[0] < wanted[0] and found[1] < wanted[1]:
        return (
            "they are smaller, as if cropped: store whole pictures, training crops them itself "
            "(--crop)"
        )
    return "store pictures of this size, or choose that of the environment (--env-kwargs, --camera)"


def _sides(shape: tuple[int, ...]) -> str:
    return ", ".join(map(str, shape))
