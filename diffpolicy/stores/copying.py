"""Copy episodes of a data set to a new store, which appears whole or not at all."""

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from diffpolicy.data.appending import NO_SEED, stored_seeds
from diffpolicy.data.demonstration import BATCH_BYTES, Demonstration, Source
from diffpolicy.data.demonstration_writer import DemonstrationWriter
from diffpolicy.data.episode_facts import FORMS
from diffpolicy.data.formats.stored import StoredSource
from diffpolicy.errors import DiffpolicyError
from diffpolicy.files import remove_partial_folders

MOST_EPISODES = 256  # written at once
SOURCES = "sources"  # attribute: a list with the origin of the episodes, one entry a source
IMPORTED = ("source", "format", "options", "source_episodes")  # attributes of a store as imported


@dataclass
class Copies:
    """Episodes that are appended to a store, many at a time."""

    writer: DemonstrationWriter
    waiting: list[tuple[Demonstration, int]] = field(default_factory=list)
    waiting_bytes: int = 0
    count: int = 0

    def append(self, episode: Demonstration, seed: int) -> None:
        """Add one episode."""
        self.waiting.append((episode, seed))
        self.waiting_bytes += episode.nbytes
        self.count += 1
        if self.waiting_bytes >= BATCH_BYTES or len(self.waiting) >= MOST_EPISODES:
            self.flush()

    def flush(self) -> None:
        """Write what waits."""
        if self.waiting:
            episodes, seeds = zip(*self.waiting, strict=True)
            self.writer.extend(episodes, seeds)
        self.waiting, self.waiting_bytes = [], 0


@contextmanager
def new_store(path: Path, attributes: Mapping[str, Any]) -> Iterator[Copies]:
    """Copies to a store that is renamed to `path` at the end of the block.

    It is written under a temporary name beside it, and removed if the block raises. Raises
    DiffpolicyError if `path` exists, or if nothing was appended.
    """
    check_new(path)
    remove_partial_folders(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    writer = DemonstrationWriter(temporary, attributes, facts=FORMS)
    try:
        copies = Copies(writer)
        yield copies
        copies.flush()
        writer.close()
        if not copies.count:
            raise DiffpolicyError(f"no episode is left for {path}; nothing was written")
        check_new(path)
        temporary.rename(path)
    finally:
        writer.close()
        shutil.rmtree(temporary, ignore_errors=True)


def check_new(path: Path) -> None:
    """Raise DiffpolicyError if there is something at `path`."""
    if path.exists() or path.is_symlink():
        raise DiffpolicyError(f"{path} exists, and nothing is overwritten; choose another --out")


def seeds_of(source: Source) -> Sequence[int]:
    """Reset seed of each episode [E]; NO_SEED for one without."""
    if isinstance(source, StoredSource) and source.contents.recorded_here:
        return stored_seeds(source.contents)
    return [NO_SEED] * len(source)


def origin(source: Source, **more: Any) -> dict[str, Any]:
    """Entry of a source in the attribute `sources`; imported: where it was itself imported from."""
    entry = {"path": str(source.path.resolve()), "format": source.format, "episodes": len(source)}
    imported = {name: source.attributes[name] for name in IMPORTED if name in source.attributes}
    return {**entry, **({"imported": imported} if imported else {}), **more}


def derived(source: Source, **more: Any) -> dict[str, Any]:
    """Attributes of a store with episodes of one source: those of the source, and its origin.

    more: the change, such as the part of a split.
    """
    before = source.attributes.get(SOURCES, [])
    history = [*before] if isinstance(before, list) else []
    kept = {name: value for name, value in source.attributes.items() if name not in IMPORTED}
    return {**kept, SOURCES: [*history, origin(source, **more)]}


def part(episode: Demonstration, start: int, end: int) -> Demonstration:
    """Rows from `start` up to `end` of an episode.

    If its tail is cut off, the final observation is that of row `end`, and the episode counts as
    truncated.
    """
    if (start, end) == (0, len(episode)):
        return episode
    arrays = {name: values[start:end] for name, values in episode.arrays.items()}
    outcomes = {name: values[start:end] for name, values in episode.outcomes.items()}
    final = episode.final
    if end < len(episode):
        final = {key: episode.arrays[key][end] for key in final}
        if "truncated" in outcomes:
            outcomes["truncated"] = outcomes["truncated"].copy()
            outcomes["truncated"][-1] = True
    return replace(episode, arrays=arrays, outcomes=outcomes, final=final)
