"""Demonstrations in a zarr store: create, append an episode, validate, open.

    data/<observation key> [N, …], data/action [N, D_a]   time first, episodes end to end
    meta/episode_ends [E] int64                           cumulative
    meta/episode_seeds [E] int64                          which reset made each (ours only)

Format 2, which Diffusion Policy's reader opens; 2 and 3 are read. `episode_ends` is written last,
so an episode counts once its end stands there: whatever the crash, finished episodes survive, an
unfinished one is dropped.
"""

import math
import shutil
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from diffpolicy.errors import DiffpolicyError
from diffpolicy.files import writing

FORMAT_VERSION = 1
CHUNK_ROWS = 4096
END_CHUNK = 1024


@dataclass(frozen=True)
class Demonstrations:
    """Validated arrays in memory.

    arrays: each [N, …] with time first, "action" among them; episode_ends [E] int64.
    attributes: the store's own (environment id and kwargs, control_dt_s, how it was made).
    """

    path: Path
    arrays: dict[str, np.ndarray]
    episode_ends: np.ndarray
    attributes: dict[str, Any]

    @property
    def action(self) -> np.ndarray:
        """[N, D_a] float32."""
        return self.arrays["action"]

    def observation(self, keys: Sequence[str]) -> np.ndarray:
        """The named arrays, flattened and joined in that order: [N, D_o] float32."""
        rows = len(self.action)
        flat = [self.arrays[key].reshape(rows, -1) for key in keys]
        return np.concatenate(flat, axis=1) if len(flat) > 1 else flat[0]


