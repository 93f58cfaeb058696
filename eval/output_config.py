"""Options of what a command prints."""

from dataclasses import dataclass

from diffpolicy.checked import Checked


@dataclass(frozen=True)
class OutputConfig(Checked):
    """Output on the terminal."""

    verbose: bool = False
    """Print also the reason for the choice of each engine."""
