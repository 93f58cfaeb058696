"""Stores of this project and of Diffusion Policy (zarr), read episode by episode.

Shapes: T actions of an episode.
"""

import math
import zipfile
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from diffpolicy.data.attributes import VERSION
from diffpolicy.data.demonstration import OUTCOMES, Demonstration
from diffpolicy.data.demonstrations import Contents, contents_of_zarr
from diffpolicy.data.episode_facts import TASKS, EpisodeFacts, stored_facts
from diffpolicy.data.formats.options import SourceOptions
from diffpolicy.data.zarr_store import check_bytes, reading
from diffpolicy.errors import DiffpolicyError

MARKS = (".zgroup", "zarr.json")
READ_BYTES = 2**24  # of episodes that are read together; a longer episode is read whole
NO_FACTS = EpisodeFacts({}, None, None, None, None)


def matches(path: Path) -> bool:
    """True for a zarr folder, and for a zip of one."""
    if path.is_dir():
        return any((path / mark).exists() for mark in MARKS)
    if not path.is_file():  # a pipe might never end
        return False
    try:
        with zipfile.ZipFile(path) as packed:
            return any(mark in packed.NameToInfo for mark in MARKS)
    except (OSError, ValueError, zipfile.BadZipFile):
        return False


def open_source(path: Path, options: SourceOptions | None = None) -> "StoredSource":
    """Open a store; raises DiffpolicyError for one that is damaged or has no data/action."""
    source, skip = contents_of_zarr(path), (options or SourceOptions()).skip
    _check_usable(source, skip)
    outcomes, notes = _outcomes(source)
    names = [name for name in (*source.names, *outcomes) if name not in skip]
    checked = {name: source.array(name) for name in names}
    arrays = {name: array for name, (array, _) in checked.items()}
    for name, array in arrays.items():
        source.check_length(name, array, arrays["action"].shape[0])
    absent = [note for _, found in checked.values() for note in found]
    unread = source.unread(max(array.shape[0] for array in arrays.values()))
    facts, attributes = NO_FACTS, dict(source.store.attributes)
    if source.recorded_here:
        facts = stored_facts(source.store, len(source.ends))
    else:
        notes += _others(source)
    attributes = {n: v for n, v in attributes.items() if n not in (VERSION, TASKS)}
    every = (*source.notes, *notes, *absent, *unread)
    return StoredSource(path, attributes, every, source, arrays, facts)


def _others(source: Contents) -> list[str]:
    """Notes on everything beside data/ and the ends in a store of others."""
    found = [f"meta/{name}" for name in source.store.names("meta") if name != "episode_ends"]
    found += [f"the attribute {TASKS}"] if TASKS in source.store.attributes else []
    return [f"left out: {', '.join(found)}"] if found else []


def _check_usable(source: Contents, skip: Collection[str]) -> None:
    path, names = source.store.path, ", ".join(source.names)
    observations = [name for name in source.names if name != "action"]
    if unknown := sorted(set(skip) - set(observations)):
        has = f"its observations are: {', '.join(observations)}"
        raise DiffpolicyError(f"{path} has no {', '.join(unknown)} to skip; {has}")
    if "action" not in source.names:
        raise DiffpolicyError(
            f"{path} has no data/action; it holds: {names}; rename its array of actions"
        )
    if not len(source.ends):
        raise DiffpolicyError(f"{path} holds no finished episode")


def _outcomes(source: Contents) -> tuple[list[str], list[str]]:
    """Names of the outcomes that have one number for each action; notes on others."""
    rows = {name: source.store.array(f"data/{name}").shape[1:] for name in source.outcomes}
    odd = [
        f"data/{name} has rows of {list(row)}, not one number for each action; it is left out"
        for name, row in rows.items()
        if math.prod(row) != 1
    ]
    return [name for name, row in rows.items() if math.prod(row) == 1], odd


@dataclass(frozen=True)
class StoredSource:
    """`Source` of a zarr store; holds one block of episodes in memory at a time."""

    path: Path
    attributes: Mapping[str, Any]
    notes: tuple[str, ...]
    contents: Contents
    arrays: Mapping[str, Any]  # zarr arrays by name, outcomes too
    facts: EpisodeFacts
    format: str = "zarr"

    def __len__(self) -> int:
        """E, the number of episodes."""
        return len(self.contents.ends)

    def episodes(self, start: int = 0) -> Iterator[Demonstration]:
        """Episodes from number `start` on."""
        bounds = np.concatenate([[0], self.contents.ends])
        while start < len(self):
            stop = self._stop(bounds, start)
            first, last = int(bounds[start]), int(bounds[stop])
            check_bytes((last - first) * self._row_bytes, f"{self.path}: episode {start}")
            rows = {name: self._read(name, x, first, last) for name, x in self.arrays.items()}
            finals = {k: self._read(k, x, start, stop) for k, x in self.facts.final.items()}
            for number in range(start, stop):
                part = slice(int(bounds[number]) - first, int(bounds[number + 1]) - first)
                arrays = {name: values[part] for name, values in rows.items()}
                final = {key: values[number - start] for key, values in finals.items()}
                yield self._episode(number, arrays, final)
            start = stop

    def _stop(self, bounds: np.ndarray, start: int) -> int:
        """Number after the last of the episodes to read together."""
        most = bounds[start] + max(1, READ_BYTES // self._row_bytes)
        return max(start + 1, int(np.searchsorted(bounds, most, side="right")) - 1)

    @property
    def _row_bytes(self) -> int:
        return sum(math.prod(x.shape[1:]) * x.dtype.itemsize for x in self.arrays.values())

    def _read(self, name: str, array: Any, first: int, last: int) -> np.ndarray:
        with reading(f"{self.path}: {name}"):
            return array[first:last]

    def _episode(
        self, number: int, arrays: dict[str, np.ndarray], final: dict[str, np.ndarray]
    ) -> Demonstration:
        facts = self.facts
        success = -1 if facts.success is None else facts.success[number]
        return Demonstration(
            {name: values for name, values in arrays.items() if name not in OUTCOMES},
            {name: arrays[name].reshape(-1) for name in OUTCOMES if name in arrays},
            {key: value for key, value in final.items() if key in arrays},
            None if success < 0 else bool(success),
            facts.tasks[number] if facts.tasks else "",
            facts.names[number] if facts.names else "",
        )
