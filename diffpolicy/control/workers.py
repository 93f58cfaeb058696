"""Episodes in processes of their own: an environment that ends its process, or hangs, ends no run.

An episode depends on its seed alone, so that it is the same to the bit in whatever process it runs;
each computes with one torch thread. Linux forks them from a server that has loaded torch, so that
only the first one costs seconds.
"""

import os
import signal
import sys
import threading
import time
import traceback
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection, wait
from typing import Any

import torch

from diffpolicy.control.latency import LatencyProfile
from diffpolicy.control.rollout import (
    Advance,
    Episode,
    RolloutOptions,
    collect,
    episodes,
    failed_episode,
)
from diffpolicy.control.wall import episodes_on_wall_clock
from diffpolicy.environment.watched import CALLS, place
from diffpolicy.errors import DiffpolicyError
from diffpolicy.policy import Policy

FEWEST_EPISODES = 50  # for a worker: starting one takes a while
TELL_EVERY_S, LOOK_EVERY_S, LAST_WORDS_S = 0.2, 0.2, 5.0
FROM_OUTSIDE = {-signal.SIGKILL, -signal.SIGTERM}  # not the environment's doing

Keep = Callable[[Episode], None]


@dataclass(frozen=True)
class Done:
    """The end of a job, and what its function returned."""

    value: Any


class Worker:
    """A process that runs one job after the other and sends what each yields, then Done."""

    def __init__(self):
        context = get_context("forkserver" if sys.platform == "linux" else "spawn")
        context.set_forkserver_preload([__name__])
        self.at = context.RawArray("q", 4)  # see watched.py
        self.connection, theirs = context.Pipe()
        work = context.Process(target=_work, args=(theirs, self.at, dict(os.environ)))
        self.process, self.idle = work, True
        work.start()
        theirs.close()

    def begin(self, job: tuple[Any, ...]) -> None:
        """job: (torch threads, function, arguments)."""
        self.idle = False
        with suppress(OSError):  # it has died, as its connection says to whoever listens
            self.connection.send(job)

    def hangs(self, timeout_s: float | None) -> bool:
        """True where a call other than the constructor, which imports, takes longer."""
        call, _, _, since = self.at
        if not timeout_s or not since or CALLS[call] == "constructor":
            return False
        return time.monotonic_ns() - since > 1e9 * timeout_s

    def stop(self) -> None:
        """End the process, at once; an idle one puts its things in order first."""
        self.connection.close()
        if self.idle:
            self.process.join(LAST_WORDS_S)
        self.process.kill()
        self.process.join()


@dataclass(frozen=True)
class Fallen:
    """A worker that died, or was stopped because it hung, and the environment's call it was in."""

    text: str
    seed: int
    tick: int
    by_environment: bool  # while an episode ran: the next one can go on


