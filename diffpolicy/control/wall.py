"""Receding horizon on real time: control on a fixed-rate timer, inference in a thread beside it.

The controller and its contract are those of the simulated clock; only who says when a chunk is done
differs. Nothing here waits for the policy: a tick acts with what it has.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator, MutableSequence, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from diffpolicy.control.rollout import (
    Advance,
    Episode,
    RolloutOptions,
    Slot,
    act_or_fail,
    begin,
    collect,
    episode_noise,
    failed_episode,
    forgive,
    show,
)
from diffpolicy.environment.watched import EnvironmentFailure, Watched
from diffpolicy.policy import Policy


@dataclass
class Timing:
    """What the clock saw: latencies of inferences, lateness of ticks, ticks that were missed."""

    latency_ms: list[float] = field(default_factory=list)
    late_ms: list[float] = field(default_factory=list)
    missed: int = 0


def run_on_wall_clock(
    policy: Policy,
    make_env: Callable[[], Any],
    seeds: Sequence[int],
    options: RolloutOptions,
    description: str = "wall",
) -> list[Episode]:
    """One Episode for each seed, one after the other, each as long as it is in reality."""
    advances = episodes_on_wall_clock(policy, make_env, seeds, options)
    return collect(advances, seeds, options, description)


def episodes_on_wall_clock(
    policy: Policy,
    make_env: Callable[[], Any],
    seeds: Sequence[int],
    options: RolloutOptions,
    at: MutableSequence[int] | None = None,
) -> Iterator[Advance]:
    """Every seed's episode, as it ends; at: where calls of the environment are put on record."""
    env = Watched(make_env, seeds[0], at)
    policy.engine()  # built before the clock runs
    try:
        with ThreadPoolExecutor(1, "inference") as worker:
            for seed in seeds:
                episode = _episode(policy, env, seed, options, worker)
                yield Advance(options.limit or episode.ticks, [episode])
    finally:
        env.close()


def _episode(
    policy: Policy, env: Watched, seed: int, options: RolloutOptions, worker: ThreadPoolExecutor
) -> Episode:
    try:
        slot = begin(env, seed, policy, iter(()), options)
    except EnvironmentFailure as error:
        return failed_episode(seed, 0, forgive(error, env, options))
    timing = _run(slot, policy, options, worker)
    return replace(
        slot.episode(options.control_dt_s),
        latency_ms=tuple(timing.latency_ms),
        late_ms=tuple(timing.late_ms),
        missed_ticks=timing.missed,
    )


def _run(slot: Slot, policy: Policy, options: RolloutOptions, worker: ThreadPoolExecutor) -> Timing:
    """Run the episode to its end."""
    timing, controller = Timing(), slot.controller
    work: Future | None = None
    if not (options.cold_start or slot.failure):
        show([slot], policy, np.asarray([slot.history[-1]]))
        first, _ = _infer(policy, slot.history.copy(), slot.seed, 0)
        slot.check(first)
        controller.start(0, first)
    start = time.perf_counter()
    while True:
        if work and work.done():
            actions, latency_ms = work.result()
            timing.latency_ms.append(latency_ms)
            controller.finish(slot.tick, actions)
            slot.check(actions)
            work = None
        controller.deliver(slot.tick)
        if not slot.failure and controller.wants_observation(slot.tick):
            controller.begin(slot.tick)
            show([slot], policy, np.asarray([slot.history[-1]]))
            work = worker.submit(_infer, policy, slot.history.copy(), slot.seed, slot.tick)
        if slot.failure or act_or_fail(slot, options):
            break
        _wait(start + slot.tick * options.control_dt_s, options.control_dt_s, timing)
    if work:  # overtaken by the end; dropping its latency would drop the slow ones
        timing.latency_ms.append(work.result()[1])
    return timing


def _infer(policy: Policy, history: deque, seed: int, tick: int) -> tuple[np.ndarray, float]:
    """One chunk [T_p - T_o + 1, D_a] and its latency, in the inference thread."""
    start = time.perf_counter_ns()
    count, _, *chunk = policy.noise_shape(1)
    noise = episode_noise(seed, tick, (count, *chunk))[:, None]
    [actions] = policy(np.array([history], np.float32), noise)
    return actions, (time.perf_counter_ns() - start) / 1e6


def _wait(until: float, dt_s: float, timing: Timing) -> None:
    """Sleeps to the next tick; a tick that begins a whole period late is a missed one."""
    time.sleep(max(until - time.perf_counter(), 0))
    late_s = time.perf_counter() - until
    timing.late_ms.append(1000 * late_s)
    timing.missed += late_s > dt_s
