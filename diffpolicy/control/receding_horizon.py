"""Receding-horizon control of one episode on a clock that counts in control ticks.

At each tick: (1) deliver a finished chunk; (2) if no inference runs and at least T_a ticks have
passed since the start of the last one, observe and begin one; (3) act. One worker computes, so
chunks start every max(T_a, d) ticks if inference takes d ticks. The first action of a chunk belongs
to the tick of its observation; a strategy of `late` says what a late chunk contributes.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from diffpolicy.late.drop import DropHead


@dataclass(frozen=True)
class Chunk:
    """actions [m, D_a], one for each tick from `arrives` on, computed for the tick `observed`."""

    observed: int
    arrives: int
    actions: np.ndarray


@dataclass
class RecedingHorizon:
    """State of the controller.

    delays: simulated ticks of each inference, in order; None on a clock that measures them.
    Without cold_start the first chunk is free: it is computed before tick 0.
    """

    action_horizon: int
    delays: Iterator[int] | None
    neutral: Callable[[np.ndarray | None], np.ndarray]
    cold_start: bool = False
    late: DropHead = field(default_factory=DropHead)
    current: Chunk | None = None
    pending: Chunk | None = None
    started: int | None = None
    computing: bool = False
    free: bool = False
    expected_delay: int | None = None
    last_action: np.ndarray | None = None
    ages: list[int] = field(default_factory=list)
    delay_ticks: list[int] = field(default_factory=list)
    applied: list[np.ndarray] = field(default_factory=list)
    seams: list[int] = field(default_factory=list)
    starved_ticks: int = 0

    def deliver(self, tick: int) -> None:
        """Step 1: join a chunk that has arrived to the one in use."""
        new = self.pending
        if new is None or new.arrives > tick:
            return
        if self.current is not None:
            self.seams.append(tick)
        delay = new.arrives - new.observed
        actions = self.late.join(self.remaining(new.arrives), new.actions, delay)
        self.current, self.pending = Chunk(new.observed, new.arrives, actions), None

    def wants_observation(self, tick: int) -> bool:
        """Step 2: True if an inference is to begin now."""
        idle = self.pending is None and not self.computing
        return idle and (self.started is None or tick - self.started >= self.action_horizon)

    def begin(self, tick: int) -> None:
        """Begin an inference; `expected_delay` and `remaining` hold before the policy is called.

        expected_delay is the simulated delay in ticks, else the last one measured (None at first).
        """
        self.free = self.started is None and not self.cold_start
        if self.free:
            self.expected_delay = 0
        elif self.delays is not None:
            self.expected_delay = next(self.delays)
        else:
            self.expected_delay = self.delay_ticks[-1] if self.delay_ticks else None
        self.started, self.computing = tick, True

    def finish(self, actions: np.ndarray, tick: int | None = None) -> None:
        """Take the chunk [T_p - T_o + 1, D_a] of the inference that was begun last.

        tick: the tick at which it is done; by default after the expected delay.
        """
        if self.started is None or not self.computing:
            raise RuntimeError("no inference was begun")
        arrives = self.started + (self.expected_delay or 0) if tick is None else tick
        if not self.free:
            self.delay_ticks.append(arrives - self.started)
        self.computing = False
        self.pending = Chunk(self.started, arrives, actions)
        self.deliver(self.started if tick is None else tick)

    def remaining(self, tick: int) -> np.ndarray:
        """Actions [n, D_a] of the chunk in use from this tick on; [0, 0] before the first chunk."""
        if self.current is None:
            return np.empty((0, 0))
        return self.current.actions[tick - self.current.arrives :]

    def act(self, tick: int) -> np.ndarray:
        """Step 3: the action of this tick, or the neutral one if the chunk has run out."""
        left = self.remaining(tick)
        if self.current is not None and len(left):
            self.ages.append(tick - self.current.observed)
            action = left[0]
        else:
            self.starved_ticks += 1
            action = self.neutral(self.last_action)
        self.last_action = action
        self.applied.append(action)
        return action


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
