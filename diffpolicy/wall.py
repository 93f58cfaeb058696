"""Receding horizon on real time: control on a fixed-rate timer, inference in a thread beside it.

The controller and its contract are those of the simulated clock; only who says when a chunk is done
differs. Nothing here waits for the policy: a tick acts with what it has.
"""

import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from tqdm import tqdm

from diffpolicy.policy import Policy
from diffpolicy.rollout import Episode, RolloutOptions, act, begin, episode_noise


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
) -> tuple[list[Episode], Timing]:
    """One Episode for each seed, one after the other, each as long as it is in reality."""
    timing, env = Timing(), make_env()
    policy.engine()  # built before the clock runs
    bar = tqdm(seeds, desc=description, unit="episode", leave=False)
    try:
        with ThreadPoolExecutor(1, "inference") as worker:
            return [_episode(policy, env, seed, options, worker, timing) for seed in bar], timing
    finally:
        env.close()


def _episode(
    policy: Policy,
    env: Any,
    seed: int,
    options: RolloutOptions,
    worker: ThreadPoolExecutor,
    timing: Timing,
) -> Episode:
    slot = begin(env, seed, policy, iter(()), options)
    controller = slot.controller
    work: Future | None = None
    if not options.cold_start:
        first, _ = _infer(policy, slot.history.copy(), seed, 0)
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
        if controller.wants_observation(slot.tick):
            controller.begin(slot.tick)
            work = worker.submit(_infer, policy, slot.history.copy(), seed, slot.tick)
        if slot.failure or act(slot):
            break
        _wait(start + slot.tick * options.control_dt_s, options.control_dt_s, timing)
    if work:  # overtaken by the end; dropping its latency would drop the slow ones
        timing.latency_ms.append(work.result()[1])
    return slot.episode(options.control_dt_s)


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
