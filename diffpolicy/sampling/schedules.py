"""Timesteps optimised for a step budget: a teacher's trajectories, shortest paths, and descent.

A schedule is a list of falling timesteps, from the first one down to the last, whose step ends at
CLEAN. After GITS (Chen et al., arXiv 2405.11326) and Watson et al. (arXiv 2106.03802), but the cost
of a step is a distance of predicted clean samples, because a distance of noisy ones misleads at few
steps. Shapes: B samples, L levels.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from diffpolicy.sampling.steps import Row, move, read

KEPT = 256  # beginnings of schedules whose samples are kept

Schedule = tuple[int, ...]
Predict = Callable[[Tensor, int], Tensor]
"""(x [B, …], timestep) -> the network's output y [B, …]."""
Table = Callable[[Schedule], Sequence[Row]]
"""The rows of a schedule, without injected noise."""


class Teacher(NamedTuple):
    """A chain over many timesteps [L]: its samples, outputs and x̂0, each [L, B, …]; its end y."""

    times: Schedule
    x: Tensor
    output: Tensor
    x0: Tensor
    y: Tensor

    def every(self, stride: int) -> "Teacher":
        """Each stride-th level, from the first one on."""
        at = slice(None, None, stride)
        return Teacher(self.times[at], self.x[at], self.output[at], self.x0[at], self.y)


def teach(predict: Predict, noise: Tensor, times: Schedule, table: Table) -> Teacher:
    """The chain of a schedule from noise [B, …], all of it kept."""
    x, found = noise, []
    for row in table(times):
        y = predict(x, row.t)
        x0 = read(x, y, row)
        found.append((x, y, x0))
        x = move(x, y, x0, row, found[-2][2] if row.previous else None)
    xs, ys, x0s = (torch.stack(part) for part in zip(*found, strict=True))
    return Teacher(times, xs, ys, x0s, x)


def endings(predict: Predict, noise: Tensor, table: Table) -> Callable[[Schedule], Tensor]:
    """The last samples [B, …] of schedules from noise [B, …].

    Schedules that begin alike share the evaluations of their common beginning.
    """

    @lru_cache(KEPT)
    def at_last(times: Schedule) -> tuple[Tensor, Tensor, Tensor]:
        """x, output and x̂0 at the last of the timesteps."""
        x = move(*at_last(times[:-1]), table(times[-2:])[0]) if times[1:] else noise
        y = predict(x, times[-1])
        return x, y, read(x, y, table(times[-1:])[0])

    return lambda times: move(*at_last(times), table(times[-1:])[0])


def rms(difference: Tensor) -> float:
    """Root mean square of all numbers."""
    return float(difference.double().square().mean().sqrt())


def cost_rows(predict: Predict, teacher: Teacher, table: Table) -> Iterator[np.ndarray]:
    """The rows [L + 1] of `cost_matrix` one by one, that of the first level first."""
    for i, t in enumerate(teacher.times):
        costs = np.full(len(teacher.times) + 1, np.inf)
        for j, s in enumerate(teacher.times[i + 1 :], i + 1):
            x = move(teacher.x[i], teacher.output[i], teacher.x0[i], table((t, s))[0])
            x0 = read(x, predict(x, s), table((s,))[0])
            costs[j] = rms(x0 - teacher.x0[j]) ** 2
        costs[-1] = rms(teacher.x0[i] - teacher.y) ** 2
        yield costs


def cost_matrix(predict: Predict, teacher: Teacher, table: Table) -> np.ndarray:
    """Costs [L, L + 1] of one step from level i to level j of a teacher; the last column is CLEAN.

    cost = mean ‖x̂0(step(x_t; t → s), s) - x̂0_s‖², and mean ‖x̂0_t - y‖² to CLEAN; infinite for
    j ≤ i. Evaluates the network L (L - 1) / 2 times.
    """
    return np.stack(list(cost_rows(predict, teacher, table)))


def shortest(cost: np.ndarray, steps: int) -> list[int]:
    """The levels of the cheapest path of `steps` steps from level 0 to CLEAN, by cost [L, L + 1].

    Dynamic programming: V_1(i) = cost[i, CLEAN], V_k(i) = min_j cost[i, j] + V_{k-1}(j). Raises
    ValueError if there are fewer levels than steps.
    """
    if not 1 <= steps <= len(cost):
        raise ValueError(f"a path over {len(cost)} levels has 1 to {len(cost)} steps; got {steps}")
    value, choices = cost[:, -1], []
    for _ in range(steps - 1):
        totals = cost[:, :-1] + value
        choices.append(totals.argmin(1))
        value = totals.min(1)
    path = [0]
    for choice in reversed(choices):
        path.append(int(choice[path[-1]]))
    return path


def descend(
    error: Callable[[Schedule], float], times: Schedule, starts: range, tried: dict | None = None
) -> Schedule:
    """Move one timestep at a time over its free interval to the least error, until nothing falls.

    The first timestep moves within `starts`, the others between their neighbours. tried: errors
    known before, to which new ones are added.
    """
    tried = {} if tried is None else tried

    def known(schedule: Schedule) -> float:
        if schedule not in tried:
            tried[schedule] = error(schedule)
        return tried[schedule]

    best = None
    while best != times:
        best = times
        for k in range(len(times)):
            times = min([times, *_moved(times, k, starts)], key=known)
    return times


def _moved(times: Schedule, k: int, starts: range) -> list[Schedule]:
    """The schedules that differ in timestep k alone."""
    below = times[k + 1] if k + 1 < len(times) else -1
    free = range(below + 1, times[k - 1]) if k else starts
    return [(*times[:k], t, *times[k + 1 :]) for t in free if t > below]
