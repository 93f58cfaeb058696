"""Receding-horizon control of one episode on a clock that counts in control ticks.

At each tick: (1) deliver a finished chunk; (2) if the worker is idle and at least T_a ticks have
passed since its last start, observe and start; (3) act. There is one worker, so chunks start every
max(T_a, d) ticks when inference takes d ticks. A chunk's first action belongs to the tick of its
observation: on late arrival the stale head is dropped, and until then the old chunk goes on.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class Chunk:
    """actions [T_p - T_o + 1, D_a], the first one meant for the tick of the observation."""

    observed: int
    arrives: int
    actions: np.ndarray


@dataclass
class RecedingHorizon:
    """The controller's state; `delays` gives the ticks that each inference takes, in order.

    Without cold_start the first chunk is computed before tick 0, whatever it costs.
    """

    action_horizon: int
    delays: Iterator[int]
    neutral: Callable[[np.ndarray | None], np.ndarray]
    cold_start: bool = False
    current: Chunk | None = None
    pending: Chunk | None = None
    started: int | None = None
    computing: bool = False
    last_action: np.ndarray | None = None
    ages: list[int] = field(default_factory=list)
    delay_ticks: list[int] = field(default_factory=list)
    applied: list[np.ndarray] = field(default_factory=list)
    seams: list[int] = field(default_factory=list)
    starved_ticks: int = 0

    def deliver(self, tick: int) -> None:
        """Step 1: a chunk that has arrived replaces the one in use."""
        if self.pending is not None and self.pending.arrives <= tick:
            if self.current is not None:
                self.seams.append(tick)
            self.current, self.pending = self.pending, None

    def wants_observation(self, tick: int) -> bool:
        """Step 2: whether to observe now and start an inference."""
        idle = self.pending is None and not self.computing
        return idle and (self.started is None or tick - self.started >= self.action_horizon)

    def start(self, tick: int, actions: np.ndarray) -> None:
        """Starts the inference whose result will be `actions` [T_p - T_o + 1, D_a].

        Its delay is known beforehand, as on a simulated clock.
        """
        free = self.started is None and not self.cold_start
        delay = 0 if free else next(self.delays)
        if not free:
            self.delay_ticks.append(delay)
        self.started = tick
        self.pending = Chunk(tick, tick + delay, actions)
        self.deliver(tick)

    def begin(self, tick: int) -> None:
        """Starts an inference that takes as long as it takes; `finish` ends it."""
        self.started, self.computing = tick, True

    def finish(self, tick: int, actions: np.ndarray) -> None:
        """The chunk [T_p - T_o + 1, D_a] of the inference begun last, there at this tick."""
        if self.started is None or not self.computing:
            raise RuntimeError("no inference was begun")
        self.computing = False
        self.delay_ticks.append(tick - self.started)
        self.pending = Chunk(self.started, tick, actions)
        self.deliver(tick)

    def act(self, tick: int) -> np.ndarray:
        """Step 3: the action of this tick, or the neutral one where the chunk has run out."""
        age = None if self.current is None else tick - self.current.observed
        if self.current is None or age is None or age >= len(self.current.actions):
            self.starved_ticks += 1
            action = self.neutral(self.last_action)
        else:
            self.ages.append(age)
            action = self.current.actions[age]
        self.last_action = action
        self.applied.append(action)
        return action


def starves(delay: int, action_horizon: int, usable: int) -> bool:
    """Whether a constant delay outruns the chunk: d + max(T_a, d) > T_p - T_o + 1."""
    return delay + max(action_horizon, delay) > usable


def seam_jumps(actions: np.ndarray, seams: Sequence[int]) -> list[float]:
    """‖a_t - a_{t-1}‖ at each tick t where a new chunk took over; actions [ticks, D_a]."""
    inside = [t for t in seams if 1 <= t < len(actions)]
    return [float(np.linalg.norm(actions[t] - actions[t - 1])) for t in inside]


def seam_jerks(actions: np.ndarray, seams: Sequence[int], control_dt_s: float) -> list[float]:
    """‖a_{t+1} - 3 a_t + 3 a_{t-1} - a_{t-2}‖ / dt³ there: the third derivative of the actions."""
    inside = [t for t in seams if 2 <= t < len(actions) - 1]
    thirds = (actions[t + 1] - 3 * actions[t] + 3 * actions[t - 1] - actions[t - 2] for t in inside)
    return [float(np.linalg.norm(d)) / control_dt_s**3 for d in thirds]
