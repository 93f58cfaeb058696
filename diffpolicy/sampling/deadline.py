"""A chain that keeps a deadline: after each evaluation it goes on over the levels that time allows.

A chain that stops early is worse than one with a grid of as many steps, so a late chain is not
stopped: the rest of its grid is replaced by one of fewer steps.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from diffpolicy.sampling.grids import make_grid
from diffpolicy.sampling.noise import CLEAN
from diffpolicy.sampling.steps import Row, move, read

Clock = Callable[[], float]
"""() -> seconds, as `time.perf_counter`."""
Denoise = Callable[[Tensor, int], Tensor]
"""(x [B, T_p, D_a], timestep t) -> the network's output y [B, T_p, D_a]."""


@dataclass(frozen=True)
class Deadline:
    """End of a chain, in seconds of the clock, and seconds of one evaluation."""

    ends_s: float
    evaluation_s: float
    clock: Clock = time.perf_counter

    def evaluations(self) -> int:
        """k' = ⌊(deadline - τ) / ℓ_1⌋: evaluations that end in time if they begin now."""
        left = (self.ends_s - self.clock()) / self.evaluation_s
        return max(math.floor(left + 1e-9), 0)  # whole numbers in spite of rounding


def levels_after(t: int, rest: Sequence[int], evaluations: int) -> list[int]:
    """Timesteps after t: the rest of the grid, or the trailing grid of fewer evaluations from t."""
    if evaluations >= len(rest):
        return list(rest)
    return [s for s, _ in make_grid(t + 1, evaluations + 1)][1:]


def sample_in_time(
    denoise: Denoise,
    x: Tensor,
    times: Sequence[int],
    row_of: Callable[[int, int], Row],
    deadline: Deadline,
) -> tuple[Tensor, list[int]]:
    """The chunk [B, T_p, D_a] of noise x, and the timesteps of the evaluations made.

    times: the grid, falling. row_of: (t, s) -> the step from t to s, without noise and memory. One
    evaluation is made in any case; the last one leads to CLEAN.
    """
    visited: list[int] = []
    t, rest = times[0], levels_after(times[0], times[1:], max(deadline.evaluations() - 1, 0))
    while t != CLEAN:
        y = denoise(x, t)
        visited.append(t)
        rest = levels_after(t, rest, deadline.evaluations())
        s = rest.pop(0) if rest else CLEAN
        row = row_of(t, s)
        x, t = move(x, y, read(x, y, row), row), s
    return x, visited
