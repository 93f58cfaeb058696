"""`diffpolicy import`: convert demonstrations of any format to a store."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from diffpolicy.data.appending import as_demonstration, as_stored
from diffpolicy.data.demonstration import Demonstration, Source, batches
from diffpolicy.data.demonstration_writer import DemonstrationWriter
from diffpolicy.data.demonstrations import contents
from diffpolicy.data.episode_facts import FORMS, content_hash, stored_facts
from diffpolicy.data.formats import open_source
from diffpolicy.errors import DiffpolicyError
from diffpolicy.stores.config import ImportConfig
from diffpolicy.stores.copying import IMPORTED, derived, seeds_of

UNDECLARED = {
    "control_dt_s": "its control period: give --control-dt SECONDS",
    "position_targets": "the meaning of its actions: give --position-targets True or False",
}


def import_store(config: ImportConfig) -> None:
    """Append the episodes of the source that the store lacks, so that a second call continues.

    The store says where it is from: its attributes name the source, its format and the options, and
    each episode has its name there and a hash of its content. Reset seeds of a store are kept.
    """
    source = open_source(config.source, config)
    attributes, seeds = _attributes(source, config), seeds_of(source)
    undeclared = [text for name, text in UNDECLARED.items() if attributes.get(name) is None]
    for note in (*source.notes, *(f"{source.path} does not declare {x}" for x in undeclared)):
        print(f"note: {note}")
    with closing(DemonstrationWriter(config.out, attributes, facts=FORMS)) as writer:
        done = len(writer.seeds)
        _check_continued(source, config.out, done)
        rows = sum(_append(writer, batch, seeds) for batch in batches(_named(source, done)))
    before = f" to the {done:,} that it had" if done else ""
    print(f"{config.out}: {len(source) - done:,} episodes, {rows:,} steps added{before}")


def _attributes(source: Source, config: ImportConfig) -> dict[str, Any]:
    """Attributes of the source, those that options declare instead, and provenance."""
    given = {"control_dt_s": config.control_dt, "position_targets": config.position_targets}
    values = str(source.path.resolve()), source.format, _given(config), len(source)
    provenance = dict(zip(IMPORTED, values, strict=True))
    declared = {name: value for name, value in given.items() if value is not None}
    imported_before = any(name in source.attributes for name in IMPORTED)
    before = derived(source) if imported_before else source.attributes
    return {**before, **declared, **provenance}


def _given(config: ImportConfig) -> dict[str, Any]:
    """Options that were given, as JSON data."""
    names = [f.name for f in fields(config) if f.name not in ("source", "out")]
    found = {name: getattr(config, name) for name in names}
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in found.items()
        if value not in (None, ())
    }


def _check_continued(source: Source, out: Path, done: int) -> None:
    """Raise DiffpolicyError unless the last stored episode is that of the source."""
    if not done:
        return
    stored = contents(out)
    hashes = stored_facts(stored.store, done).hashes
    last = next(source.episodes(done - 1), None) if done <= len(source) else None
    if last is not None:
        arrays = {name: stored.array(name)[0] for name in (*stored.names, *stored.outcomes)}
        last = as_stored(as_demonstration(last), arrays, out)
    if last is None or hashes is None or hashes[-1].tobytes() != content_hash(last):
        raise DiffpolicyError(
            f"{out} holds {done:,} episodes, and the last one differs from number {done - 1:,} of "
            f"{source.path}, which has changed since; choose another --out"
        )


def _named(source: Source, start: int) -> Iterator[Demonstration]:
    """Episodes from number `start` on, each with a name, and a bar of progress."""
    bar = tqdm(total=len(source), initial=start, desc="import", unit="episode")
    with bar:
        for number, episode in enumerate(source.episodes(start), start):
            yield episode if episode.name else replace(episode, name=str(number))
            bar.update(1)


def _append(writer: DemonstrationWriter, batch: list[Demonstration], seeds: Sequence[int]) -> int:
    """Write a batch with its seeds, those of all episodes given; return its number of rows."""
    start = len(writer.seeds)
    writer.extend(batch, seeds[start : start + len(batch)])
    return sum(map(len, batch))
