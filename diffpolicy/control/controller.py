"""Controller: receding-horizon control called by a robot's own timer, inference in a thread.

Shapes: T_o observation horizon, T_p prediction horizon, m = T_p - T_o + 1, D_a action dimensions.
"""

import math
import time
from collections import deque
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Self

import numpy as np

from diffpolicy.control.chunk_source import (
    ChunkSource,
    Observing,
    build_engine,
    correcting,
    late_of,
    observed_by,
)
from diffpolicy.control.episode import ask
from diffpolicy.control.latency import delay_ticks
from diffpolicy.control.receding_horizon import Neutral, new_controller
from diffpolicy.control.statistics import Statistics
from diffpolicy.errors import DiffpolicyError
from diffpolicy.late.plan import Plan
from diffpolicy.specification import FLAT

HOLD = "hold"


class ActionsNotFinite(DiffpolicyError):
    """A chunk with NaN or infinity."""


class Controller:
    """Receding-horizon control of a robot: `act` once per control tick, from one thread.

    policy: a `ChunkSource`, such as a `Policy`. neutral: the action of a tick without one, "hold"
    for the last one, an array [D_a], or a function of the last action (or None). The first call of
    an episode waits for its chunk; with cold_start it does not, and needs a neutral action. seed:
    of the noise, which is keyed by (seed, tick). Late chunks: by the policy's strategy (`late`).

    An exception of the policy is raised by the next call of `act`, and by all later ones until
    `reset`. Raises DiffpolicyError for arguments that are not usable.
    """

    def __init__(
        self,
        policy: ChunkSource,
        *,
        control_dt_s: float,
        neutral: str | np.ndarray | Neutral = HOLD,
        cold_start: bool = False,
        seed: int = 0,
    ):
        if not 0 < control_dt_s < math.inf:
            raise DiffpolicyError(
                f"control_dt_s is not a period; expected seconds above 0; got {control_dt_s!r}"
            )
        self.policy, self.control_dt_s = policy, control_dt_s
        self._neutral = _neutral_rule(neutral, cold_start)
        self._cold_start, self._head = cold_start, correcting(policy)
        if late_of(policy).oracle:
            raise DiffpolicyError(
                f"--late {late_of(policy).text} knows delays before they have passed; expected the "
                "simulated clock"
            )
        self._closed = False
        build_engine(policy)  # before the clock runs
        self._worker = ThreadPoolExecutor(1, "inference")
        self._begin_episode(seed)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def act(self, observation: Mapping[str, np.ndarray] | np.ndarray) -> np.ndarray:
        """The action [D_a] of this tick, a copy, from its observation {key: array}.

        One array serves for a single key. Only the first call of an episode waits for the policy.
        Raises DiffpolicyError for an observation of other keys, shapes or types, or one that is not
        finite, which changes nothing; for a chunk of another shape than [1, m, D_a];
        ActionsNotFinite; and what the policy raised.
        """
        self._check_usable()
        self._observe(observation)
        self._measure_lateness()
        self._collect()
        self.loop.deliver(self.tick)
        if self.loop.wants_observation(self.tick):
            self._begin_inference()
        action = self.loop.act(self.tick, self._corrected())
        self.due_s = (self.due_s if self.tick else time.perf_counter()) + self.control_dt_s
        self.tick += 1
        return np.array(action)

    def reset(self, seed: int | None = None) -> None:
        """Begin a new episode; a running inference is waited for and dropped.

        seed: of its noise, by default the next number.
        """
        if self._closed:
            raise DiffpolicyError("the controller is closed; make a new one")
        self._finish_inference()
        self._begin_episode(self.seed + 1 if seed is None else seed)

    def close(self) -> None:
        """Wait for a running inference, whose latency counts, and end the thread."""
        self._closed = True
        self._finish_inference()
        self._worker.shutdown()

    @property
    def statistics(self) -> Statistics:
        """Figures of this episode; they stay after `close`."""
        loop = self.loop
        return Statistics(
            ticks=self.tick,
            starved_ticks=loop.starved_ticks,
            missed_ticks=self._missed_ticks,
            ages=tuple(loop.ages),
            delay_ticks=tuple(loop.delay_ticks),
            latency_ms=tuple(self._latency_ms),
            late_ms=tuple(self._late_ms),
            expected_ticks=tuple(loop.expected_ticks),
        )

    def _begin_episode(self, seed: int) -> None:
        self.seed, self.tick, self.due_s = seed, 0, 0.0  # due_s: perf_counter of the next call
        self.loop = new_controller(self.policy, None, self._neutral, self._cold_start)
        self._history: dict[str, deque[np.ndarray]] = {}
        self._before: dict[str, deque[np.ndarray]] = {}  # that of the tick before
        self._work: Future[tuple[np.ndarray, float]] | None = None
        self._failure: Exception | None = None
        self._latency_ms: list[float] = []
        self._late_ms: list[float] = []
        self._missed_ticks = 0

    def _check_usable(self) -> None:
        if self._closed:
            raise DiffpolicyError("the controller is closed; make a new one")
        if self._failure:
            raise self._failure

    def _observe(self, observation: Mapping[str, np.ndarray] | np.ndarray) -> None:
        """Append copies to the history; the first observation fills it."""
        source = self.policy
        if not isinstance(observation, Mapping):
            keys = list(source.observations) if isinstance(source, Observing) else [FLAT]
            observation = {keys[0] if len(keys) == 1 else "one array": observation}
        found = {k: np.array(v) for k, v in observed_by(source, observation).items()}
        for key, value in found.items():
            self._check(key, value)
        length = source.horizons.observation
        if self._head:
            self._before = {key: values.copy() for key, values in self._history.items()}
        for key, value in found.items():
            self._history.setdefault(key, deque([value] * length, length)).append(value)

    def _check(self, key: str, value: np.ndarray) -> None:
        """Raise DiffpolicyError for a value of another shape or kind, or one not finite."""
        like = self._history[key][-1] if key in self._history else value
        shape, pictures = like.shape, like.dtype == np.uint8
        specs = self.policy.observations if isinstance(self.policy, Observing) else ()
        if isinstance(specs, Mapping):
            shape, pictures = specs[key].shape, specs[key].is_picture
        unlike = value.shape != shape or (value.dtype == np.uint8) != pictures
        if unlike or value.dtype.kind not in "biuf":
            expected = f"{'pictures uint8' if pictures else 'numbers'} {list(shape)}"
            got = f"{value.dtype} {list(value.shape)}"
            raise DiffpolicyError(f"{key} at tick {self.tick} must be {expected}; got {got}")
        if value.dtype.kind == "f" and not np.isfinite(value).all():
            where = int(np.flatnonzero(~np.isfinite(value))[0])
            raise DiffpolicyError(f"{key} at tick {self.tick} is not finite at index {where}")

    def _measure_lateness(self) -> None:
        """Count periods without a call; the next calls are due after this one."""
        if self.tick:
            late_s = max(time.perf_counter() - self.due_s, 0.0)
            missed = int(late_s / self.control_dt_s)
            self._late_ms.append(1000 * late_s)
            self._missed_ticks += missed
            self.due_s += missed * self.control_dt_s

    def _begin_inference(self) -> None:
        """Begin an inference for this tick; wait for it if the loop counts it as free."""
        self.loop.begin(self.tick)
        with np.errstate(over="ignore"):  # beyond float32 is infinite: the actions are refused
            given = {k: _history(values) for k, values in self._history.items()}
        key, plan = (self.seed, self.tick), self.loop.plan(self.tick)
        self._work = self._worker.submit(_infer, self.policy, given, key, plan)
        if self.loop.free:
            self._collect(wait=True)

    def _collect(self, wait: bool = False) -> None:
        """Take the chunk of a finished inference, or raise its exception."""
        if self._work is None or not (wait or self._work.done()):
            return
        work, self._work = self._work, None
        try:
            chunk, latency_ms = work.result()
            if self.loop.free:  # all that is known of the delay of the next one
                self.loop.first_delay = delay_ticks(latency_ms, self.control_dt_s)
            else:
                self._latency_ms.append(latency_ms)
            self.loop.finish(_usable(chunk, self.policy.horizons.usable), self.tick)
        except Exception as error:
            error.add_note(f"in the policy, at the observation of tick {self.loop.started}")
            self._failure = error
            raise

    def _corrected(self) -> np.ndarray | None:
        """The corrected action [D_a] of this tick; None if the action stays as it is."""
        planned = self.loop.planned(self.tick) if self._before else None
        if self._head is None or planned is None:
            return None
        action, row = planned
        try:
            with np.errstate(over="ignore"):  # as for an inference
                before = {key: _history(values) for key, values in self._before.items()}
            found = self._head.correct(before, action[None], np.array([row]))[0]
            if not np.isfinite(found).all():
                raise ActionsNotFinite("the policy's corrected actions are not finite")
        except Exception as error:
            error.add_note(f"in the correction of the action of tick {self.tick}")
            self._failure = error
            raise
        return found

    def _finish_inference(self) -> None:
        """Wait for a running inference; keep its latency, drop its chunk or its exception."""
        if self._work and self._work.exception() is None:
            self._latency_ms.append(self._work.result()[1])
        self._work = None


