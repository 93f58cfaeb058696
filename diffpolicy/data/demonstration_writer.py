"""Append episodes to a store of demonstrations, creating it at the first one.

`meta/episode_ends` is written last, so an episode counts once its end is stored: finished episodes
survive every crash, and an unfinished one is overwritten by the next.
"""

import math
import os
import shutil
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from diffpolicy.checked import shown
from diffpolicy.data.attributes import VERSION
from diffpolicy.data.demonstrations import ENDS, SEEDS, Contents, contents, finished, read_array
from diffpolicy.data.pictures import BLOCK_BYTES
from diffpolicy.data.zarr_store import ZarrStore, blocks, open_store, reading
from diffpolicy.errors import DiffpolicyError
from diffpolicy.files import lock, writing
from diffpolicy.specification import picture_shape

FORMAT_VERSION = 1
CHUNK_ROWS = 4096
PICTURE_CHUNK_BYTES = 2**19  # see `_layout`
END_CHUNK = 1024
LONGEST_EPISODE = 10_000_000  # steps; more rows beyond the last end are not an unfinished episode
NO_SEED = -1  # stored for an episode without a reset seed


class DemonstrationWriter:
    """Append episodes; one writer at a time opens a store and holds it until `close`.

    Opening checks everything and changes nothing. The first append removes what a crash left, and
    consolidated metadata, which no append keeps up to date.
    """

    def __init__(self, path: str | Path, attributes: Mapping[str, Any]):
        self.path = Path(path)
        self.attributes = {VERSION: FORMAT_VERSION, **attributes}
        self.seeds: list[int] = []
        self._store: ZarrStore | None = None
        self._claim: Callable[[], object] | None = None
        self._names: list[str] = []
        self._clean = True
        if self.path.exists():
            with writing(self.path):
                try:
                    self._reopen()
                except BaseException:
                    self.close()
                    raise

    def append(self, arrays: Mapping[str, np.ndarray], seed: int = NO_SEED) -> None:
        """Write one episode: arrays [T, …] with equal T > 0, "action" among them.

        seed: provenance, the reset that made the episode, if there was one.
        """
        import zarr

        arrays = {name: np.asarray(values) for name, values in arrays.items()}
        _check_episode(arrays)
        # Empty chunks are written too, so a chunk that is absent from the disk is always a loss.
        with writing(self.path), zarr.config.set({"array.write_empty_chunks": True}):
            store = self._store or self._create(arrays)
            stored = {name: store.array(f"data/{name}") for name in self._names}
            stored_seeds, stored_ends = store.array(SEEDS), store.array(ENDS)
            _check_alike(arrays, stored, self.path)
            ends = self._finished(stored_ends)
            self._remove_leftovers()
            count, end = len(ends), int(ends[-1]) if len(ends) else 0
            for name, values in arrays.items():
                _extend(stored[name], end, values)
            _extend(stored_seeds, count, np.array([seed]))
            _extend(stored_ends, count, np.array([end + len(arrays["action"])]))
        self.seeds.append(seed)

    def close(self) -> None:
        """Let other writers open the store."""
        self._store = None
        if self._claim:
            self._claim()

    def _create(self, arrays: Mapping[str, np.ndarray]) -> ZarrStore:
        """Create the empty store under another name, so that a crash leaves no part of one."""
        import zarr

        temporary = self.path.with_name(f".{self.path.name}.partial")
        self.close()
        if temporary.exists():
            descriptor = _claimed(temporary, self.path)
            shutil.rmtree(temporary)
            os.close(descriptor)
        temporary.mkdir(parents=True)
        self._hold(temporary)
        if self.path.exists():
            temporary.rmdir()
            raise DiffpolicyError(f"{self.path} was made by another writer; choose another --out")
        group: Any = zarr.create_group(temporary, zarr_format=2)
        for name, values in arrays.items():
            group.create_array(
                f"data/{name}",
                shape=(0, *values.shape[1:]),
                dtype=values.dtype,
                fill_value=np.nan if values.dtype.kind == "f" else 0,
                **_layout(values),
            )
        for name in (SEEDS, ENDS):
            group.create_array(name, shape=(0,), chunks=(END_CHUNK,), dtype="int64")
        group.attrs.update(self.attributes)
        temporary.rename(self.path)
        self._names, self._store = list(arrays), open_store(self.path, writable=True)
        return self._store

    def _reopen(self) -> None:
        if not self.path.is_dir():
            raise DiffpolicyError(
                f"no demonstration store at {self.path} to append to: expected a zarr folder; "
                "choose another --out"
            )
        self._hold(self.path)
        source = contents(self.path, writable=True)
        _check_origin(source, self.attributes)
        for name in source.names:
            array, _ = source.array(name)
            _check_appendable(array, source.rows, self.path)
            _check_readable(source, name, array)
        self.seeds = _stored_seeds(source)
        for name in (SEEDS, ENDS):
            _check_appendable(source.store.array(name), len(source.ends), self.path)
        self._names, self._store, self._clean = source.names, source.store, False

    def _hold(self, folder: Path) -> None:
        """Keep other writers out until this one is closed or its process ends."""
        self._claim = weakref.finalize(self, os.close, _claimed(folder, self.path))

    def _finished(self, stored: Any) -> np.ndarray:
        """The ends on disk; DiffpolicyError if another writer has changed them."""
        ends = finished(stored[:], self.path)
        if len(ends) != len(self.seeds):
            raise DiffpolicyError(f"{self.path} was changed by another writer")
        return ends

    def _remove_leftovers(self) -> None:
        if not self._clean:
            for pattern in (".zmetadata", "*.partial"):
                for leftover in self.path.rglob(pattern):
                    leftover.unlink()
        self._clean = True