class Workers:
    """count processes, started when they are first needed, stopped by `close`."""

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
        policy: Policy,
        make_env: Callable[[], Any],
        seeds: Sequence[int],
        profile: LatencyProfile,
        options: RolloutOptions,
        description: str = "episodes",
        keep: Keep = lambda episode: None,
    ) -> list[Episode]:
        """The result of rollout.run_episodes; make_env must be picklable.

        keep gets every episode as it ends. A worker that dies, or whose environment takes longer
        than options.step_timeout, is one DiffpolicyError, or one failed episode.
        """
        with one_thread():
            fixed = policy.with_engine(policy.engine(options.batch).name)  # chosen once

        def job(share: Sequence[int]) -> tuple[Any, ...]:
            return 1, episodes, (fixed, make_env, share, profile, options)

        advances = self._advances(job, seeds, self.count, options)
        return collect(advances, seeds, options, description, keep)

    def run_on_wall_clock(
        self,
        policy: Policy,
        make_env: Callable[[], Any],
        seeds: Sequence[int],
        options: RolloutOptions,
        description: str = "wall",
        keep: Keep = lambda episode: None,
    ) -> list[Episode]:
        """The result of wall.run_on_wall_clock, in one process with this one's torch threads."""
        fixed, threads = policy.with_engine(policy.engine().name), torch.get_num_threads()

        def job(share: Sequence[int]) -> tuple[Any, ...]:
            return threads, episodes_on_wall_clock, (fixed, make_env, share, options)

        advances = self._advances(job, seeds, 1, options)
        return collect(advances, seeds, options, description, keep)

    def call(self, function: Callable[..., Any], *arguments: Any, timeout_s: float | None) -> Any:
        """function(*arguments, at), in one process."""
        self._begin(0, (1, function, arguments))
        _, message = next(self._messages({0: None}, timeout_s))
        if isinstance(message, Fallen):
            raise DiffpolicyError(message.text)
        return message.value

    def close(self) -> None:
        """Stop the processes, at once."""
        _stop(self._crew)

    def _begin(self, n: int, job: tuple[Any, ...]) -> None:
        if n not in self._crew:
            self._crew[n] = Worker()
        self._crew[n].begin(job)

    def _advances(
        self,
        job: Callable[[Sequence[int]], tuple[Any, ...]],
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
                fallen = isinstance(message, Fallen)
                if fallen and shares[n]:
                    message = Advance(options.limit or 0, [_forgiven(message, shares[n], options)])
                if isinstance(message, Advance):
                    ended = {episode.seed for episode in message.episodes}
                    shares[n] = [seed for seed in shares[n] if seed not in ended]
                    yield message
                if fallen and shares[n]:
                    self._begin(n, job(shares[n]))
                elif fallen or isinstance(message, Done):
                    del shares[n]
        except BaseException:
            self.close()
            raise

    def _messages(
        self, running: dict[int, Any], timeout_s: float | None
    ) -> Iterator[tuple[int, Any]]:
        """(worker, message) as they come, until the caller has emptied `running`."""
        while running:
            listening: dict[Any, tuple[int, Worker]] = {}
            for n in running:  # a child of the environment may hold the connection open
                worker = self._crew[n]
                listening |= dict.fromkeys(
                    (worker.connection, worker.process.sentinel), (n, worker)
                )
            for ready in wait(list(listening), LOOK_EVERY_S if timeout_s else None):
                n, worker = listening[ready]
                if self._crew.get(n) is not worker or n not in running:
                    continue
                if ready is not worker.connection and worker.connection.poll():
                    continue  # its last messages come first
                try:
                    ended = ready is not worker.connection
                    message = self._fallen(n, None) if ended else worker.connection.recv()
                except (EOFError, OSError):
                    message = self._fallen(n, None)
                if isinstance(message, Exception | Done):
                    self._crew[n].idle = True
                if isinstance(message, Exception):
                    raise message
                yield n, message
            for n in [n for n in running if self._crew[n].hangs(timeout_s)]:
                yield n, self._fallen(n, timeout_s)

    def _fallen(self, n: int, timeout_s: float | None) -> Fallen:
        """The end of worker n, which hangs, or else has died."""
        worker = self._crew.pop(n)
        call, seed, tick, since = worker.at
        worker.stop()
        where, code = place(seed, tick), worker.process.exitcode or 0
        how = signal.Signals(-code).name if code < 0 else f"exit status {code}"
        if timeout_s:
            text = f"the environment's {CALLS[call]} takes more than {timeout_s:g} s, {where}"
        elif since and code not in FROM_OUTSIDE:
            text = f"the environment's {CALLS[call]} ended its process ({how}), {where}"
        else:
            text = (
                f"a worker process died ({how}), perhaps for want of memory (try fewer --workers "
                "or --envs) or because a script that calls this lacks `if __name__ == "
                '"__main__":`'
            )
            return Fallen(text, seed, tick, False)
        return Fallen(text, seed, tick, CALLS[call] != "constructor")


def _forgiven(fallen: Fallen, share: Sequence[int], options: RolloutOptions) -> Episode:
    """The failed episode in the place of a worker, where options allow; or the error."""
    if options.on_env_error == "stop" or not fallen.by_environment or fallen.seed not in share:
        under_way = ", ".join(map(str, share[: options.envs]))
        raise DiffpolicyError(f"{fallen.text}; its unfinished episodes: seeds {under_way}")
    return failed_episode(fallen.seed, fallen.tick, fallen.text)


def _stop(crew: dict[int, Worker]) -> None:
    for worker in crew.values():
        worker.connection.close()  # the idle ones end together
    while crew:
        crew.popitem()[1].stop()


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


def _work(connection: Connection, at: Any, environ: dict[str, str]) -> None:
    """A worker's life. Ctrl-C is the parent's to answer, whose end is the worker's too."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ.clear()
    os.environ.update(environ)
    threading.Thread(target=_follow_parent, daemon=True).start()
    while True:
        try:
            threads, function, arguments = connection.recv()
            torch.set_num_threads(threads)
            result = function(*map(_cached, arguments), at)
            if isinstance(result, Iterator):
                for message in _told(result):
                    connection.send(message)
                result = None
            connection.send(Done(result))
        except (EOFError, BrokenPipeError, ConnectionResetError):
            return
        except DiffpolicyError as error:
            connection.send(error)
        except Exception:
            connection.send(RuntimeError(traceback.format_exc()))


def _follow_parent() -> None:
    parent = parent_process()
    if parent:
        parent.join()
        os._exit(1)


def _told(advances: Iterator[Advance]) -> Iterator[Advance]:
    """Episodes at once, ticks only now and then."""
    ticks, last = 0, 0.0
    for advance in advances:
        ticks += advance.ticks
        if advance.episodes or time.monotonic() - last > TELL_EVERY_S:
            yield Advance(ticks, advance.episodes)
            ticks, last = 0, time.monotonic()


_kept: list[Policy] = []  # the worker's last one, with its engines


def _cached(argument: Any) -> Any:
    if not isinstance(argument, Policy):
        return argument
    if not _kept or _kept[0].name != argument.name:
        _kept[:] = [argument]
    return _kept[0]
