"""Demonstrations in a zarr store: validate and read; demonstration_writer.py writes them.

    data/<observation key> [N, …], data/action [N, D_a]   time first, episodes end to end
    meta/episode_ends [E] int64                           cumulative
    meta/episode_seeds [E] int64                          reset seed of each (only if written here)

Shapes: N rows, E episodes, D_o and D_a dimensions.

Numbers are held as float32, pictures as uint8 [N, H, W, C] (see pictures.py).

Format 2, which Diffusion Policy's reader opens; 2 and 3 are read, as a folder or a zip.
`episode_ends` is written last, so an episode counts once its end is stored: rows beyond the last
end are not read.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from diffpolicy.data.attributes import VERSION
from diffpolicy.data.demonstration import OUTCOMES
from diffpolicy.data.formats import open_without_options, recognised, unrecognised
from diffpolicy.data.held import hold
from diffpolicy.data.pictures import NotPictures, read_pictures
from diffpolicy.data.precision import lost_changes
from diffpolicy.data.stored_pictures import stored_pictures
from diffpolicy.data.zarr_store import ZarrStore, check_memory, open_store, reading
from diffpolicy.errors import DiffpolicyError
from diffpolicy.specification import picture_shape

ENDS, SEEDS = "meta/episode_ends", "meta/episode_seeds"


@dataclass(frozen=True)
class Demonstrations:
    """Validated arrays in memory.

    arrays: each [N, …], float32 or uint8 pictures (perhaps on disk), the actions among them;
    episode_ends [E] int64. attributes: those of the store. notes: sentences about rows that were
    left out, precision that was lost and pictures that were converted.
    """

    path: Path
    arrays: dict[str, Any]
    episode_ends: np.ndarray
    attributes: dict[str, Any]
    action_key: str = "action"
    notes: tuple[str, ...] = ()

    @property
    def rows(self) -> int:
        """N."""
        return len(self.action)

    @property
    def action(self) -> np.ndarray:
        """[N, D_a] float32."""
        return self.arrays[self.action_key]

    def observation(self, keys: Sequence[str]) -> np.ndarray:
        """The named arrays, flattened and joined in that order: [N, D_o] float32."""
        flat = [self.arrays[key].reshape(self.rows, -1) for key in keys]
        return np.concatenate(flat, axis=1) if len(flat) > 1 else flat[0]


@dataclass(frozen=True)
class Contents:
    """Contents of a store, before any array under data/ is read.

    names: of the arrays of observations and actions. outcomes: of those arrays under data/ that are
    in `OUTCOMES`. ends: [E] int64, strictly increasing. recorded_here: by DemonstrationWriter,
    which leaves out no chunk; its arrays differ in length only if a crash left an unfinished
    episode.
    """

    store: Any  # ZarrStore, or HeldStore for another format
    names: list[str]
    ends: np.ndarray
    recorded_here: bool
    notes: tuple[str, ...]
    outcomes: tuple[str, ...] = ()

    @property
    def rows(self) -> int:
        """N, the last end."""
        return int(self.ends[-1]) if len(self.ends) else 0

    def array(self, name: str) -> tuple[Any, list[str]]:
        """A zarr array under data/ that holds the first `rows` rows; notes on it."""
        array = self.store.array(f"data/{name}")
        if array.shape[0] < self.rows:
            raise DiffpolicyError(
                f"{self.store.path}: data/{name} has shape {array.shape}, but meta/episode_ends "
                f"counts {self.rows} rows; the store is truncated or was written by something else"
            )
        absent = self.store.check_chunks(array, self.rows, complete=self.recorded_here)
        if not absent:
            return array, []
        fill = f"read as {array.fill_value}, the fill value"
        return array, [f"data/{name}: chunks that are not on disk: {absent:,}, {fill}"]

    def check_length(self, name: str, array: Any, actions: int) -> None:
        """Raise DiffpolicyError unless each row belongs to one action."""
        if array.shape[0] != actions and not self.recorded_here:
            raise DiffpolicyError(
                f"{self.store.path}: data/{name} has {array.shape[0]:,} rows for {actions:,} "
                "actions; row t of each array belongs to action t, so leave out, say, the "
                "observations after the last action of each episode"
            )

    def unread(self, rows: int) -> list[str]:
        """A note on the rows beyond the last end, if there are any."""
        if rows == self.rows:
            return []
        return [
            f"{rows - self.rows:,} of {rows:,} rows lie beyond the last of {ENDS} "
            f"({self.rows:,}) and are not read"
        ]


def contents(path: str | Path, writable: bool = False) -> Contents:
    """Names, ends and attributes of a store; data of other formats are read into memory.

    Raises DiffpolicyError for anything else, and for data that cannot be read without an option.
    """
    kind = "zarr" if writable else recognised(Path(path))
    if kind is None:
        raise unrecognised(Path(path))
    if kind != "zarr":
        return _held(Path(path))
    return contents_of_zarr(Path(path), writable)


def contents_of_zarr(path: Path, writable: bool = False) -> Contents:
    """Names, ends and attributes of a store."""
    store = open_store(path, writable)
    found = store.names("data")
    names, outcomes = _sorted_out(found)
    if "episode_ends" not in store.names("meta") or not names:
        raise DiffpolicyError(
            f"{path} is not a demonstration store: expected the groups data/ and meta/ with "
            f"{ENDS}; found {store.files.folders('')}"
        )
    recorded_here = "episode_seeds" in store.names("meta") and VERSION in store.attributes
    ends = _stored_ends(store)
    if recorded_here:
        return Contents(store, names, finished(ends, store.path), True, (), outcomes)
    steps = np.diff(ends, prepend=0)
    if np.any(steps < 0):
        raise DiffpolicyError(f"{path}: {ENDS} must increase; got {ends[:8]} …")
    empty = int(np.sum(steps == 0))
    notes = (f"{empty} episodes without steps are left out",) if empty else ()
    return Contents(store, names, ends[steps > 0], False, notes, outcomes)


def _held(path: Path) -> Contents:
    """Contents of a data set in another format."""
    source = open_without_options(path)
    store, ends = hold(source)
    names, outcomes = _sorted_out(sorted(store.arrays))
    return Contents(store, names, ends, False, source.notes, outcomes)


def _sorted_out(found: list[str]) -> tuple[list[str], tuple[str, ...]]:
    """Names of observations and actions; names of outcomes."""
    outcomes = tuple(name for name in found if name in OUTCOMES)
    return [name for name in found if name not in OUTCOMES], outcomes


def _stored_ends(store: ZarrStore) -> np.ndarray:
    """meta/episode_ends as int64, as stored."""
    array = store.array(ENDS)
    if array.ndim > 2 or array.shape[1:] not in ((), (1,)) or array.dtype.kind == "b":
        raise DiffpolicyError(
            f"{store.path}: {ENDS} must be a row of whole numbers; got {array.dtype} "
            f"{list(array.shape)}"
        )
    # A crash leaves room for one end that is not written yet, perhaps in a chunk of its own.
    store.check_chunks(array, max(0, array.shape[0] - 1), complete=True)
    store.check_chunks(array, array.shape[0], complete=False)
    check_memory(array, array.shape[0], f"{store.path}: {ENDS}")
    with reading(f"{store.path}: {ENDS}"):
        values = array[:].reshape(-1)
        ends = values.astype(np.int64)
    if not np.array_equal(ends, values):
        raise DiffpolicyError(f"{store.path}: {ENDS} must be whole numbers; got {values[:8]} …")
    return ends


def finished(ends: np.ndarray, path: Path) -> np.ndarray:
    """Cut off the zeros that a crash left between making room for ends and writing them."""
    ends = ends[: np.flatnonzero(ends).max(initial=-1) + 1]
    if np.any(np.diff(ends, prepend=0) <= 0):
        raise DiffpolicyError(f"{path}: {ENDS} must increase; got {ends[:8]} …")
    return ends


def read_array(
    source: Contents,
    name: str,
    array: Any,
    pictures: bool = False,
    numbers_too: bool = False,
    on_disk: bool = False,
) -> tuple[Any, list[str]]:
    """The finished rows of data/name as float32, and notes on lost precision.

    pictures: rows with the shape of a picture become uint8 [N, H, W, C]. numbers_too: those that
    hold other numbers, such as a depth in metres, stay float32, with a note; else NotPictures.
    on_disk: pictures become `StoredPictures`.
    """
    what = f"{source.store.path}: data/{name}"
    notes: list[str] = []
    if pictures and picture_shape(array.shape[1:]):
        try:
            if on_disk:
                return stored_pictures(array, source.rows, what)
            return read_pictures(array, source.rows, what)
        except NotPictures as error:
            if not numbers_too:
                raise
            notes = [f"read as float32: {str(error).removeprefix(f'{source.store.path}: ')}"]
    check_memory(array, source.rows, what)
    with reading(what):
        stored = array[: source.rows]
        with np.errstate(over="ignore"):  # beyond float32 is infinite, and refused below
            values = np.asarray(stored, dtype=np.float32)
    if not np.isfinite(values).all():
        row = int(np.argwhere(~np.isfinite(values))[0, 0])
        raise DiffpolicyError(f"{what} is not finite (NaN or inf, in float32) at row {row}")
    return values, notes + lost_changes(stored, values, f"data/{name}")


def open_demonstrations(
    path: str | Path, keys: Sequence[str] | None = None, action: str = "action"
) -> Demonstrations:
    """Read and validate the actions and the named arrays (all by default); pictures as uint8.

    Arrays with the shape of pictures and other numbers are refused if they are named, else float32.
    """
    return read_demonstrations(contents(path), keys, action)


def read_demonstrations(
    source: Contents,
    keys: Sequence[str] | None = None,
    action: str = "action",
    vectors: Collection[str] = (),
    mapped: Collection[str] = (),
    on_disk: bool = False,
) -> Demonstrations:
    """As `open_demonstrations`, from an open store.

    vectors: arrays that are never pictures. mapped: arrays that need not be, as if not named.
    on_disk: pictures become `StoredPictures`.
    """
    names, path = source.names, source.store.path
    free = names if keys is None else mapped
    wanted = list(dict.fromkeys([*(names if keys is None else keys), action]))
    for name in [action, *wanted]:
        if name not in names:
            hint = "; name the array of actions with --action" if name == action else ""
            raise DiffpolicyError(f"{path} has no data/{name}; it holds: {', '.join(names)}{hint}")
    if not len(source.ends):
        raise DiffpolicyError(f"{path} holds no finished episode")
    checked = {name: source.array(name) for name in wanted}
    stored = {name: array for name, (array, _) in checked.items()}
    for name, array in stored.items():
        source.check_length(name, array, stored[action].shape[0])
    read = {
        name: read_array(
            source, name, stored[name], name not in (*vectors, action), name in free, on_disk
        )
        for name in wanted
    }
    arrays = {name: values for name, (values, _) in read.items()}
    if arrays[action].ndim == 1:
        arrays[action] = arrays[action][:, None]
    if arrays[action].ndim != 2:
        raise DiffpolicyError(
            f"{path}: data/{action} must be [N, D_a]; its shape is {arrays[action].shape}"
        )
    notes = (
        *source.notes,
        *source.unread(max(array.shape[0] for array in stored.values())),
        *(note for _, found in (*checked.values(), *read.values()) for note in found),
    )
    return Demonstrations(path, arrays, source.ends, source.store.attributes, action, notes)
