"""Episodes on all cores: worker processes, each with its own environments and its own policy.

An episode depends on its seed alone, so that it is the same to the bit in whatever process it runs;
every process, this one included, computes with one torch thread meanwhile.
"""

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context, parent_process
from typing import Any

import torch
from tqdm import tqdm

from diffpolicy.errors import DiffpolicyError
from diffpolicy.latency import LatencyProfile
from diffpolicy.policy import Policy
from diffpolicy.rollout import Episode, RolloutOptions, run_episodes

FEWEST_EPISODES = 50  # for a worker: starting one takes seconds


class Workers:
    """count processes, started when they are first needed, stopped by `close`."""

    def __init__(self, count: int):
        self.count = count
        self._pool: ProcessPoolExecutor | None = None

    def run_episodes(
        self,
        policy: Policy,
        make_env: Callable[[], Any],
        seeds: Sequence[int],
        profile: LatencyProfile,
        options: RolloutOptions,
        description: str = "episodes",
    ) -> list[Episode]:
        """What rollout.run_episodes gives, in the order of the seeds.

        make_env must be picklable. DiffpolicyError where a worker dies.
        """
        with one_thread():
            engine = policy.engine(options.batch).name  # chosen once, not by each worker
            if self.count == 1:
                return run_episodes(policy, make_env, seeds, profile, options, description)
        fixed = policy.with_engine(engine)
        shares = {f"worker {n + 1}": seeds[n :: self.count] for n in range(self.count)}
        try:
            futures = [
                self._started().submit(
                    _share, fixed, make_env, share, profile, options, f"{description}, {name}"
                )
                for name, share in shares.items()
            ]
            found = {episode.seed: episode for future in futures for episode in future.result()}
        except BrokenProcessPool as error:
            self.close()
            raise DiffpolicyError(
                "a worker process died, perhaps for want of memory (try fewer --workers or --envs) "
                'or because a script that calls this lacks `if __name__ == "__main__":`'
            ) from error
        return [found[seed] for seed in seeds]

    def close(self) -> None:
        """Stops the processes, at once; one of them may have died with the bars' lock."""
        if self._pool:
            for process in list((self._pool._processes or {}).values()):
                process.terminate()
            self._pool.shutdown(cancel_futures=True)
            self._pool = None
            tqdm.set_lock(threading.RLock())

    def _started(self) -> ProcessPoolExecutor:
        if self._pool is None:
            context = get_context("spawn")  # forks of a process with threads may hang
            tqdm.set_lock(context.RLock())  # one terminal for all their bars
            self._pool = ProcessPoolExecutor(self.count, context, _begin, (tqdm.get_lock(),))
        return self._pool


def worker_count(wanted: int | None, episodes: int, device: torch.device) -> int:
    """As wanted; else one for each core, if there are enough episodes, and one beside a GPU."""
    if wanted is not None:
        return min(wanted, episodes)
    if device.type == "cuda":
        return 1
    return max(1, min(cores(), episodes // FEWEST_EPISODES))


def cores() -> int:
    """Those that this process may use, where the system says; else all."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextmanager
def one_thread() -> Iterator[None]:
    """torch computes on one thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _begin(lock: Any) -> None:
    """A worker's own beginning: Ctrl-C is the parent's to answer, whose end is the worker's too."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_follow_parent, daemon=True).start()
    tqdm.set_lock(lock)
    torch.set_num_threads(1)


def _follow_parent() -> None:
    parent = parent_process()
    if parent:
        parent.join()
        os._exit(1)


_kept: list[Policy] = []  # the worker's last one, with its engines


def _share(policy: Policy, *arguments: Any) -> list[Episode]:
    if not _kept or _kept[0].name != policy.name:
        _kept[:] = [policy]
    return run_episodes(_kept[0], *arguments)
