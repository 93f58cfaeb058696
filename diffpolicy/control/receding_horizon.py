"""Receding-horizon control of one episode on a clock that counts in control ticks.

At each tick: (1) deliver a finished chunk; (2) if no inference runs and at least T_a ticks have
passed since the start of the last one, observe and begin one; (3) act. One worker computes, so
chunks start every max(T_a, d) ticks if inference takes d ticks. The first action of a chunk belongs
to the tick of its observation; a strategy of `late` says what a late chunk contributes, and may
sample it by the plan that is known when its inference begins.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from diffpolicy.control.chunk_source import ChunkSource, late_of
from diffpolicy.late.drop import Chunk, DropHead
from diffpolicy.late.plan import Plan

Neutral = Callable[[np.ndarray | None], np.ndarray]

RECENT = 10  # delays (arXiv 2506.07339, the buffer of algorithm 1)


def forecast(passed: Sequence[int], first: int) -> int:
    """Expected delay in ticks: the largest of the last 10 that have passed, `first` before any."""
    return max(passed[-RECENT:], default=first)


@dataclass
class RecedingHorizon:
    """State of the controller.

    delays: simulated ticks of each inference, in order; None on a clock that measures them.
    Without cold_start the first chunk is free: it is computed before tick 0, and control waits.
    first_delay: expected ticks before any delay has passed. past: executed actions in a plan,
    T_o - 1. expected_delay: of the inference that was begun last, as its plan has it; only an
    oracle knows the true `delay`, which is None on a clock that measures it. starved: the ticks
    without an action of a chunk. begun: the ticks at which inferences began.
    """

    action_horizon: int
    delays: Iterator[int] | None
    neutral: Neutral
    cold_start: bool = False
    late: DropHead = field(default_factory=DropHead)
    current: Chunk | None = None
    pending: Chunk | None = None
    started: int | None = None
    computing: bool = False
    free: bool = False
    first_delay: int = 0
    past: int = 0
    delay: int | None = None
    expected_delay: int = 0
    last_action: np.ndarray | None = None
    ages: list[int] = field(default_factory=list)
    delay_ticks: list[int] = field(default_factory=list)
    expected_ticks: list[int] = field(default_factory=list)
    applied: list[np.ndarray] = field(default_factory=list)
    seams: list[int] = field(default_factory=list)
    starved: list[int] = field(default_factory=list)
    begun: list[int] = field(default_factory=list)

    @property
    def starved_ticks(self) -> int:
        """Number of ticks without an action of a chunk."""
        return len(self.starved)

    def deliver(self, tick: int) -> None:
        """Step 1: join a chunk that has arrived to the one in use."""
        new = self.pending
        if new is None or new.arrives > tick:
            return
        if self.current is not None:
            self.seams.append(tick)
        self.current, self.pending = self.late.join(self.current, new), None

    def wants_observation(self, tick: int) -> bool:
        """Step 2: True if an inference is to begin now."""
        idle = self.pending is None and not self.computing
        return idle and (self.started is None or tick - self.started >= self.action_horizon)

    def begin(self, tick: int) -> None:
        """Begin an inference; its `plan` holds before the policy is called.

        Raises RuntimeError for an oracle on a clock that measures delays.
        """
        self.free = self.started is None and not self.cold_start
        self.delay = None if self.delays is None or self.free else next(self.delays)
        self.expected_delay = self._expected()
        self.started, self.computing = tick, True
        self.begun.append(tick)

    def _expected(self) -> int:
        if self.free:
            return 0
        if not self.late.oracle:
            return forecast(self.delay_ticks, self.first_delay)
        if self.delay is None:
            raise RuntimeError("an oracle needs simulated delays")
        return self.delay

    def plan(self, tick: int) -> Plan | None:
        """The plan of the inference that was begun at this tick; None for the free one."""
        if self.free:
            return None
        executed = np.array(self.applied[-self.past :] if self.past else [])
        return Plan(executed, self.remaining(tick), self.expected_delay)

    def finish(self, actions: np.ndarray, tick: int | None = None) -> None:
        """Take the chunk [T_p - T_o + 1, D_a] of the inference that was begun last.

        tick: the tick at which it is done; by default after the simulated delay.
        """
        if self.started is None or not self.computing:
            raise RuntimeError("no inference was begun")
        arrives = self.started + (self.delay or 0) if tick is None else tick
        if not self.free:
            self.delay_ticks.append(arrives - self.started)
            self.expected_ticks.append(self.expected_delay)
        self.computing = False
        self.pending = Chunk(self.started, arrives, actions, first=self.started)
        self.deliver(self.started if tick is None else tick)

    def remaining(self, tick: int) -> np.ndarray:
        """Actions [n, D_a] of the chunk in use from this tick on; [0, 0] before the first chunk."""
        if self.current is None:
            return np.empty((0, 0))
        return self.current.since(tick)

    def planned(self, tick: int) -> tuple[np.ndarray, int] | None:
        """This tick's action in the chunk in use, and its row in it; None if that has run out."""
        if self.current is None or not len(left := self.current.since(tick)):
            return None
        return left[0], tick - self.current.observed

    def act(self, tick: int, corrected: np.ndarray | None = None) -> np.ndarray:
        """Step 3: the action of this tick, or the neutral one if the chunk has run out.

        corrected: the one to take in place of the chunk's.
        """
        left = self.remaining(tick)
        if self.current is not None and len(left):
            self.ages.append(self.current.age(tick))
            action = left[0] if corrected is None else corrected
        else:
            self.starved.append(tick)
            action = self.neutral(self.last_action)
        self.last_action = action
        self.applied.append(action)
        return action


def new_controller(
    source: ChunkSource,
    delays: Iterator[int] | None,
    neutral: Neutral,
    cold_start: bool,
    first_delay: int = 0,
) -> RecedingHorizon:
    """Receding-horizon control with the horizons and the strategy for late chunks of a source."""
    horizons, late = source.horizons, late_of(source)
    return RecedingHorizon(
        late.action_horizon(horizons.action),
        delays,
        neutral,
        cold_start,
        late,
        first_delay=first_delay,
        past=horizons.observation - 1,
    )


def starves(delay: int, action_horizon: int, usable: int) -> bool:
    """True if a constant delay outruns the chunk: d + max(T_a, d) > T_p - T_o + 1."""
    return delay + max(action_horizon, delay) > usable


def seam_jumps(actions: np.ndarray, seams: Sequence[int]) -> list[float]:
    """‖a_t - a_{t-1}‖ at each tick t at which a new chunk took over; actions [ticks, D_a]."""
    inside = [t for t in seams if 1 <= t < len(actions)]
    return [float(np.linalg.norm(actions[t] - actions[t - 1])) for t in inside]


def seam_jerks(actions: np.ndarray, seams: Sequence[int], control_dt_s: float) -> list[float]:
    """‖a_{t+1} - 3 a_t + 3 a_{t-1} - a_{t-2}‖ / dt³ there: the third derivative of the actions."""
    inside = [t for t in seams if 2 <= t < len(actions) - 1]
    thirds = (actions[t + 1] - 3 * actions[t] + 3 * actions[t - 1] - actions[t - 2] for t in inside)
    return [float(np.linalg.norm(d)) / control_dt_s**3 for d in thirds]
