"""Episodes in worker processes: an environment that ends its process, or hangs, ends no run.

An episode depends on its seed alone, so it is the same to the bit in every process; each process
computes with one torch thread.
"""

import os
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import wait
from typing import Any

import torch

from diffpolicy.control.chunk_source import ChunkSource, on_one_engine
from diffpolicy.control.episode import Episode, RolloutOptions, failed_episode
from diffpolicy.control.latency import LatencyProfile
from diffpolicy.control.rollout import Advance, collect, episodes, stream
from diffpolicy.control.wall import episodes_on_wall_clock
from diffpolicy.control.worker import Done, Worker, WorkerFailure
from diffpolicy.errors import DiffpolicyError
from diffpolicy.terminal.progress import EpisodeBar

FEWEST_EPISODES = 50  # for a worker: starting one takes seconds
POLL_EVERY_S = 0.2

Job = tuple[Any, ...]  # (torch threads, function, arguments)


class Workers:
    """count processes, started when first needed, stopped by `close`."""

    def __init__(self, count: int):
        self.count = count
        self._crew: dict[int, Worker] = {}
        weakref.finalize(self, _stop, self._crew)

    @property
    def pids(self) -> list[int]:
        """Processes that run now."""
        return [worker.process.pid for worker in self._crew.values() if worker.process.pid]

    def run_episodes(
        self,
        source: ChunkSource,
        make_env: Callable[[], Any],
        seeds: Sequence[int],
        profile: LatencyProfile,
        options: RolloutOptions,
        description: str = "episodes",
    ) -> list[Episode]:
        """The result of rollout.run_episodes; source and make_env must be picklable.

        A worker that dies, or whose environment takes longer than options.step_timeout, is one
        DiffpolicyError or, by the options, one failed episode.
        """
        advances = self._in_ticks(source, make_env, seeds, profile, options)
        return collect(advances, seeds, options, description)

    def stream_episodes(
        self,
        source: ChunkSource,
        make_env: Callable[[], Any],
        seeds: Sequence[int],
        profile: LatencyProfile,
        options: RolloutOptions,
        keep: Callable[[Episode], object],
        bar: EpisodeBar,
    ) -> None:
        """The episodes of `run_episodes`, each given to `keep` as it ends; none is held."""
        stream(self._in_ticks(source, make_env, seeds, profile, options), bar, keep)

    def stream_on_wall_clock(
        self,
        source: ChunkSource,
        make_env: Callable[[], Any],
        seeds: Sequence[int],
        options: RolloutOptions,
        keep: Callable[[Episode], object],
        bar: EpisodeBar,
    ) -> None:
        """The episodes of wall.run_on_wall_clock, in one process with this one's torch threads.

        Each is given to `keep` as it ends.
        """
        fixed, threads = on_one_engine(source), torch.get_num_threads()

        def job(share: Sequence[int]) -> Job:
            return threads, episodes_on_wall_clock, (fixed, make_env, share, options)

        stream(self._advances(job, seeds, 1, options), bar, keep)

    def call(self, function: Callable[..., Any], *arguments: Any, timeout_s: float | None) -> Any:
        """function(*arguments, at) in one process."""
        self._begin(0, (1, function, arguments))
        _, message = next(self._messages({0: None}, timeout_s))
        if isinstance(message, WorkerFailure):
            raise DiffpolicyError(message.text)
        return message.value

    def close(self) -> None:
        """Stop the processes at once."""
        _stop(self._crew)

    def _begin(self, n: int, job: Job) -> None:
        if n not in self._crew:
            self._crew[n] = Worker()
        self._crew[n].begin(job)

    def _in_ticks(
        self,
        source: ChunkSource,
        make_env: Callable[[], Any],
        seeds: Sequence[int],
        profile: LatencyProfile,
        options: RolloutOptions,
    ) -> Iterator[Advance]:
        """Episodes on the clock that counts in control ticks."""
        with one_thread():
            fixed = on_one_engine(source, options.batch)

        def job(share: Sequence[int]) -> Job:
            return 1, episodes, (fixed, make_env, share, profile, options)

        return self._advances(job, seeds, self.count, options)

    def _advances(
        self,
        job: Callable[[Sequence[int]], Job],
        seeds: Sequence[int],
        count: int,
        options: RolloutOptions,
    ) -> Iterator[Advance]:
        """Episodes as they end in the workers, each with every count-th seed."""
        shares = {n: list(seeds[n::count]) for n in range(min(count, len(seeds)))}
        try:
            for n, share in shares.items():
                self._begin(n, job(share))
            for n, message in self._messages(shares, options.step_timeout):
                failed = isinstance(message, WorkerFailure)
                if failed and shares[n]:
                    message = Advance(options.limit or 0, [_forgiven(message, shares[n], options)])
                if isinstance(message, Advance):
                    ended = {episode.seed for episode in message.episodes}
                    shares[n] = [seed for seed in shares[n] if seed not in ended]
                    yield message
                if failed and shares[n]:
                    self._begin(n, job(shares[n]))
                elif failed or isinstance(message, Done):
                    del shares[n]
        except BaseException:
            self.close()
            raise

    def _messages(
        self, running: dict[int, Any], timeout_s: float | None
    ) -> Iterator[tuple[int, Any]]:
        """(worker, message) as they come, until the caller has emptied `running`."""
        while running:
            crew = {n: self._crew[n] for n in running}
            # A child of the environment may hold the connection open: the sentinel counts too.
            ends: dict[Any, int] = {}
            for n, worker in crew.items():
                ends |= dict.fromkeys((worker.connection, worker.process.sentinel), n)
            for ready in wait(list(ends), POLL_EVERY_S if timeout_s else None):
                n = ends[ready]
                if n not in running or self._crew.get(n) is not crew[n]:
                    continue
                message = crew[n].receive(ready)
                if isinstance(message, Exception):
                    raise message
                if isinstance(message, WorkerFailure):
                    del self._crew[n]
                if message is not None:
                    yield n, message
            for n in [n for n in running if self._crew[n].hangs(timeout_s)]:
                yield n, self._crew.pop(n).failure(timeout_s)


def _forgiven(failure: WorkerFailure, share: Sequence[int], options: RolloutOptions) -> Episode:
    """The failed episode in place of a worker, if the options allow it; else the error."""
    if options.on_env_error == "stop" or not failure.by_environment or failure.seed not in share:
        under_way = ", ".join(map(str, share[: options.envs]))
        raise DiffpolicyError(f"{failure.text}; its unfinished episodes: seeds {under_way}")
    return failed_episode(failure.seed, failure.tick, failure.text)


def _stop(crew: dict[int, Worker]) -> None:
    for worker in crew.values():
        worker.connection.close()  # idle ones end together
    while crew:
        crew.popitem()[1].stop()


def worker_count(wanted: int | None, episodes: int, device: torch.device) -> int:
    """`wanted` if given; else one worker per core, fewer for few episodes, one on CUDA."""
    if wanted is not None:
        return min(wanted, episodes)
    if device.type == "cuda":
        return 1
    return max(1, min(cores(), episodes // FEWEST_EPISODES))


def cores() -> int:
    """Cores that this process may use, if the system tells; else all."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute on one torch thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
