"""`diffpolicy export`: convert a store to a foreign format."""

import os
import shutil
from collections.abc import Iterator
from glob import escape
from pathlib import Path

from diffpolicy.data.appending import NO_SEED
from diffpolicy.data.demonstration import Demonstration, Source
from diffpolicy.data.formats import WRITERS, module, open_without_options
from diffpolicy.data.formats.opened import Opened
from diffpolicy.files import is_alive, writing
from diffpolicy.stores.config import ExportConfig
from diffpolicy.stores.copying import check_new, seeds_of
from diffpolicy.terminal.progress import progress_bar


def export_store(config: ExportConfig) -> None:
    """Write every episode of a store, and name everything that the format could not hold."""
    source = open_without_options(config.store)
    check_new(config.out)
    for note in source.notes:
        print(f"note: {note}")
    write = module(WRITERS[config.format]).write
    with writing(config.out):
        config.out.parent.mkdir(parents=True, exist_ok=True)
        _remove(config.out, only_dead=True)
    partial = config.out.with_name(f".{config.out.name}.{os.getpid()}.partial")
    try:
        lost = [*write(_shown(source), config, partial)]
        check_new(config.out)
        partial.rename(config.out)
    finally:
        _remove(config.out, only_dead=False)
    if max(seeds_of(source), default=NO_SEED) > NO_SEED:
        lost.append("the reset seeds of the episodes")
    for sentence in lost:
        print(f"not in {config.format}: {sentence}")
    print(f"{config.out}: {len(source):,} episodes, {config.format}")


def _remove(out: Path, only_dead: bool) -> None:
    """Remove unfinished exports to `out` of this process, or of processes that do not exist."""
    for path in out.parent.glob(f".{escape(out.name)}.*.partial*"):
        process = path.name.removeprefix(f".{out.name}.").partition(".")[0]
        dead = process.isdecimal() and not is_alive(int(process))
        if dead if only_dead else process == str(os.getpid()):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def _shown(source: Source) -> Opened:
    """The source with a bar of progress."""

    def read(start: int) -> Iterator[Demonstration]:
        bar = {"total": len(source), "initial": start, "desc": "export", "unit": "episode"}
        yield from progress_bar(source.episodes(start), **bar)

    return Opened(source.format, source.path, len(source), read, source.attributes, source.notes)
