"""Append episodes to a store of demonstrations, creating it at the first one.

`meta/episode_ends` is written last, so an episode counts once its end is stored: finished episodes
survive every crash, and an unfinished one is overwritten by the next.
"""

import math
import os
import shutil
import weakref
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from diffpolicy.data.appending import (
    NO_SEED,
    as_demonstration,
    as_stored,
    check_appendable,
    check_episode,
    check_origin,
    stored_arrays,
    stored_seeds,
)
from diffpolicy.data.attributes import VERSION
from diffpolicy.data.demonstration import Demonstration
from diffpolicy.data.demonstrations import ENDS, SEEDS, contents, finished
from diffpolicy.data.episode_facts import TASKS, known_facts, packed, stored_tasks
from diffpolicy.data.zarr_store import ZarrStore, open_store
from diffpolicy.errors import DiffpolicyError
from diffpolicy.files import lock, writing
from diffpolicy.specification import picture_shape

FORMAT_VERSION = 1
CHUNK_ROWS = 4096
PICTURE_CHUNK_BYTES = 2**19  # see `layout`
END_CHUNK = 1024


class DemonstrationWriter:
    """Append episodes; one writer at a time opens a store and holds it until `close`.

    Opening checks everything and changes nothing. The first append removes what a crash left, and
    consolidated metadata, which no append keeps up to date. The first append decides the arrays of
    the store: later episodes have the same, but success, task and name may be unknown. facts: names
    of such arrays (`FORMS`) that a new store has although the first episode may not need them.
    """

    def __init__(
        self, path: str | Path, attributes: Mapping[str, Any], facts: Collection[str] = ()
    ):
        self.path, self.facts = Path(path), facts
        self.attributes = {VERSION: FORMAT_VERSION, **attributes}
        self.seeds: list[int] = []
        self._store: ZarrStore | None = None
        self._claim: Callable[[], object] | None = None
        self._names: list[str] = []  # of all arrays but seeds and ends
        self._tasks: list[str] = []
        self._clean = True
        if self.path.exists():
            with writing(self.path):
                try:
                    self._reopen()
                except BaseException:
                    self.close()
                    raise

    @property
    def keeps_outcomes(self) -> bool:
        """False for a store that holds episodes without outcomes and final observations."""
        return not self._names or any(name.startswith("final/") for name in self._names)

    def next_seed(self, first: int) -> int:
        """Seed after those of all stored episodes, and not below `first`."""
        return max([first - 1, *self.seeds]) + 1

    def append(
        self, episode: Demonstration | Mapping[str, np.ndarray], seed: int = NO_SEED
    ) -> None:
        """Write one episode: arrays [T, …] with equal T > 0, "action" among them.

        A mapping is arrays alone. seed: provenance, the reset that made the episode, if there was
        one.
        """
        self.extend([episode], [seed])

    def extend(
        self,
        episodes: Sequence[Demonstration | Mapping[str, np.ndarray]],
        seeds: Sequence[int] | None = None,
    ) -> None:
        """Write several episodes with one change of each array, faster than one by one."""
        import zarr

        made = [as_demonstration(episode) for episode in episodes]
        for episode in made:
            check_episode(episode)
        # Empty chunks are written too, so a chunk that is absent from the disk is always a loss.
        with writing(self.path), zarr.config.set({"array.write_empty_chunks": True}):
            held = {name: self._store.array(name) for name in self._names} if self._store else {}
            rows = {n.removeprefix("data/"): x for n, x in held.items() if n.startswith("data/")}
            rows = rows or {**made[0].arrays, **made[0].outcomes}
            made = [as_stored(episode, rows, self.path) for episode in made]
            wanted, tasks = self._wanted(made), list(self._tasks)
            facts = packed(made, wanted, tasks)
            store = self._store or self._create(rows, facts, tasks)
            stored = held or {name: store.array(name) for name in self._names}
            stored_seeds, stored_ends = store.array(SEEDS), store.array(ENDS)
            ends = self._finished(stored_ends)
            self._remove_leftovers()
            self._keep_tasks(tasks)
            count, end = len(ends), int(ends[-1]) if len(ends) else 0
            for name, array in stored.items():
                if name in facts:
                    _extend(array, count, facts[name])
                else:
                    _extend(array, end, _joined(made, name.removeprefix("data/")))
            seeds = [NO_SEED] * len(made) if seeds is None else seeds
            _extend(stored_seeds, count, np.array(seeds))
            new_ends = end + np.cumsum([len(episode) for episode in made])
            for part in _parts(count, len(new_ends)):
                _extend(stored_ends, count + part.start, new_ends[part])
        self.seeds += seeds

    def close(self) -> None:
        """Let other writers open the store."""
        self._store = None
        if self._claim:
            self._claim()

    def _wanted(self, episodes: Sequence[Demonstration]) -> list[str]:
        """Names of the arrays of facts to write; DiffpolicyError for those the store lacks."""
        known = known_facts(episodes)
        if not self._names:
            return sorted({*known, *self.facts})
        if missing := sorted(known - set(self._names)):
            raise DiffpolicyError(
                f"{self.path} holds no {', '.join(missing)}, which this episode has; every episode "
                "of a store has the arrays of the first one"
            )
        return [name for name in self._names if not name.startswith("data/")]

    def _create(
        self,
        arrays: Mapping[str, np.ndarray],
        facts: Mapping[str, np.ndarray],
        tasks: list[str],
    ) -> ZarrStore:
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
        rows = {f"data/{name}": values for name, values in arrays.items()}
        for name, values in {**rows, **facts}.items():
            group.create_array(
                name,
                shape=(0, *values.shape[1:]),
                dtype=values.dtype,
                fill_value=np.nan if values.dtype.kind == "f" else 0,
                **layout(values, CHUNK_ROWS if name in rows else END_CHUNK),
            )
        for name in (SEEDS, ENDS):
            group.create_array(name, shape=(0,), chunks=(END_CHUNK,), dtype="int64")
        group.attrs.update(self.attributes | ({TASKS: tasks} if tasks else {}))
        temporary.rename(self.path)
        self._names, self._tasks = [*rows, *facts], tasks
        self._store = open_store(self.path, writable=True)
        return self._store

    def _reopen(self) -> None:
        if not self.path.is_dir():
            raise DiffpolicyError(
                f"no demonstration store at {self.path} to append to: expected a zarr folder; "
                "choose another --out"
            )
        self._hold(self.path)
        source = contents(self.path, writable=True)
        check_origin(source, self.attributes)
        names, tasks = stored_arrays(source), stored_tasks(source.store)
        self.seeds = stored_seeds(source)
        for name in (SEEDS, ENDS):
            check_appendable(source.store.array(name), len(source.ends), self.path)
        self._names, self._tasks, self._store, self._clean = names, tasks, source.store, False

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

    def _keep_tasks(self, tasks: list[str]) -> None:
        """Store new texts before the numbers that name them."""
        import zarr

        if tasks != self._tasks:
            group = zarr.open_group(self.path, mode="r+", use_consolidated=False)
            group.attrs[TASKS] = tasks
            self._tasks = tasks


