"""Options of the commands on stores, with their defaults, ranges and help texts."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional

from diffpolicy.checked import NOT_EMPTY, Checked, Range
from diffpolicy.config import CONTROL_DT, SEED, TICKS
from diffpolicy.data.formats.options import ExportOptions, SourceOptions


@dataclass(frozen=True)
class ImportConfig(SourceOptions):
    """Convert demonstrations of a foreign format to a store."""

    source: Positional[Path] = field(kw_only=True)
    """File or folder to read; nothing is downloaded."""
    out: Path = field(kw_only=True)
    """Store to write, or to continue."""
    control_dt: Annotated[float | None, CONTROL_DT] = None
    """Control period in seconds; by default as the source declares it."""
    position_targets: bool | None = None
    """True if actions are position targets; by default as the source declares it."""


@dataclass(frozen=True)
class ExportConfig(ExportOptions):
    """Convert a store to a foreign format."""

    store: Positional[Path] = field(kw_only=True)
    """Store to read; other formats are read too."""


@dataclass(frozen=True)
class ValidateConfig(Checked):
    """Check every array and episode of a store; the exit status is 1 if something is wrong."""

    path: Positional[Path]
    """Store, or a data set in a foreign format."""
    env: str | None = None
    """Gymnasium id of the environment whose action space is compared; by default that of the store,
    if it is one of diffpolicy's or Gymnasium's own."""


@dataclass(frozen=True)
class MergeConfig(Checked):
    """Join the episodes of several stores in a new one."""

    stores: Positional[Annotated[tuple[Path, ...], NOT_EMPTY]]
    """Stores to read, in this order."""
    out: Path
    """Store to write."""


@dataclass(frozen=True)
class SplitConfig(Checked):
    """Split a store by episodes, at random, into two new ones."""

    store: Positional[Path]
    """Store to read."""
    out: tuple[Path, Path]
    """Two stores to write."""
    fraction: Annotated[float, Range(0, 1)] = 0.9
    """Share of the episodes in the first one; both get at least one."""
    seed: Annotated[int, SEED] = 0
    """Seed of the choice."""


@dataclass(frozen=True)
class FilterConfig(Checked):
    """Copy chosen episodes of a store, or parts of them, to a new one."""

    store: Positional[Path]
    """Store to read."""
    out: Path
    """Store to write."""
    episodes: tuple[str, ...] = ()
    """Numbers or ranges of episodes, such as 0 5 10:20; by default all."""
    success: bool | None = None
    """Keep only episodes with this success, which the store must hold."""
    idle: Annotated[float | None, Range(0, 1)] = None
    """Cut off the start and the end of each episode while, within half a second, no action or
    observed vector moves by more than this share of its range."""
    shortest: Annotated[int, TICKS] = 1
    """Leave out episodes with fewer steps, after cutting."""
