"""Options of whole experiments: the quickstart, the suite and the optimisation of timesteps."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from diffpolicy.checked import NOT_EMPTY, Checked, Range
from diffpolicy.config import EPISODES, MINUTES, SEED, THREADS, Device, Place
from diffpolicy.errors import DiffpolicyError

from .config import MILLISECONDS, SECONDS, TaskConfig

REPORTED = range(100_000, 200_000)  # seeds of reports, which no choice may see


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
    on: Place = "local"
    """local: this computer. ray: the machines of a Ray cluster, a job for each task; each has a
    machine for itself, because it measures latencies."""


@dataclass(frozen=True)
class QuickstartConfig(Checked):
    """Record, train, evaluate and report on Balance-v0 in a few minutes."""

    out: Path = Path("quickstart")
    """Folder to write."""
    minutes: Annotated[float, MINUTES] = 1.0
    """Training time in minutes of the diffusion policy, and of the regression policy."""
    demonstrations: Annotated[int, EPISODES] = 200
    """Expert episodes to record."""
    episodes: Annotated[int, EPISODES] = 100
    """Evaluation episodes for each budget and clock."""
    ddim_steps: Annotated[tuple[int, ...], Range(1, 100), NOT_EMPTY] = (1, 2, 4, 8, 16, 32)
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


@dataclass(frozen=True)
class OptimiseConfig(TaskConfig):
    """Optimise the timesteps of step budgets, and store those that win in closed loop."""

    ddim_steps: Annotated[tuple[int, ...], Range(1, 100), NOT_EMPTY] = (2, 4, 8)
    """Step budgets."""
    data: Path | None = None
    """Demonstrations; by default those of training. Of these only the held-out episodes count, of
    others all."""
    windows: Annotated[int, Range(1, 16_384)] = 256
    """Observations of demonstrations that the search uses."""
    episodes: Annotated[int, EPISODES] = 200
    """Episodes for each candidate."""
    seed: Annotated[int, SEED] = 900_000
    """Seed of the first episode; the seeds 100000 to 199999 are those of reports, and refused."""

    def __post_init__(self):
        super().__post_init__()
        if self.policy is not None:
            raise DiffpolicyError("--policy has no timesteps to optimise; expected --run RUN")
        last = self.seed + self.episodes - 1
        if self.seed < REPORTED.stop and last >= REPORTED.start:
            raise DiffpolicyError(
                f"--seed {self.seed} with {self.episodes} episodes meets the seeds of reports, "
                f"{REPORTED.start} to {REPORTED.stop - 1}; try --seed 900000"
            )
