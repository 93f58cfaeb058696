"""A worker process: it runs one job after the other and sends what each yields.

Linux forks workers from a server that has loaded torch, so that only the first one costs seconds.
A worker holds one chunk source: one that it has is not sent again, and it frees its own before it
receives another.
"""

import ctypes
import gc
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection
from multiprocessing.reduction import ForkingPickler
from typing import Any

import torch

from diffpolicy.control.chunk_source import Engined
from diffpolicy.control.rollout import Advance
from diffpolicy.environment.monitored import CALLS, place
from diffpolicy.errors import DiffpolicyError

REPORT_EVERY_S, STOP_TIMEOUT_S = 0.2, 5.0
FROM_OUTSIDE = {-signal.SIGKILL, -signal.SIGTERM}  # not sent by the environment


@dataclass(frozen=True)
class Done:
    """End of a job, and the value that its function returned."""

    value: Any


@dataclass(frozen=True)
class WorkerFailure:
    """A worker that died, or was stopped because it hung, with its last environment call."""

    text: str
    seed: int
    tick: int
    by_environment: bool  # while an episode ran: the next one can go on


@dataclass(frozen=True)
class Held:
    """Argument of a job in place of the chunk source that the worker holds."""


class Worker:
    """A process that runs jobs; each sends what its function yields, then Done."""

    def __init__(self):
        context = get_context("forkserver" if sys.platform == "linux" else "spawn")
        context.set_forkserver_preload([__name__])
        self.at = context.RawArray("q", 4)  # see monitored.py
        self.connection, theirs = context.Pipe()
        self.source: str | None = None  # name of the one that the process holds
        work = context.Process(target=_serve, args=(theirs, self.at, dict(os.environ)))
        self.process, self.idle = work, True
        work.start()
        theirs.close()

    def begin(self, job: tuple[Any, ...]) -> None:
        """Send a job, (torch threads, function, arguments); before it, True to keep the source."""
        threads, function, arguments = job
        source = next((a.name for a in arguments if isinstance(a, Engined)), self.source)
        keeps = source == self.source
        sent = [Held() if keeps and isinstance(a, Engined) else a for a in arguments]
        message = ForkingPickler.dumps((threads, function, sent))
        self.source, self.idle = source, False
        with suppress(OSError):  # it has died, which its connection tells the listener
            self.connection.send(keeps)
            self.connection.send_bytes(message)
        if not keeps:
            del message
            _return_memory()

    def receive(self, ready: Any) -> Any:
        """The next message of a worker whose connection or sentinel is ready.

        None if the process has ended but messages are left to read; WorkerFailure after the last.
        """
        if ready is not self.connection:
            return None if self.connection.poll() else self.failure()
        try:
            message = self.connection.recv()
        except (EOFError, OSError):
            return self.failure()
        self.idle = self.idle or isinstance(message, Exception | Done)
        if isinstance(message, Exception):
            self.source = None  # it may not have arrived
        return message

    def hangs(self, timeout_s: float | None) -> bool:
        """True if a call takes longer than this; the constructor, which imports, may."""
        call, _, _, since = self.at
        if not timeout_s or not since or CALLS[call] == "constructor":
            return False
        return time.monotonic_ns() - since > 1e9 * timeout_s

    def failure(self, timeout_s: float | None = None) -> WorkerFailure:
        """Stop a worker that has died or, with a timeout, hangs; describe its end."""
        call, seed, tick, since = self.at
        self.stop()
        where, code = place(seed, tick), self.process.exitcode or 0
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
            return WorkerFailure(text, seed, tick, False)
        return WorkerFailure(text, seed, tick, CALLS[call] != "constructor")

    def stop(self) -> None:
        """End the process at once; an idle one may clean up first."""
        self.connection.close()
        if self.idle:
            self.process.join(STOP_TIMEOUT_S)
        self.process.kill()
        self.process.join()


def _serve(connection: Connection, at: Any, environ: dict[str, str]) -> None:
    """Run jobs until the connection closes. Ignore SIGINT (the parent handles it); exit with it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ.clear()
    os.environ.update(environ)
    threading.Thread(target=_follow_parent, daemon=True).start()
    while True:
        try:
            keeps = connection.recv()
            if _source and not keeps:
                _source.clear()
                gc.collect()  # a policy may refer to itself
            _run(connection, connection.recv(), at)
        except (EOFError, BrokenPipeError, ConnectionResetError):
            return
        except DiffpolicyError as error:
            connection.send(error)
        except Exception:
            connection.send(RuntimeError(traceback.format_exc()))


def _run(connection: Connection, job: tuple[Any, ...], at: Any) -> None:
    threads, function, arguments = job
    torch.set_num_threads(threads)
    result = function(*map(_held, arguments), at)
    if isinstance(result, Iterator):
        for message in _throttled(result):
            connection.send(message)
        result = None
    connection.send(Done(result))


def _follow_parent() -> None:
    parent = parent_process()
    if parent:
        parent.join()
        os._exit(1)


def _throttled(advances: Iterator[Advance]) -> Iterator[Advance]:
    """Send episodes at once, ticks only now and then."""
    ticks, last = 0, 0.0
    for advance in advances:
        ticks += advance.ticks
        if advance.episodes or time.monotonic() - last > REPORT_EVERY_S:
            yield Advance(ticks, advance.episodes)
            ticks, last = 0, time.monotonic()


_source: list[Engined] = []  # the one that this process holds, with its engines


def _held(argument: Any) -> Any:
    """The argument; in place of `Held`, the source. A source is held for the next jobs."""
    if isinstance(argument, Engined):
        _source[:] = [argument]
        _return_memory()
    return _source[0] if isinstance(argument, Held) else argument


def _return_memory() -> None:
    """Return freed memory to the system, where the C library can (glibc).

    A source and its message take many megabytes; without this, gaps among them stay.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim:
        trim(0)
