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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from diffpolicy.errors import DiffpolicyError

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


def _open_group(path: Path, mode: Literal["r", "r+"] = "r") -> Any:
    import zarr

    if not path.is_dir():
        raise DiffpolicyError(f"no demonstration store at {path}: expected a zarr folder")
    try:
        return zarr.open_group(path, mode=mode)
    except (FileNotFoundError, ValueError, KeyError) as error:
        raise DiffpolicyError(f"{path} is not a zarr group: {error}") from error


def array_names(path: Path) -> list[str]:
    """The names under data/."""
    group = _open_group(path)
    if "data" not in group or "meta/episode_ends" not in group:
        raise DiffpolicyError(
            f"{path} is not a demonstration store: expected the groups data/ and meta/ with "
            f"meta/episode_ends; found {sorted(group.keys())}"
        )
    return sorted(group["data"].array_keys())


def _finished(ends: np.ndarray, path: Path) -> np.ndarray:
    """Cuts off what a crash left between making room for an end and writing it (zeros)."""
    ends = np.asarray(ends, dtype=np.int64)
    while len(ends) and ends[-1] == 0:
        ends = ends[:-1]
    if len(ends) == 0:
        raise DiffpolicyError(f"{path} holds no finished episode")
    if ends.ndim != 1 or ends[0] <= 0 or np.any(np.diff(ends) <= 0):
        raise DiffpolicyError(f"{path}: meta/episode_ends must rise; got {ends[:8]} …")
    return ends


def _chunks_of(array: Any, rows: int) -> int:
    """How many chunks the first rows take; a crash may have made room for more."""
    shape = (rows, *array.shape[1:])
    return math.prod(-(-size // chunk) for size, chunk in zip(shape, array.chunks, strict=True))


def _read(array: Any, name: str, rows: int, path: Path) -> np.ndarray:
    if array.ndim < 1 or array.shape[0] < rows:
        raise DiffpolicyError(
            f"{path}: data/{name} has shape {array.shape}, but meta/episode_ends counts {rows} "
            "rows; the store is truncated or was written by something else"
        )
    if array.dtype.kind not in "fiub":
        raise DiffpolicyError(f"{path}: data/{name} must hold numbers; its type is {array.dtype}")
    needed = _chunks_of(array, rows)
    if array.nchunks_initialized < needed:
        raise DiffpolicyError(
            f"{path}: data/{name} needs {needed} chunks on disk and has "
            f"{array.nchunks_initialized}; the store is truncated: copy it again"
        )
    try:
        values = array[:rows]
    except Exception as error:  # codecs raise what they like on damaged bytes
        raise DiffpolicyError(f"{path}: data/{name} cannot be decoded: {error}") from error
    values = np.asarray(values, dtype=np.float32)
    if not np.isfinite(values).all():
        row = int(np.argwhere(~np.isfinite(values))[0, 0])
        raise DiffpolicyError(f"{path}: data/{name} is not finite (NaN or inf) at row {row}")
    return values


def open_demonstrations(path: str | Path, keys: Sequence[str] | None = None) -> Demonstrations:
    """Reads and validates data/action and the named arrays (all of them by default)."""
    path = Path(path)
    names = array_names(path)
    wanted = list(names) if keys is None else list(dict.fromkeys(keys))
    absent = [name for name in ["action", *wanted] if name not in names]
    if absent:
        raise DiffpolicyError(f"{path} has no data/{absent[0]}; it holds: {', '.join(names)}")
    group = _open_group(path)
    ends = _finished(group["meta/episode_ends"][:], path)
    rows = int(ends[-1])
    arrays = {
        name: _read(group["data"][name], name, rows, path)
        for name in dict.fromkeys([*wanted, "action"])
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
            self._reopen()

    def append(self, arrays: Mapping[str, np.ndarray], seed: int) -> None:
        """Writes one episode: arrays [T, …] with equal T, "action" among them."""
        lengths = {name: len(array) for name, array in arrays.items()}
        if len(set(lengths.values())) != 1 or "action" not in arrays:
            raise DiffpolicyError(f"an episode needs 'action' and equal lengths; got {lengths}")
        group = self._group or self._create(arrays)
        end = int(group["meta/episode_ends"][-1]) if self.seeds else 0
        for name, values in arrays.items():
            _extend(group["data"][name], end, np.asarray(values))
        _extend(group["meta/episode_seeds"], len(self.seeds), np.array([seed]))
        stop = end + lengths["action"]
        _extend(group["meta/episode_ends"], len(self.seeds), np.array([stop]))
        self.seeds.append(seed)

    def _create(self, arrays: Mapping[str, np.ndarray]) -> Any:
        """Makes the empty store under another name, so that a crash leaves no half of one."""
        import zarr

        temporary = self.path.with_name(f".{self.path.name}.partial")
        shutil.rmtree(temporary, ignore_errors=True)
        group: Any = zarr.create_group(temporary, zarr_format=2)
        config = {"write_empty_chunks": True}  # a chunk that is absent is then always a loss
        for name, values in arrays.items():
            values = np.asarray(values)
            group.create_array(
                f"data/{name}",
                shape=(0, *values.shape[1:]),
                chunks=(CHUNK_ROWS, *values.shape[1:]),
                dtype=values.dtype,
                fill_value=np.nan if values.dtype.kind == "f" else 0,
                config=config,
            )
        for name in ("episode_seeds", "episode_ends"):
            group.create_array(
                f"meta/{name}", shape=(0,), chunks=(END_CHUNK,), dtype="int64", config=config
            )
        group.attrs.update(self.attributes)
        temporary.rename(self.path)
        self._group = _open_group(self.path, "r+")
        return self._group

    def _reopen(self) -> None:
        group = _open_group(self.path, "r+")
        if "meta/episode_seeds" not in group:
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
        for leftover in self.path.rglob("*.partial"):
            leftover.unlink()
        ends = np.asarray(group["meta/episode_ends"][:])
        count = int(np.count_nonzero(ends))
        rows = int(ends[count - 1]) if count else 0
        group["meta/episode_ends"].resize((count,))
        self.seeds = [int(s) for s in group["meta/episode_seeds"][:count]]
        for name in group["data"].array_keys():
            array = group["data"][name]
            array.resize((rows, *array.shape[1:]))
        self._group = group


def _extend(array: Any, start: int, values: np.ndarray) -> None:
    """Writes values behind row `start`; rows of an unfinished episode there are overwritten."""
    array.resize((start + len(values), *array.shape[1:]))
    array[start:] = values
