"""Append episodes to a store of demonstrations, creating it at the first one.

`meta/episode_ends` is written last, so an episode counts once its end stands there: whatever the
crash, finished episodes survive, and an unfinished one is overwritten by the next.
"""

import os
import shutil
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from diffpolicy.checked import shown
from diffpolicy.data.demonstrations import (
    ENDS,
    SEEDS,
    VERSION,
    Contents,
    contents,
    finished,
    read_array,
)
from diffpolicy.data.zarr_store import ZarrStore, open_store, reading
from diffpolicy.errors import DiffpolicyError
from diffpolicy.files import lock, writing

FORMAT_VERSION = 1
CHUNK_ROWS = 4096
END_CHUNK = 1024
LONGEST_EPISODE = 10_000_000  # steps; more rows beyond the last end are no unfinished episode


class DemonstrationWriter:
    """Appends episodes; one writer a store, from its opening to its end or `close`.

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

    def append(self, arrays: Mapping[str, np.ndarray], seed: int) -> None:
        """Writes one episode: arrays [T, …] with equal T > 0, "action" among them."""
        import zarr

        arrays = {name: np.asarray(values) for name, values in arrays.items()}
        _check_episode(arrays)
        # With its empty chunks written, a chunk that is absent from the disk is always a loss.
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
        """Lets other writers open the store."""
        self._store = None
        if self._claim:
            self._claim()

    def _create(self, arrays: Mapping[str, np.ndarray]) -> ZarrStore:
        """Makes the empty store under another name, so that a crash leaves no half of one."""
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
                chunks=(CHUNK_ROWS, *values.shape[1:]),
                dtype=values.dtype,
                fill_value=np.nan if values.dtype.kind == "f" else 0,
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
            read_array(source, name, array)  # nothing is appended to a damaged store
        self.seeds = _stored_seeds(source)
        for name in (SEEDS, ENDS):
            _check_appendable(source.store.array(name), len(source.ends), self.path)
        self._names, self._store, self._clean = source.names, source.store, False

    def _hold(self, folder: Path) -> None:
        """Keeps other writers out until this one is closed, or gone."""
        self._claim = weakref.finalize(self, os.close, _claimed(folder, self.path))

    def _finished(self, stored: Any) -> np.ndarray:
        """The ends on disk, which nobody (on another host, say) has changed meanwhile."""
        ends = finished(stored[:], self.path)
        if len(ends) != len(self.seeds):
            raise DiffpolicyError(f"{self.path} was changed by another writer meanwhile")
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
    """Refuses stores that were not recorded here, or otherwise."""
    path, found = source.store.path, source.store.attributes
    if not source.recorded_here:
        raise DiffpolicyError(f"{path} exists and was not recorded here; choose another --out")
    for key, value in attributes.items():
        unknown = key == "observation_keys" and key not in found  # of older stores
        if found.get(key) != value and not unknown:
            raise DiffpolicyError(
                f"{path} was made with {key} = {found.get(key)!r}, not {value!r}; choose another "
                "--out"
            )


def _check_appendable(array: Any, rows: int, path: Path) -> None:
    """Refuses more rows than a crash leaves over, and codecs that do not return what they got.

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


def _stored_seeds(source: Contents) -> list[int]:
    """The finished episodes' seeds; a crash may leave one more."""
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
    if min(seeds, default=0) < 0:
        raise DiffpolicyError(f"{what} must be numbers from 0; got {seeds[:8]} …")
    return seeds


def _check_episode(arrays: Mapping[str, np.ndarray]) -> None:
    lengths = {name: len(values) for name, values in arrays.items()}
    if "action" not in arrays or len(set(lengths.values())) != 1 or not lengths["action"]:
        raise DiffpolicyError(f"an episode needs 'action' and equal lengths; got {lengths}")
    for name, values in arrays.items():
        if not np.isfinite(values).all():
            raise DiffpolicyError(f"an episode's {name!r} is not finite (NaN or inf)")


def _check_alike(arrays: Mapping[str, np.ndarray], stored: Mapping[str, Any], path: Path) -> None:
    """Every episode brings the same arrays, with rows of the same shape."""
    found = {name: values.shape[1:] for name, values in arrays.items()}
    expected = {name: array.shape[1:] for name, array in stored.items()}
    if found != expected:
        raise DiffpolicyError(f"{path} holds rows of {expected}; this episode has {found}")


def _extend(array: Any, start: int, values: np.ndarray) -> None:
    """Writes values behind row `start`; rows of an unfinished episode there are overwritten."""
    array.resize((start + len(values), *array.shape[1:]))
    array[start:] = values
