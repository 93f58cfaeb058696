"""Options of `diffpolicy play`."""

from dataclasses import dataclass
from typing import Annotated

from diffpolicy.checked import NOT_EMPTY

from .config import DELAY
from .world_config import WorldConfig


@dataclass(frozen=True)
class PlayConfig(WorldConfig):
    """Watch a policy run in a window, and change its number of steps and its delay by keys.

    + and - change the steps, D and shift-D the delay, SPACE pauses, R restarts, Q quits.
    """

    ddim_steps: Annotated[tuple[int, ...], NOT_EMPTY] = (1, 2, 4, 8, 16)
    """Step budgets to choose from; the smallest one is the first."""
    delay: Annotated[int, DELAY] = 0
    """First delay of every chunk, in control ticks."""
    sampler: str = "ddim"
    """Sampling method: ddim, dpm++, unipc, heun, or midpoint for flow matching."""
    grid: str | None = None
    """Named timestep grid; by default that of the run."""
    late: str = "drop"
    """Strategy for late chunks (see `diffpolicy eval --help`)."""
