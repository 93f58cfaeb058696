"""Reader of D4RL's HDF5: observations, actions, rewards, terminals, timeouts, all [N, …].

An episode ends where a row is terminal or timed out. Row t of observations belongs to action t; the
observation after the last action is known from next_observations only.

Layout: D4RL (Fu et al. 2020), d4rl/offline_env.py.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from diffpolicy.data.demonstration import REWARD, TERMINATED, TRUNCATED, Demonstration
from diffpolicy.data.formats.hdf5_files import dataset, is_hdf5, links, open_hdf5, root_names, rows
from diffpolicy.data.formats.opened import Opened, demonstration, kept_names
from diffpolicy.data.formats.options import OptionNeeded, SourceOptions
from diffpolicy.errors import DiffpolicyError
from diffpolicy.specification import FLAT

OUTCOMES = {"rewards": REWARD, "terminals": TERMINATED, "timeouts": TRUNCATED}
NEEDED = {"observations", "actions", "terminals"}
NEXT = "next_observations"
PROBES = 100  # ends that are compared with the next row


def matches(path: Path) -> bool:
    """True for HDF5 with observations, actions and terminals at its root."""
    return is_hdf5(path) and set(root_names(path)) >= NEEDED


def open_source(path: Path, options: SourceOptions) -> Opened:
    """Open a file. Raises DiffpolicyError for one without ends of episodes."""
    kept_names([FLAT], options.skip, str(path))
    with open_hdf5(path) as file:
        there = links(file)
        arrays = {name: dataset(file, name) for name in _wanted(there)}
        lengths = {name: len(data) for name, data in arrays.items()}
        if len(set(lengths.values())) != 1:
            raise DiffpolicyError(f"{path} must hold arrays of equal length; got {lengths}")
        flags = {name: _flags(arrays[name]) for name in ("terminals", "timeouts") if name in there}
        ends, notes = ends_of(np.any(list(flags.values()), axis=0), path)
        notes += _doubts(arrays, ends, there)

    def read(start: int) -> Iterator[Demonstration]:
        with open_hdf5(path) as file:
            data = {name: dataset(file, name) for name in arrays}
            for i in range(start, len(ends)):
                yield _episode(data, int(ends[i - 1]) if i else 0, int(ends[i]), path)

    return Opened("d4rl", path, len(ends), read, {}, tuple(notes))


def _wanted(there: list[str]) -> list[str]:
    return [n for n in ("observations", "actions", *OUTCOMES, NEXT) if n in there or n in NEEDED]


def _flags(data: Any) -> np.ndarray:
    values = rows(data)
    return np.asarray(values.any(axis=tuple(range(1, values.ndim))))


def ends_of(last: np.ndarray, path: Path) -> tuple[np.ndarray, list[str]]:
    """Cumulative ends [E] of episodes from marks of their last rows [N], and notes on the rest."""
    ends = np.flatnonzero(last) + 1
    if not len(ends):
        raise OptionNeeded(
            f"{path} marks no row as the last one of an episode; give the ends with "
            "--format arrays --map observation=… action=… episode_ends=…"
        )
    if ends[-1] == len(last):
        return ends, []
    rest = f"the last {len(last) - ends[-1]:,} rows have no end and are taken as one episode"
    return np.append(ends, len(last)), [rest]


def _doubts(arrays: dict[str, Any], ends: np.ndarray, there: list[str]) -> list[str]:
    """Notes on ends that may be wrong, and on arrays that are left out."""
    notes = []
    if "timeouts" not in there:
        notes.append("without timeouts, episodes end only at terminal rows; check their lengths")
    if NEXT in arrays:
        probed = ends[:-1][:PROBES]
        following = [(arrays[NEXT][end - 1], arrays["observations"][end]) for end in probed]
        wrong = sum(np.array_equal(then, now) for then, now in following)
        if wrong:
            notes.append(
                f"{wrong} of {len(probed)} ends lie inside a motion that goes on in the next row: "
                "timeouts are misplaced, as in old antmaze and kitchen files"
            )
    else:
        notes.append("without next_observations, misplaced timeouts cannot be seen")
    others = sorted(set(there) - set(arrays))
    return [*notes, f"left out: {', '.join(others)}"] if others else notes


def _episode(data: dict[str, Any], start: int, stop: int, path: Path) -> Demonstration:
    name = f"rows {start}:{stop}"
    outcomes = {OUTCOMES[n]: rows(d, start, stop) for n, d in data.items() if n in OUTCOMES}
    outcomes = {name: values.reshape(stop - start) for name, values in outcomes.items()}
    final = {FLAT: rows(data[NEXT], stop - 1, stop)[0]} if NEXT in data else {}
    observations = {FLAT: rows(data["observations"], start, stop)}
    actions = rows(data["actions"], start, stop)
    return demonstration(f"{path}: {name}", observations, actions, outcomes, final=final, name=name)
