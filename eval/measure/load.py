"""Load of other processes during a measurement, from the counters of the system.

Linux only: elsewhere, and if the counters do not advance, the load is unknown.
"""

import os
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

WINDOW_S = 0.5  # the kernel counts in ticks of 10 ms
OTHERS, IDLE, PREEMPTIONS = 0.1, 0.5, 20.0  # cores, cores, a second


@dataclass(frozen=True)
class Counters:
    """Cumulative seconds on the cores that this process may use."""

    cores: int
    time_s: float
    busy_s: float  # of all processes, and stolen by a hypervisor
    own_s: float  # of this process and its own helpers
    preemptions: int  # of this process


@dataclass(frozen=True)
class Load:
    """Means over a window: cores used by others, idle cores, preemptions a second."""

    others: float
    idle: float
    preemptions: float

    @property
    def disturbs(self) -> bool:
        """True if others computed, and no core was idle or they preempted this process."""
        contended = self.idle < IDLE or self.preemptions > PREEMPTIONS
        return self.others > OTHERS and contended


def load_between(before: Counters | None, after: Counters | None) -> Load | None:
    """Load of a window; None if unknown."""
    if before is None or after is None or after.time_s <= before.time_s:
        return None
    seconds = after.time_s - before.time_s
    busy, own = after.busy_s - before.busy_s, after.own_s - before.own_s
    preemptions = (after.preemptions - before.preemptions) / seconds
    return Load((busy - own) / seconds, before.cores - busy / seconds, preemptions)


def verdict(loads: Sequence[Load | None]) -> str:
    """The verdict on all windows; the load of some may be unknown."""
    return together([load and ("disturbed" if load.disturbs else "quiet") for load in loads])


def together(verdicts: Sequence[str | None]) -> str:
    """unknown (or None) if any verdict is, else disturbed if any is, else quiet."""
    if {None, "unknown"} & {*verdicts}:
        return "unknown"
    return "disturbed" if "disturbed" in verdicts else "quiet"


def snapshot(ours: Sequence[int] = ()) -> Counters | None:
    """Counters now, or None without /proc; ours: processes that belong to the measurement."""
    try:
        import resource

        cores = os.sched_getaffinity(0)
        busy_s = _busy_s(Path("/proc/stat").read_text(), cores)
        own_s = time.process_time() + sum(map(_cpu_s, ours))
    except (ImportError, AttributeError, OSError, ValueError, IndexError):
        return None
    preemptions = resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw
    return Counters(len(cores), time.perf_counter(), busy_s, own_s, preemptions)


def descendants(of: Sequence[int] = ()) -> list[int]:
    """Processes that these (by default this one) started, and those that they started in turn."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has ended
            parents[int(stat.parent.name)] = int(stat.read_bytes().rpartition(b")")[2].split()[1])
    found, new = set(), {*of} or {os.getpid()}
    while new := {pid for pid, parent in parents.items() if parent in new} - found:
        found |= new
    return sorted(found)


def _busy_s(stat: str, cores: set[int]) -> float:
    """Busy time of these cores, without idle and iowait.

    proc_stat(5): user nice system idle iowait irq softirq steal; guest time is part of user time.
    """
    lines = (line.split() for line in stat.splitlines())
    found = {line[0]: [int(n) for n in line[1:9]] for line in lines if line[0].startswith("cpu")}
    ticks = [found[name] for name in (f"cpu{core}" for core in cores) if name in found]
    if len(ticks) < len(cores) or not any(map(any, ticks)):
        raise ValueError("the counters of these cores are missing or do not advance")
    busy = sum(sum(t) - t[3] - t[4] for t in ticks)
    return busy / os.sysconf("SC_CLK_TCK")


def _cpu_s(pid: int) -> float:
    """User and system time of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@dataclass
class Block:
    """Consecutive calls of one policy and the load during them, None if unknown."""

    samples_ms: list[float]
    load: Load | None = None

    @property
    def total_ms(self) -> float:
        """Time of all calls."""
        return sum(self.samples_ms)

    @property
    def disturbed(self) -> bool:
        """True if the load is known to disturb."""
        return self.load is not None and self.load.disturbs


class Watch:
    """Assign to each block the load of the window in which it ended."""

    def __init__(self, ours: Sequence[int] = ()):
        self.ours = ours
        self.loads: list[Load | None] = []
        self._pending: list[Block] = []
        self._last = self._begin = snapshot(ours)
        self._begin_s = time.perf_counter()

    def add(self, block: Block) -> None:
        """Add a block that just ended."""
        self._pending.append(block)
        if self.long_enough():
            self._judge(self._begin)

    def finish(self) -> None:
        """Judge the remaining blocks; a window that is too short is joined to the last one."""
        if self._pending:
            self._judge(self._begin if self.long_enough() else self._last)

    def sentence(self) -> str:
        """Mean load of other processes, for a warning."""
        cores = [load.others for load in self.loads if load]
        return f"other processes used {sum(cores) / len(cores):.2g} cores on average"

    def long_enough(self) -> bool:
        """True if the window is long enough for the counters."""
        return time.perf_counter() - self._begin_s >= WINDOW_S

    def _judge(self, begin: Counters | None) -> None:
        now = snapshot(self.ours)
        load = load_between(begin, now)
        for block in self._pending:
            block.load = load
        self.loads.append(load)
        self._last, self._begin, self._begin_s = begin, now, time.perf_counter()
        self._pending = []
