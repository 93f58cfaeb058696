"""Run: the paths of a trained run."""

from dataclasses import dataclass
from pathlib import Path

from diffpolicy.checkpoint import policy_path

from ..config import SweepConfig
from ..data_config import OfflineConfig
from ..delays_config import DelaysConfig
from ..world_config import WorldConfig

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


def run_of(config: WorldConfig) -> Path:
    """The run of a configuration without --policy, whose rules require one of the two."""
    assert config.run is not None
    return config.run


def results_folder(config: SweepConfig | DelaysConfig | OfflineConfig, command: str) -> Path:
    """--out, else a folder named after the command: in the run, or without one in the current."""
    folder = Run(config.run).folder if config.run else Path()
    return config.out or folder / command
