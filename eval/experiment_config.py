"""Options of whole experiments: the quickstart and the suite."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from diffpolicy.checked import NOT_EMPTY, Checked, Range
from diffpolicy.config import EPISODES, MINUTES, THREADS, Device

from .config import MILLISECONDS, SECONDS


@dataclass(frozen=True)
class SuiteConfig(Checked):
    """Train and evaluate policies on all tasks with one protocol and write one report."""

    budget: Literal["quick", "full"] = "quick"
    """quick: small, for two CPU cores. full: UNet and 500 episodes, for a GPU."""
    out: Path = Path("suite")
    """Folder to write; a second call continues where the first one stopped."""
    device: Device = "auto"
    """Device to train and evaluate on; auto uses CUDA if it is available."""
    threads: Annotated[int | None, THREADS] = None
    """CPU threads of PyTorch; by default one for each core."""


@dataclass(frozen=True)
class QuickstartConfig(Checked):
    """Record, train, evaluate and report on Balance-v0 in a few minutes."""

    out: Path = Path("quickstart")
    """Folder to write."""
    minutes: Annotated[float, MINUTES] = 2.0
    """Training time in minutes of the diffusion policy, and of the regression policy."""
    demonstrations: Annotated[int, EPISODES] = 200
    """Expert episodes to record."""
    episodes: Annotated[int, EPISODES] = 100
    """Evaluation episodes for each budget and clock."""
    ddim_steps: Annotated[tuple[int, ...], Range(1, 100), NOT_EMPTY] = (1, 2, 4, 8, 16, 32, 100)
    """Step budgets."""
    ms_per_step: Annotated[float, MILLISECONDS] = 2.0
    """Declared latency of each denoising step of the slower robot, in milliseconds."""
    margin: Annotated[float, Range(1e-6, 1e6)] = 0.1
    """Margin of non-inferiority: loss of success that is still acceptable. A smaller margin needs
    more than 100 episodes."""
    latency_seconds: Annotated[float, SECONDS] = 5.0
    """Longest time in seconds to measure the latency of each budget."""
    seed: Annotated[int, Range(0, 2**61)] = 0
    """Seed of demonstrations and training; evaluation adds 100,000."""
    threads: Annotated[int | None, THREADS] = None
    """CPU threads of PyTorch; by default one for each core."""