def _neutral_rule(neutral: str | np.ndarray | Neutral, cold_start: bool) -> Neutral:
    """The action of a tick without one, as a function of the last action."""
    if callable(neutral):
        return neutral
    if isinstance(neutral, str):
        if neutral != HOLD:
            raise DiffpolicyError(
                f"{neutral!r} is not a neutral action; expected {HOLD!r}, an array or a function"
            )
        if cold_start:
            raise DiffpolicyError(
                "a cold start has no action to hold before its first chunk; give neutral=ARRAY"
            )
        return _held
    fixed = np.array(neutral, np.float32)
    if fixed.ndim != 1 or not np.isfinite(fixed).all():
        raise DiffpolicyError(f"a neutral action must be finite numbers [D_a]; got {neutral!r}")
    return lambda last: fixed


def _held(last: np.ndarray | None) -> np.ndarray:
    assert last is not None  # the first call waits for a chunk
    return last


def _history(values: deque[np.ndarray]) -> np.ndarray:
    """[1, T_o, …], floats in float32."""
    stacked = np.stack(values)[None]
    return stacked.astype(np.float32) if stacked.dtype.kind == "f" else stacked


def _usable(chunk: np.ndarray, usable: int) -> np.ndarray:
    """The chunk [m, D_a] of a batch of one."""
    chunk = np.asarray(chunk)
    if chunk.ndim != 3 or chunk.shape[:2] != (1, usable):
        raise DiffpolicyError(
            f"the policy's actions must be [1, {usable}, D_a]; got {list(chunk.shape)}"
        )
    if not np.isfinite(chunk).all():
        raise ActionsNotFinite("the policy's actions are not finite")
    return chunk[0]


def _infer(
    source: ChunkSource,
    observation: dict[str, np.ndarray],
    key: tuple[int, int],
    plan: Plan | None,
) -> tuple[np.ndarray, float]:
    """Actions [1, m, D_a] and their latency in ms, noise included."""
    start = time.perf_counter_ns()
    chunk = ask(source, observation, [key], 1, [plan])
    return chunk, (time.perf_counter_ns() - start) / 1e6
