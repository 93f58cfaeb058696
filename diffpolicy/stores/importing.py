"""`diffpolicy import`: convert demonstrations of any format to a store."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from diffpolicy.data.demonstration import Demonstration, Source, batches
from diffpolicy.data.demonstration_writer import DemonstrationWriter
from diffpolicy.data.demonstrations import contents
from diffpolicy.data.episode_facts import content_hash, stored_facts
from diffpolicy.data.formats import open_source
from diffpolicy.data.formats.options import SourceOptions
from diffpolicy.errors import DiffpolicyError
from diffpolicy.stores.config import ImportConfig


def import_store(config: ImportConfig) -> None:
    """Append the episodes of the source that the store lacks, so that a second call continues.

    The store says where it is from: its attributes name the source, its format and the options, and
    each episode has its name there and a hash of its content.
    """
    options = SourceOptions(**{f.name: getattr(config, f.name) for f in fields(SourceOptions)})
    source = open_source(config.source, options)
    for note in source.notes:
        print(f"note: {note}")
    with closing(DemonstrationWriter(config.out, _attributes(source, options))) as writer:
        done = len(writer.seeds)
        _check_continued(source, config.out, done)
        rows = sum(_append(writer, batch) for batch in batches(_named(source, done)))
    before = f" to the {done:,} that it had" if done else ""
    print(f"{config.out}: {len(source) - done:,} episodes, {rows:,} steps added{before}")


def _attributes(source: Source, options: SourceOptions) -> dict[str, Any]:
    """Attributes of the source, those that options declare instead, and provenance."""
    given = {"control_dt_s": options.control_dt, "position_targets": options.position_targets}
    provenance = {
        "source": str(source.path.resolve()),
        "format": source.format,
        "options": _given(options),
        "source_episodes": len(source),
    }
    declared = {name: value for name, value in given.items() if value is not None}
    return {**source.attributes, **declared, **provenance}


def _given(options: SourceOptions) -> dict[str, Any]:
    """Options that are not their defaults, as JSON data."""
    default = SourceOptions()
    found = {f.name: getattr(options, f.name) for f in fields(options)}
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in found.items()
        if value != getattr(default, name)
    }


def _check_continued(source: Source, out: Path, done: int) -> None:
    """Raise DiffpolicyError unless the last stored episode is that of the source."""
    if not done:
        return
    facts = stored_facts(contents(out).store, done)
    last = next(source.episodes(done - 1), None) if done <= len(source) else None
    if last is None or facts.hashes is None or facts.hashes[-1].tobytes() != content_hash(last):
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


def _append(writer: DemonstrationWriter, batch: list[Demonstration]) -> int:
    """Write a batch; return its number of rows."""
    writer.extend(batch)
    return sum(map(len, batch))
