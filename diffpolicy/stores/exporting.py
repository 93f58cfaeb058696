"""`diffpolicy export`: convert a store to a foreign format."""

import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from diffpolicy.data.demonstration import Demonstration, Source
from diffpolicy.data.formats import WRITERS, module, open_source
from diffpolicy.errors import DiffpolicyError
from diffpolicy.files import writing
from diffpolicy.stores.config import ExportConfig


def export_store(config: ExportConfig) -> None:
    """Write every episode of a store, and name everything that the format could not hold."""
    source = open_source(config.store)
    if config.out.exists():
        raise DiffpolicyError(f"{config.out} exists; choose another --out")
    for note in source.notes:
        print(f"note: {note}")
    write = module(WRITERS[config.format]).write
    with writing(config.out):
        config.out.parent.mkdir(parents=True, exist_ok=True)
        _remove(config.out, only_dead=True)
    partial = config.out.with_name(f".{config.out.name}.{os.getpid()}.partial")
    try:
        lost = write(_Shown(source), config, partial)
        partial.rename(config.out)
    finally:
        _remove(config.out, only_dead=False)
    for sentence in lost:
        print(f"not in {config.format}: {sentence}")
    print(f"{config.out}: {len(source):,} episodes, {config.format}")


def _remove(out: Path, only_dead: bool) -> None:
    """Remove unfinished exports to `out` of this process, or of processes that do not exist."""
    for path in out.parent.glob(f".{out.name}.*.partial*"):
        process = path.name.removeprefix(f".{out.name}.").partition(".")[0]
        dead = process.isdecimal() and not Path(f"/proc/{process}").exists()
        if dead if only_dead else process == str(os.getpid()):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


@dataclass(frozen=True)
class _Shown:
    """A source with a bar of progress."""

    source: Source

    @property
    def format(self) -> str:
        return self.source.format

    @property
    def path(self) -> Path:
        return self.source.path

    @property
    def attributes(self) -> Mapping[str, Any]:
        return self.source.attributes

    @property
    def notes(self) -> tuple[str, ...]:
        return self.source.notes

    def __len__(self) -> int:
        return len(self.source)

    def episodes(self, start: int = 0) -> Iterator[Demonstration]:
        bar = {"total": len(self.source), "initial": start, "desc": "export", "unit": "episode"}
        yield from tqdm(self.source.episodes(start), **bar)
