"""Load by other processes while latencies are measured, read from the system's own counters.

Linux only: elsewhere, and where the counters stand still, the load is unknown.
"""

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

WINDOW_S = 0.5  # the kernel counts in ticks of 10 ms
OTHERS, IDLE, PREEMPTIONS = 0.1, 0.5, 20.0  # cores, cores, a second


@dataclass(frozen=True)
class Counters:
    """Seconds since some beginning, on the cores that this process may use."""

    cores: int
    time_s: float
    busy_s: float  # by anybody, and what a hypervisor took
    own_s: float  # by this process, and by those that it asked for
    preemptions: int  # of this process


@dataclass(frozen=True)
class Load:
    """Means over a window: cores that others had, cores that stood idle, preemptions a second."""

    others: float
    idle: float
    preemptions: float

    @property
    def disturbs(self) -> bool:
        """Others computed, and were in the way: no core was left, or they took ours."""
        in_the_way = self.idle < IDLE or self.preemptions > PREEMPTIONS
        return self.others > OTHERS and in_the_way


def load_between(before: Counters | None, after: Counters | None) -> Load | None:
    """The load of a window, None where it cannot be known."""
    if before is None or after is None or after.time_s <= before.time_s:
        return None
    seconds = after.time_s - before.time_s
    busy, own = after.busy_s - before.busy_s, after.own_s - before.own_s
    preemptions = (after.preemptions - before.preemptions) / seconds
    return Load((busy - own) / seconds, before.cores - busy / seconds, preemptions)


def verdict(loads: Sequence[Load | None]) -> str:
    """Of windows: unknown where one is, disturbed where one is, else quiet."""
    if any(load is None for load in loads):
        return "unknown"
    return "disturbed" if any(load.disturbs for load in loads if load) else "quiet"


def snapshot(ours: Sequence[int] = ()) -> Counters | None:
    """The counters now; `ours` are processes whose load is wanted. None where /proc has none."""
    try:
        import resource

        cores = os.sched_getaffinity(0)
        busy_s = _busy_s(Path("/proc/stat").read_text(), cores)
        own_s = time.process_time() + sum(map(_cpu_s, ours))
    except (ImportError, AttributeError, OSError, ValueError, IndexError):
        return None
    preemptions = resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw
    return Counters(len(cores), time.perf_counter(), busy_s, own_s, preemptions)


def _busy_s(stat: str, cores: set[int]) -> float:
    """Time of these cores but for idle and waiting (proc_stat(5): user nice system idle iowait
    irq softirq steal, of which guests' time is a part)."""
    lines = (line.split() for line in stat.splitlines())
    found = {line[0]: [int(n) for n in line[1:9]] for line in lines if line[0].startswith("cpu")}
    ticks = [found[name] for name in (f"cpu{core}" for core in cores) if name in found]
    if len(ticks) < len(cores) or not any(map(any, ticks)):
        raise ValueError("the counters of these cores are missing, or stand still")
    busy = sum(sum(t) - t[3] - t[4] for t in ticks)
    return busy / os.sysconf("SC_CLK_TCK")


def _cpu_s(pid: int) -> float:
    """User and system time of another process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@dataclass
class Block:
    """Consecutive calls of one policy, and the load beside them; None while it is not known."""

    samples_ms: list[float]
    load: Load | None = None

    @property
    def total_ms(self) -> float:
        return sum(self.samples_ms)

    @property
    def disturbed(self) -> bool:
        return self.load is not None and self.load.disturbs


class Watch:
    """Tells blocks the load of the window that they ended in."""

    def __init__(self, ours: Sequence[int] = ()):
        self.ours = ours
        self.loads: list[Load | None] = []
        self._pending: list[Block] = []
        self._last = self._begin = snapshot(ours)
        self._begin_s = time.perf_counter()

    def add(self, block: Block) -> None:
        """One more block, just ended."""
        self._pending.append(block)
        if self.long_enough():
            self._judge(self._begin)

    def finish(self) -> None:
        """Judge what is left; a window too short for the counters borrows from the last one."""
        if self._pending:
            self._judge(self._begin if self.long_enough() else self._last)

    def sentence(self) -> str:
        """Mean load of other processes, as a clause."""
        cores = [load.others for load in self.loads if load]
        return f"other processes had {sum(cores) / len(cores):.2g} cores in the mean"

    def long_enough(self) -> bool:
        """Reached by a window that the counters can judge."""
        return time.perf_counter() - self._begin_s >= WINDOW_S

    def _judge(self, begin: Counters | None) -> None:
        now = snapshot(self.ours)
        load = load_between(begin, now)
        for block in self._pending:
            block.load = load
        self.loads.append(load)
        self._last, self._begin, self._begin_s = begin, now, time.perf_counter()
        self._pending = []
