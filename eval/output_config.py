"""Options of what a command prints."""

from dataclasses import dataclass

from diffpolicy.checked import Checked
from diffpolicy.errors import DiffpolicyError


@dataclass(frozen=True)
class OutputConfig(Checked):
    """Output on the terminal."""

    quiet: bool = False
    """Print only results and warnings, no progress."""
    verbose: bool = False
    """Print also the reason for the choice of each engine."""

    def __post_init__(self):
        super().__post_init__()
        if self.quiet and self.verbose:
            raise DiffpolicyError("give --quiet or --verbose, not both")