def _claimed(folder: Path, path: Path) -> int:
    busy = f"{path} is being written by another writer; wait for its end, or choose another --out"
    return lock(folder, busy)


def layout(values: np.ndarray, most_rows: int = CHUNK_ROWS) -> dict[str, Any]:
    """Chunks and, for pictures, the codec of an array with such rows.

    Half a MiB of pictures a chunk, with zstd. Measured with Push-T's pictures, 18 rows of 96 × 96:
    1 % of the size, 0.4 to 0.6 ms for a random window of two, under 1 s for a full read. Chunks of
    one picture take 3 times the space and 7 s for a full read; of 64, 1.5 times as long for a
    window, and 2 to 6 times with a noisy camera. lz4 takes 3 times the space, shuffled bits too.
    """
    from numcodecs import Blosc

    row = values.shape[1:]
    if not picture_shape(row):
        return {"chunks": (most_rows, *row)}
    rows = max(1, min(most_rows, PICTURE_CHUNK_BYTES // (math.prod(row) * values.itemsize)))
    return {"chunks": (rows, *row), "compressors": Blosc("zstd", 5, Blosc.NOSHUFFLE)}


def _joined(episodes: Sequence[Demonstration], name: str) -> np.ndarray:
    """[Σ T, …] rows of one array."""
    values = [{**episode.arrays, **episode.outcomes}[name] for episode in episodes]
    return np.concatenate(values) if len(values) > 1 else values[0]


def _parts(start: int, count: int) -> Iterator[slice]:
    """Parts of `count` new ends that a crash leaves whole: each in one chunk.

    The first entry of a chunk comes alone, because room for more in a chunk that is not written
    yet would look like a loss.
    """
    done = 0
    while done < count:
        filled = (start + done) % END_CHUNK
        part = slice(done, min(count, done + (END_CHUNK - filled if filled else 1)))
        yield part
        done = part.stop


def _extend(array: Any, start: int, values: np.ndarray) -> None:
    """Write values from row `start` on, over the rows of an unfinished episode."""
    array.resize((start + len(values), *array.shape[1:]))
    array[start:] = values
