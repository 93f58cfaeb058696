"""Options of `diffpolicy report`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional

from diffpolicy.checked import NOT_EMPTY, Checked
from diffpolicy.errors import DiffpolicyError


@dataclass(frozen=True)
class ReportConfig(Checked):
    """Draw the tables, plots, pages and CSV files of results again."""

    files: Positional[Annotated[tuple[Path, ...], NOT_EMPTY]]
    """Result files (JSON) of eval, latency, delays, sweep, suite, offline, replay or compare."""
    out: Path | None = None
    """Folder to write; by default the folder of each file."""

    def __post_init__(self):
        if not self.files:
            raise DiffpolicyError("give at least one result file")
        super().__post_init__()
