"""Configuration of `diffpolicy delays`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from diffpolicy.checked import NOT_EMPTY
from diffpolicy.errors import DiffpolicyError

from .config import DELAY, SOURCES, Combinations, Latencies, TaskConfig


@dataclass(frozen=True)
class DelaysConfig(Latencies, Combinations, TaskConfig):
    """Evaluate budgets and strategies for late chunks where every chunk is late.

    Delays are constant; at random; and, if asked for, those of measured or declared latencies.
    """

    ddim_steps: Annotated[tuple[int, ...], NOT_EMPTY] = (10,)
    """Step budgets."""
    ticks: Annotated[tuple[int, ...], DELAY] = (0, 1, 2, 3, 4)
    """Constant delays, in control ticks."""
    random_ticks: Annotated[tuple[int, int] | None, DELAY] = None
    """Also delays drawn uniformly from LOW to HIGH control ticks, anew for each chunk."""
    measured: bool = False
    """Also delays by latencies measured here. They are declared, or replayed, with
    --ms-per-step, --latency-ms, --latency-ticks or --latency-from."""
    out: Path | None = None
    """Folder for delays.json, delays.png and delays.html; by default delays in the run folder, with
    --policy or --runs in the current one."""

    def __post_init__(self):
        super().__post_init__()
        if not (self.ticks or self.random_ticks or self.with_latencies):
            raise DiffpolicyError("--ticks needs at least one value, or another pattern of delays")
        if self.random_ticks and self.random_ticks[0] > self.random_ticks[1]:
            low, high = self.random_ticks
            raise DiffpolicyError(f"--random-ticks LOW HIGH must increase; got {low} {high}")
        if self.measured and any(getattr(self, source) is not None for source in SOURCES):
            raise DiffpolicyError("give --measured or another source of latencies, not both")

    @property
    def with_latencies(self) -> bool:
        """True if measured or declared latencies are among the patterns."""
        return self.measured or any(getattr(self, source) is not None for source in SOURCES)
