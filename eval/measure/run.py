"""Run: the paths of a trained run."""

from dataclasses import dataclass
from pathlib import Path

from diffpolicy.checkpoint import policy_path

REGRESSION = "regression"


@dataclass(frozen=True)
class Run:
    """A trained run; path: its folder, or the policy file in it."""

    path: Path

    @property
    def folder(self) -> Path:
        """Its folder."""
        return policy_path(self.path).parent

    @property
    def regression(self) -> Path:
        """Run of the regression policy with the same data and network."""
        return self.folder / REGRESSION

    @property
    def has_regression(self) -> bool:
        """True if the regression policy is trained."""
        return policy_path(self.regression).exists()

    def results(self, command: str, out: Path | None) -> Path:
        """Folder for the results of a command: `out`, else one named after the command."""
        return out or self.folder / command
