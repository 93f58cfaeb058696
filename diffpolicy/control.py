"""Receding-horizon control of one episode on a clock that counts in control ticks.

At each tick: (1) deliver a finished chunk; (2) if the worker is idle and at least T_a ticks have
passed since its last start, observe and start; (3) act. There is one worker, so chunks start every
max(T_a, d) ticks when inference takes d ticks. A chunk's first action belongs to the tick of its
observation: on late arrival the stale head is dropped, and until then the old chunk goes on.
"""

from collections.abc import Callable, Iterator
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
    last_action: np.ndarray | None = None
    ages: list[int] = field(default_factory=list)
    delay_ticks: list[int] = field(default_factory=list)
    starved_ticks: int = 0

    def deliver(self, tick: int) -> None:
        """Step 1: a chunk that has arrived replaces the one in use."""
        if self.pending is not None and self.pending.arrives <= tick:
            self.current, self.pending = self.pending, None

    def wants_observation(self, tick: int) -> bool:
        """Step 2: whether to observe now and start an inference."""
        idle = self.pending is None
        return idle and (self.started is None or tick - self.started >= self.action_horizon)

    def start(self, tick: int, actions: np.ndarray) -> None:
        """Starts the inference whose result will be `actions` [T_p - T_o + 1, D_a]."""
        free = self.started is None and not self.cold_start
        delay = 0 if free else next(self.delays)
        if not free:
            self.delay_ticks.append(delay)
        self.started = tick
        self.pending = Chunk(tick, tick + delay, actions)
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
        return action


def starves(delay: int, action_horizon: int, usable: int) -> bool:
    """Whether a constant delay outruns the chunk: d + max(T_a, d) > T_p - T_o + 1."""
    return delay + max(action_horizon, delay) > usable
