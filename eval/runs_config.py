"""Options of `diffpolicy runs`."""

from dataclasses import dataclass, field
from pathlib import Path

from tyro.conf import Positional

from diffpolicy.checked import Checked


@dataclass(frozen=True)
class RunsConfig(Checked):
    """List the runs below a folder: state, training, and best success in closed loop."""

    folder: Positional[Path]
    """Folder that is searched, with all folders in it."""
    json: Path | None = field(default=None, kw_only=True)
    """File for the list; - prints it, and nothing else, to the standard output."""