@contextmanager
def _reading(what: object) -> Iterator[None]:
    """zarr and its codecs raise (and warn) what they like on damaged files; this is one error."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except Exception as error:
        raise DiffpolicyError(f"{what} cannot be read: {error or type(error).__name__}") from error


def _open_group(path: Path, mode: Literal["r", "r+"] = "r") -> Any:
    import zarr

    if not path.is_dir():
        raise DiffpolicyError(f"no demonstration store at {path}: expected a zarr folder")
    with _reading(path):
        return zarr.open_group(path, mode=mode)


def _members(group: Any, path: Path) -> tuple[dict[str, Any], np.ndarray]:
    """The arrays under data/ by name, and meta/episode_ends as it stands on disk."""
    with _reading(path):
        found = sorted(group.keys())
        data, ends = group.get("data"), group.get("meta/episode_ends")
        if hasattr(data, "arrays") and hasattr(ends, "shape"):
            return dict(data.arrays()), np.asarray(ends[:])
    raise DiffpolicyError(
        f"{path} is not a demonstration store: expected the groups data/ and meta/ with "
        f"meta/episode_ends; found {found}"
    )


def array_names(path: Path) -> list[str]:
    """The names under data/."""
    return sorted(_members(_open_group(path), path)[0])


def _finished(ends: np.ndarray, path: Path) -> np.ndarray:
    """Cuts off what a crash left between making room for an end and writing it (one zero)."""
    if ends.ndim != 1 or ends.dtype.kind not in "iu":
        raise DiffpolicyError(
            f"{path}: meta/episode_ends must be a row of whole numbers; got {ends.dtype} "
            f"{list(ends.shape)}"
        )
    ends = ends.astype(np.int64)
    if len(ends) and ends[-1] == 0:
        ends = ends[:-1]
    if np.any(np.diff(ends, prepend=0) <= 0):
        raise DiffpolicyError(f"{path}: meta/episode_ends must rise; got {ends[:8]} …")
    return ends


def _chunks_of(array: Any, rows: int) -> int:
    """How many chunks the first rows take; a crash may have made room for more."""
    shape = (rows, *array.shape[1:])
    return math.prod(-(-size // chunk) for size, chunk in zip(shape, array.chunks, strict=True))


def _rows(array: Any, rows: int, what: str) -> np.ndarray:
    """The first rows, all of which must be on disk."""
    if array.ndim < 1 or array.shape[0] < rows:
        raise DiffpolicyError(
            f"{what} has shape {array.shape}, but meta/episode_ends counts {rows} rows; the store "
            "is truncated or was written by something else"
        )
    needed, present = _chunks_of(array, rows), array.nchunks_initialized
    if present < needed:
        raise DiffpolicyError(
            f"{what} needs {needed} chunks on disk and has {present}; the store is truncated: "
            "copy it again (or, if its empty chunks were left out, write it with "
            "write_empty_chunks=True)"
        )
    with _reading(what):
        return array[:rows]


def _read(array: Any, name: str, rows: int, path: Path) -> np.ndarray:
    if array.dtype.kind not in "fiub":
        raise DiffpolicyError(f"{path}: data/{name} must hold numbers; its type is {array.dtype}")
    values = _rows(array, rows, f"{path}: data/{name}")
    with np.errstate(over="ignore"):  # beyond float32 is infinite, and refused below
        values = np.asarray(values, dtype=np.float32)
    if not np.isfinite(values).all():
        row = int(np.argwhere(~np.isfinite(values))[0, 0])
        raise DiffpolicyError(
            f"{path}: data/{name} is not finite (NaN or inf, in float32) at row {row}"
        )
    return values


def open_demonstrations(path: str | Path, keys: Sequence[str] | None = None) -> Demonstrations:
    """Reads and validates data/action and the named arrays (all of them by default)."""
    path = Path(path)
    group = _open_group(path)
    stored, ends = _members(group, path)
    names = sorted(stored)
    wanted = list(names) if keys is None else list(dict.fromkeys(keys))
    absent = [name for name in ["action", *wanted] if name not in names]
    if absent:
        raise DiffpolicyError(f"{path} has no data/{absent[0]}; it holds: {', '.join(names)}")
    ends = _finished(ends, path)
    if len(ends) == 0:
        raise DiffpolicyError(f"{path} holds no finished episode")
    rows = int(ends[-1])
    arrays = {
        name: _read(stored[name], name, rows, path) for name in dict.fromkeys([*wanted, "action"])
    }
    if arrays["action"].ndim != 2:
        raise DiffpolicyError(
            f"{path}: data/action must be [N, D_a]; its shape is {arrays['action'].shape}"
        )
    return Demonstrations(path, arrays, ends, dict(group.attrs))


class DemonstrationWriter:
    """Appends episodes to a store, creating it at the first one.

    Opening a store that a crash left behind cuts the unfinished episode off.
    """

    def __init__(self, path: str | Path, attributes: Mapping[str, Any]):
        self.path = Path(path)
        self.attributes = {"format_version": FORMAT_VERSION, **attributes}
        self.seeds: list[int] = []
        self._group: Any = None
        if self.path.exists():
            with writing(self.path):
                self._reopen()

    def append(self, arrays: Mapping[str, np.ndarray], seed: int) -> None:
        """Writes one episode: arrays [T, …] with equal T > 0, "action" among them."""
        import zarr

        arrays = {name: np.asarray(values) for name, values in arrays.items()}
        _check_episode(arrays)
        # With its empty chunks written, a chunk that is absent from the disk is always a loss.
        with writing(self.path), zarr.config.set({"array.write_empty_chunks": True}):
            group = self._group or self._create(arrays)
            stored, ends = _members(group, self.path)
            _check_alike(arrays, stored, self.path)
            count = len(self.seeds)
            end = int(ends[count - 1]) if count else 0
            for name, values in arrays.items():
                _extend(stored[name], end, values)
            _extend(group["meta/episode_seeds"], count, np.array([seed]))
            _extend(group["meta/episode_ends"], count, np.array([end + len(arrays["action"])]))
        self.seeds.append(seed)

    def _create(self, arrays: Mapping[str, np.ndarray]) -> Any:
        """Makes the empty store under another name, so that a crash leaves no half of one."""
        import zarr

        temporary = self.path.with_name(f".{self.path.name}.partial")
        shutil.rmtree(temporary, ignore_errors=True)
        group: Any = zarr.create_group(temporary, zarr_format=2)
        for name, values in arrays.items():
            group.create_array(
                f"data/{name}",
                shape=(0, *values.shape[1:]),
                chunks=(CHUNK_ROWS, *values.shape[1:]),
                dtype=values.dtype,
                fill_value=np.nan if values.dtype.kind == "f" else 0,
            )
        for name in ("episode_seeds", "episode_ends"):
            group.create_array(f"meta/{name}", shape=(0,), chunks=(END_CHUNK,), dtype="int64")
        group.attrs.update(self.attributes)
        temporary.rename(self.path)
        self._group = _open_group(self.path, "r+")
        return self._group

    def _reopen(self) -> None:
        group = _open_group(self.path, "r+")
        with _reading(self.path):
            stored_seeds = group.get("meta/episode_seeds")
        if not hasattr(stored_seeds, "shape"):
            raise DiffpolicyError(
                f"{self.path} exists and was not recorded here; choose another --out"
            )
        differing = [k for k, v in self.attributes.items() if group.attrs.get(k) != v]
        if differing:
            key = differing[0]
            raise DiffpolicyError(
                f"{self.path} was made with {key} = {group.attrs.get(key)!r}, not "
                f"{self.attributes[key]!r}; choose another --out"
            )
        stored, ends = _members(group, self.path)
        ends = _finished(ends, self.path)
        rows = int(ends[-1]) if len(ends) else 0
        for name, array in stored.items():
            _read(array, name, rows, self.path)  # nothing is appended to a damaged store
        seeds = _rows(stored_seeds, len(ends), f"{self.path}: meta/episode_seeds")
        for leftover in self.path.rglob("*.partial"):
            leftover.unlink()
        group["meta/episode_ends"].resize((len(ends),))
        stored_seeds.resize((len(ends),))
        for array in stored.values():
            array.resize((rows, *array.shape[1:]))
        self._group, self.seeds = group, [int(seed) for seed in seeds]


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
