"""Reader of npz and HDF5 files of any layout, by a map of names.

    --map observation=obs action=act episode_ends=ends      ends: cumulative, exclusive [E]
    --map observation=obs action=act dones=done             done: not 0 at the last row of each
    --map state=obs/state picture=obs/rgb action=act …      several observations

All arrays but episode_ends are [N, …], time first, and have equal length: row t belongs to action
t. reward, terminated and truncated may be mapped, too.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from diffpolicy.data.demonstration import OUTCOMES, Demonstration
from diffpolicy.data.formats.d4rl import ends_of
from diffpolicy.data.formats.hdf5_files import child, dataset, is_hdf5, open_hdf5, rows
from diffpolicy.data.formats.npz_files import names_in, open_npz
from diffpolicy.data.formats.opened import Opened, check_names, demonstration
from diffpolicy.data.formats.options import OptionNeeded, SourceOptions
from diffpolicy.errors import DiffpolicyError
from diffpolicy.specification import ACTION

ENDS, DONES = "episode_ends", "dones"
EXAMPLE = "--map observation=OBS action=ACT episode_ends=ENDS (or dones=DONES)"

Read = Callable[[int, int], np.ndarray]  # (first row, end) -> rows


def matches(path: Path) -> bool:
    """True for npz and HDF5, so that a damaged file, or an absent package, is named on opening."""
    return is_hdf5(path) or bool(names_in(path)) or path.suffix == ".npz"


def open_source(path: Path, options: SourceOptions) -> Opened:
    """Open a file with `options.map`. Raises DiffpolicyError, with the names in the file."""
    wanted = _map(path, options.map)
    if options.skip:
        raise DiffpolicyError("--skip is for other formats; leave the array out of --map")
    with _open(path, wanted) as found:
        ends, notes = _ends(found, path)
        shapes = {name: shape for name, (shape, _) in found.items() if name not in (ENDS, DONES)}
        lengths = {name: shape[0] for name, shape in shapes.items()}
        if len(set(lengths.values())) != 1 or ends[-1] != lengths[ACTION]:
            raise DiffpolicyError(
                f"{path} must hold {int(ends[-1]):,} rows of each array, as {ENDS} count; got "
                f"{lengths}"
            )
    named = {name: key for name, key in wanted.items() if name not in (ENDS, DONES)}

    def read(start: int) -> Iterator[Demonstration]:
        with _open(path, named) as found:
            for i in range(start, len(ends)):
                first, stop = int(ends[i - 1]) if i else 0, int(ends[i])
                arrays = {name: take(first, stop) for name, (_, take) in found.items()}
                actions = arrays.pop(ACTION)
                outcomes = {name: arrays.pop(name) for name in OUTCOMES if name in arrays}
                outcomes = {name: values.reshape(-1) for name, values in outcomes.items()}
                name = f"rows {first}:{stop}"
                yield demonstration(f"{path}: {name}", arrays, actions, outcomes, name=name)

    return Opened("arrays", path, len(ends), read, {}, tuple(notes))


def _map(path: Path, pairs: tuple[str, ...]) -> dict[str, str]:
    """{name in a store: name in the file}."""
    split = [pair.partition("=") for pair in pairs]
    wanted = {name: key for name, _, key in split}
    there = _names(path)
    if not pairs or len(wanted) < len(pairs) or not all(wanted.values()):
        raise OptionNeeded(
            f"{path} is in no known layout: name its arrays with {EXAMPLE}; it has: {_some(there)}"
        )
    observations = set(wanted) - {ACTION, ENDS, DONES, *OUTCOMES}
    if ACTION not in wanted or (ENDS in wanted) == (DONES in wanted) or not observations:
        raise DiffpolicyError(f"--map needs an observation, action and ends: {EXAMPLE}")
    check_names(observations, "--map")
    if absent := [key for key in wanted.values() if key not in there]:
        raise DiffpolicyError(f"{path} has no array {absent[0]!r}; it has: {_some(there)}")
    return wanted


def _names(path: Path) -> list[str]:
    if not is_hdf5(path):
        return names_in(path)
    with open_hdf5(path) as file:
        return _all_names(file)


def _all_names(group: Any) -> list[str]:
    """Names of all data sets, also of those that cannot be read as numbers."""
    found: list[str] = []
    group.visititems(lambda name, thing: found.append(name) if hasattr(thing, "shape") else None)
    return found


def _some(names: list[str]) -> str:
    return ", ".join(names[:30]) + (" …" if len(names) > 30 else "")


@contextmanager
def _open(path: Path, wanted: dict[str, str]) -> Iterator[dict[str, tuple[tuple[int, ...], Read]]]:
    """{name in a store: (shape, rows)} of the mapped arrays."""
    if is_hdf5(path):
        with open_hdf5(path) as file:
            yield {n: _hdf5_rows(file, key) for n, key in wanted.items()}
        return
    with open_npz(path, tuple(wanted.values())) as members:
        if missing := [key for key in wanted.values() if key not in members]:
            raise DiffpolicyError(f"{path}: {missing[0]!r} must hold numbers")
        yield {n: (members[key].shape, members[key].rows) for n, key in wanted.items()}


def _hdf5_rows(file: Any, key: str) -> tuple[tuple[int, ...], Read]:
    """Shape of a data set, and a function of its rows. Links on the way are not followed."""
    group: Any = file
    *parents, name = key.strip("/").split("/")
    for parent in parents:
        group = child(group, parent)
    data = dataset(group, name)
    return data.shape, lambda start, stop: rows(data, start, stop)


def _ends(found: dict[str, Any], path: Path) -> tuple[np.ndarray, list[str]]:
    """Cumulative ends [E], strictly increasing."""
    if any(not shape or 0 in shape[1:] for shape, _ in found.values()):
        raise DiffpolicyError(f"{path} must hold rows of numbers under every mapped name")
    if DONES in found:
        shape, take = found[DONES]
        done = take(0, shape[0])
        return ends_of(done.any(axis=tuple(range(1, done.ndim))), path)
    shape, take = found[ENDS]
    values = take(0, shape[0]).reshape(-1)
    with np.errstate(invalid="ignore"):  # NaN is no whole number
        ends = values.astype(np.int64)
    if not len(ends) or np.any(np.diff(ends, prepend=0) <= 0) or not np.array_equal(ends, values):
        raise DiffpolicyError(f"{path}: {ENDS} must be whole numbers that increase; got {ends[:8]}")
    return ends, []