def _claimed(folder: Path, path: Path) -> int:
    busy = f"{path} is being written by another writer; wait for its end, or choose another --out"
    return lock(folder, busy)


def _check_origin(source: Contents, attributes: Mapping[str, Any]) -> None:
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


def _check_readable(source: Contents, name: str, array: Any) -> None:
    """Decode all rows, so that nothing is appended to a damaged store; pictures in blocks."""
    if not picture_shape(array.shape[1:]):
        read_array(source, name, array)
        return
    for _ in blocks(array, source.rows, f"{source.store.path}: data/{name}", BLOCK_BYTES):
        pass


def _check_appendable(array: Any, rows: int, path: Path) -> None:
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


def _layout(values: np.ndarray) -> dict[str, Any]:
    """Chunks and, for pictures, the codec of an array.

    Half a MiB of pictures a chunk, with zstd. Measured with Push-T's pictures, 18 rows of 96 × 96:
    1 % of the size, 0.4 to 0.6 ms for a random window of two, under 1 s for a full read. Chunks of
    one picture take 3 times the space and 7 s for a full read; of 64, 1.5 times as long for a
    window, and 2 to 6 times with a noisy camera. lz4 takes 3 times the space, shuffled bits too.
    """
    from numcodecs import Blosc

    row = values.shape[1:]
    if not picture_shape(row):
        return {"chunks": (CHUNK_ROWS, *row)}
    rows = max(1, min(CHUNK_ROWS, PICTURE_CHUNK_BYTES // (math.prod(row) * values.itemsize)))
    return {"chunks": (rows, *row), "compressors": Blosc("zstd", 5, Blosc.NOSHUFFLE)}


def _stored_seeds(source: Contents) -> list[int]:
    """Seeds of the finished episodes; a crash may leave one more."""
    what, episodes = f"{source.store.path}: {SEEDS}", len(source.ends)
    array = source.store.array(SEEDS)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise DiffpolicyError(
            f"{what} must be a row of whole numbers; got {array.dtype} {list(array.shape)}"
        )
    if not episodes <= array.shape[0] <= episodes + 1:
        raise DiffpolicyError(
            f"{what} has {array.shape[0]:,} entries for the {episodes:,} episodes that {ENDS} "
            "counts; the store is damaged: copy it again"
        )
    source.store.check_chunks(array, episodes, complete=True)
    _check_appendable(array, episodes, source.store.path)
    with reading(what):
        seeds = [int(seed) for seed in array[:episodes]]
    if min(seeds, default=0) < NO_SEED:
        raise DiffpolicyError(f"{what} must be numbers from 0, or -1; got {seeds[:8]} …")
    return seeds


def _check_episode(arrays: Mapping[str, np.ndarray]) -> None:
    lengths = {name: len(values) for name, values in arrays.items()}
    if "action" not in arrays or len(set(lengths.values())) != 1 or not lengths["action"]:
        raise DiffpolicyError(f"an episode needs 'action' and equal lengths; got {lengths}")
    for name, values in arrays.items():
        if not np.isfinite(values).all():
            raise DiffpolicyError(f"an episode's {name!r} is not finite (NaN or inf)")


def _check_alike(arrays: Mapping[str, np.ndarray], stored: Mapping[str, Any], path: Path) -> None:
    """Raise DiffpolicyError unless the episode has the store's arrays, in rows of their shape.

    Their types may differ if nothing but the precision of floats is lost.
    """
    found = {name: values.shape[1:] for name, values in arrays.items()}
    expected = {name: array.shape[1:] for name, array in stored.items()}
    if found != expected:
        raise DiffpolicyError(f"{path} holds rows of {expected}; this episode has {found}")
    for name, array in stored.items():
        casting = "same_kind" if array.dtype.kind == "f" else "safe"
        if not np.can_cast(arrays[name].dtype, array.dtype, casting):
            raise DiffpolicyError(
                f"{path} holds {name!r} as {array.dtype}; this episode has {arrays[name].dtype}; "
                "give every episode in one type"
            )


def _extend(array: Any, start: int, values: np.ndarray) -> None:
    """Write values from row `start` on, over the rows of an unfinished episode."""
    array.resize((start + len(values), *array.shape[1:]))
    array[start:] = values
