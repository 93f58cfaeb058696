"""Search of timesteps for a policy, on observations of held-out demonstrations."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch

from diffpolicy.config import Sampling
from diffpolicy.data.windows import make_windows
from diffpolicy.policy import Policy
from diffpolicy.sampling.chain import make_chain
from diffpolicy.sampling.grids import quadratic, trailing
from diffpolicy.sampling.schedules import (
    Predict,
    Schedule,
    Table,
    cost_rows,
    descend,
    endings,
    rms,
    shortest,
    teach,
)
from diffpolicy.terminal.progress import progress_bar

from .held_out import HeldOut

LEVELS = 50  # of the teacher that the search of a path visits, or as many as the largest budget
BEST = 3  # candidates of each budget beside the named grids
SEARCH_STREAM = 0x5C4  # apart from the streams of closed loop


@dataclass(frozen=True)
class Proposal:
    """Timesteps of a budget, their origin, and the rms distance of their chunks from a teacher."""

    times: Schedule
    origin: str
    error: float

    @property
    def steps(self) -> int:
        """Number of steps."""
        return len(self.times)

    @property
    def sampling(self) -> Sampling:
        """The sampling of a policy with these timesteps."""
        return Sampling(grid=",".join(map(str, self.times)))


class Search:
    """The teacher of a policy (DDIM over all T timesteps), and the terminal error of schedules.

    most: the largest number of steps of a schedule, at most T / 2.
    """

    def __init__(self, policy: Policy, data: HeldOut, windows: int, seed: int, most: int):
        self.timesteps = policy.specification.model.train_timesteps
        self.predict, self.noise = _given(policy, data, windows, seed)
        self.table = table_of(policy)
        chain = tuple(range(self.timesteps - 1, -1, -1))
        with torch.inference_mode():
            self.teacher = teach(self.predict, self.noise, chain, self.table)
            coarse = self.teacher.every(max(1, self.timesteps // max(LEVELS, most)))
            rows = cost_rows(self.predict, coarse, self.table)
            costs = progress_bar(rows, total=len(coarse.times), desc="costs of steps", unit="level")
            self.times, self.cost = coarse.times, np.stack(list(costs))
        self.end = endings(self.predict, self.noise, self.table)
        self.tried: dict[Schedule, float] = {}

    @torch.inference_mode()
    def error(self, times: Schedule) -> float:
        """The rms distance of the chunks of a schedule from those of the teacher."""
        return rms(self.end(times) - self.teacher.y)

    def proposals(self, steps: int) -> list[Proposal]:
        """Named grids, trailing last, then the best others by their terminal error."""
        named, searched = dict(self.named(steps)), dict(self.searched(steps))
        for times in (*named, *searched):
            if times not in self.tried:
                self.tried[times] = self.error(times)
        others = [times for times in searched if times not in named]
        best = sorted(others, key=self.tried.__getitem__)[:BEST]
        origins = searched | named
        return [Proposal(times, origins[times], self.tried[times]) for times in (*named, *best)]

    def named(self, steps: int) -> Iterator[tuple[Schedule, str]]:
        """Grids that need no search; "90,20" (arXiv 2510.21991) for two steps of 100."""
        T = self.timesteps
        two = (9 * T // 10, T // 5)
        if steps == 2:
            yield two, ",".join(map(str, two))
        yield tuple(quadratic(T, steps)), "quadratic"
        yield tuple(trailing(T, steps)), "trailing"

    def searched(self, steps: int) -> Iterator[tuple[Schedule, str]]:
        """The shortest path, and descents from it and from trailing."""
        path = tuple(self.times[i] for i in shortest(self.cost, steps))
        last = self.timesteps - 1
        fixed, free = range(last, last + 1), range(4 * self.timesteps // 5, last + 1)
        usual = tuple(trailing(self.timesteps, steps))
        with progress_bar(desc=f"descent, {steps} steps", unit="schedule") as bar:

            def error(times: Schedule) -> float:
                bar.update(1)
                return self.error(times)

            yield path, "path"
            yield descend(error, path, fixed, self.tried), "descent"
            yield descend(error, path, free, self.tried), "descent, free start"
            yield descend(error, usual, free, self.tried), "descent from trailing"


def table_of(policy: Policy) -> Table:
    """The rows of a schedule with the reading and the clip of a run."""
    spec = policy.specification

    @cache
    def table(times: Schedule) -> list:
        sampling = Sampling(grid=",".join(map(str, times)))
        return make_chain(spec.model, spec.clip_range, sampling, spec.grid, spec.rederive).rows

    return table


def _given(policy: Policy, data: HeldOut, count: int, seed: int) -> tuple[Predict, torch.Tensor]:
    """The network at observations of held-out windows [W], and fixed noise [W, T_p, D_a]."""
    spec, rng = policy.specification, np.random.default_rng([seed, SEARCH_STREAM])
    parts = data.observations, data.actions, data.ends, spec.horizons, data.episodes
    windows = make_windows(*parts)
    index = np.sort(rng.permutation(len(windows.newest))[:count])
    observations, _, _ = windows.gather(index)
    shape = len(index), spec.horizons.prediction, spec.task.action_dim
    noise = torch.from_numpy(rng.standard_normal(shape, np.float32)).to(policy.device)
    with torch.inference_mode():
        encoded = policy.encode(observations).to(policy.device)
        denoiser = policy.job().denoiser
        film = denoiser.observation_film(encoded)
        times = torch.arange(spec.model.train_timesteps, device=policy.device)
        films = denoiser.time_film(times)
    return lambda x, t: denoiser.denoise(x, film + films[t]), noise
