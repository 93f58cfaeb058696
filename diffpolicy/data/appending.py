"""Checks of a store that exists, and of episodes, before anything is appended.

Shapes: T steps of an episode.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from diffpolicy.checked import shown
from diffpolicy.data.demonstration import OUTCOMES, Demonstration, as_outcome, check_alike, fits
from diffpolicy.data.demonstrations import ENDS, SEEDS, Contents, read_array
from diffpolicy.data.episode_facts import FINAL, FORMS, NAMES, fact_array
from diffpolicy.data.pictures import BLOCK_BYTES
from diffpolicy.data.zarr_store import blocks, reading
from diffpolicy.errors import DiffpolicyError
from diffpolicy.specification import picture_shape

LONGEST_EPISODE = 10_000_000  # steps; more rows beyond the last end are not unfinished episodes
NO_SEED = -1  # stored for an episode without a reset seed


def check_origin(source: Contents, attributes: Mapping[str, Any]) -> None:
    """Raise DiffpolicyError for stores recorded elsewhere, or with other attributes."""
    path, found = source.store.path, source.store.attributes
    if not source.recorded_here:
        raise DiffpolicyError(f"{path} exists and was not recorded here; choose another --out")
    for key, value in attributes.items():
        unknown = key == "observation_keys" and key not in found  # older stores lack it
        if found.get(key) != value and not unknown:
            raise DiffpolicyError(
                f"{path} was made with {key} = {found.get(key)!r}, not {value!r}; choose another "
                "--out"
            )


def check_readable(source: Contents, name: str, array: Any) -> None:
    """Decode all rows, so that nothing is appended to a damaged store; pictures in blocks."""
    if not picture_shape(array.shape[1:]):
        read_array(source, name, array)
        return
    for _ in blocks(array, source.rows, f"{source.store.path}: data/{name}", BLOCK_BYTES):
        pass


def check_appendable(array: Any, rows: int, path: Path) -> None:
    """Refuse more rows than a crash leaves, and codecs that do not return what they were given.

    The codecs are tried on one row, in memory.
    """
    import zarr
    from zarr.storage import MemoryStore, StorePath

    what = f"{path}: {array.path}"
    if not rows <= array.shape[0] <= rows + LONGEST_EPISODE:
        raise DiffpolicyError(
            f"{what} has {array.shape[0]:,} rows for the {rows:,} that {ENDS} counts: more than an "
            "unfinished episode; choose another --out"
        )
    level = getattr(getattr(array.metadata, "compressor", None), "clevel", 0)
    if level not in range(10):  # blosc itself would print a line of its own
        raise DiffpolicyError(f"{what} has the compression level {shown(level)}; expected 0 to 9")
    zeros_too = zarr.config.set({"array.write_empty_chunks": True})
    with reading(f"{what} cannot be appended to: it"), zeros_too:
        metadata = array.metadata.update_shape((1, *array.shape[1:]))
        trial = zarr.Array(zarr.AsyncArray(metadata, StorePath(MemoryStore(), "trial")))
        row = array[:1] if rows else np.zeros(trial.shape, trial.dtype)
        trial[:] = row
        alike = np.array_equal(trial[:], row)
    if not alike or metadata.zarr_format != 2:
        raise DiffpolicyError(f"{what} is not stored as it was recorded; choose another --out")


def stored_seeds(source: Contents) -> list[int]:
    """Seeds of the finished episodes; a crash may leave those of one append more."""
    what, episodes = f"{source.store.path}: {SEEDS}", len(source.ends)
    array = source.store.array(SEEDS)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise DiffpolicyError(
            f"{what} must be a row of whole numbers; got {array.dtype} {list(array.shape)}"
        )
    imported = NAMES.removeprefix("meta/") in source.store.names("meta")
    most = LONGEST_EPISODE if imported else 1  # imports append many episodes at once
    if not episodes <= array.shape[0] <= episodes + most:
        raise DiffpolicyError(
            f"{what} has {array.shape[0]:,} entries for the {episodes:,} episodes that {ENDS} "
            "counts; the store is damaged: copy it again"
        )
    source.store.check_chunks(array, episodes, complete=True)
    check_appendable(array, episodes, source.store.path)
    with reading(what):
        seeds = [int(seed) for seed in array[:episodes]]
    if min(seeds, default=0) < NO_SEED:
        raise DiffpolicyError(f"{what} must be numbers from 0, or -1; got {seeds[:8]} …")
    return seeds


def stored_arrays(source: Contents) -> list[str]:
    """Names of all arrays of a store but seeds and ends, each checked to take more rows."""
    path, store = source.store.path, source.store
    names = []
    for name in (*source.names, *source.outcomes):
        array, _ = source.array(name)
        check_appendable(array, source.rows, path)
        check_readable(source, name, array)
        names.append(f"data/{name}")
    facts = [name for name in FORMS if name.removeprefix("meta/") in store.names("meta")]
    for name in (*facts, *(f"{FINAL}/{key}" for key in store.names(FINAL))):
        check_appendable(fact_array(store, name, len(source.ends)), len(source.ends), path)
        names.append(name)
    return names


def as_demonstration(episode: Demonstration | Mapping[str, Any]) -> Demonstration:
    """The episode with arrays of NumPy, outcomes in their types; a mapping is arrays alone."""
    if not isinstance(episode, Demonstration):
        arrays = {name: values for name, values in episode.items() if name not in OUTCOMES}
        outcomes = {name: episode[name] for name in OUTCOMES if name in episode}
        episode = Demonstration(arrays, outcomes)
    arrays = {name: np.asarray(values) for name, values in episode.arrays.items()}
    outcomes = {name: as_outcome(name, np.asarray(x)) for name, x in episode.outcomes.items()}
    return replace(episode, arrays=arrays, outcomes=outcomes)


def check_episode(episode: Demonstration) -> None:
    """Raise DiffpolicyError for unequal lengths, and for numbers that are not finite."""
    lengths = {name: len(values) for name, values in episode.arrays.items()}
    if "action" not in lengths or len(set(lengths.values())) != 1 or not lengths["action"]:
        raise DiffpolicyError(f"an episode needs 'action' and equal lengths; got {lengths}")
    for name, values in episode.outcomes.items():
        if values.shape != (len(episode),):
            raise DiffpolicyError(
                f"an episode's {name!r} has the shape {list(values.shape)}; expected one number "
                f"for each of {len(episode):,} actions"
            )
    for name, values in {**episode.arrays, **episode.outcomes, **episode.final}.items():
        if not np.isfinite(values).all():
            raise DiffpolicyError(f"an episode's {name!r} is not finite (NaN or inf)")


def as_stored(episode: Demonstration, stored: Mapping[str, Any], path: Path) -> Demonstration:
    """The episode in the types of the stored arrays, which are given by name, outcomes too.

    Raises DiffpolicyError unless it has them, see `check_alike`, and for numbers beyond their type.
    """
    check_alike(episode, stored, path)
    for key, value in episode.final.items():
        if key in stored and not fits(np.asarray(value).dtype, stored[key].dtype):
            raise DiffpolicyError(f"an episode's final {key!r} is not {stored[key].dtype}")
    try:
        with np.errstate(over="raise"):
            return replace(
                episode,
                arrays=_in_types_of(stored, episode.arrays),
                outcomes=_in_types_of(stored, episode.outcomes),
                final=_in_types_of(stored, episode.final),
            )
    except FloatingPointError as error:
        raise DiffpolicyError(f"an episode has numbers beyond the type in {path}") from error


def _in_types_of(
    stored: Mapping[str, Any], arrays: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    kinds = {key: stored[key].dtype if key in stored else None for key in arrays}
    return {key: np.asarray(values, kinds[key]) for key, values in arrays.items()}
