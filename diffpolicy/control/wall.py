"""Receding horizon on real time: control on a fixed-rate timer, inference in a thread beside it.

The controller is that of the simulated clock; only the arrival of a chunk is measured. Control
never waits for the policy: a tick acts with the chunk it has.
"""

import time
from collections.abc import Callable, Iterator, MutableSequence, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from diffpolicy.control.chunk_source import ChunkSource, build_engine
from diffpolicy.control.episode import (
    Episode,
    RolloutOptions,
    RunningEpisode,
    ask,
    begin_episode,
    observe,
)
from diffpolicy.control.rollout import Advance, collect
from diffpolicy.environment.monitored import Monitored


def run_on_wall_clock(
    source: ChunkSource,
    make_env: Callable[[], Any],
    seeds: Sequence[int],
    options: RolloutOptions,
    description: str = "wall",
) -> list[Episode]:
    """One Episode for each seed, one after the other, each as long as it is in reality."""
    advances = episodes_on_wall_clock(source, make_env, seeds, options)
    return collect(advances, seeds, options, description)


def episodes_on_wall_clock(
    source: ChunkSource,
    make_env: Callable[[], Any],
    seeds: Sequence[int],
    options: RolloutOptions,
    at: MutableSequence[int] | None = None,
) -> Iterator[Advance]:
    """Every seed's episode, as it ends; at: record of the environment's calls (`monitored`)."""
    env = Monitored(make_env, seeds[0], at)
    build_engine(source)  # before the clock runs
    try:
        with ThreadPoolExecutor(1, "inference") as worker:
            for seed in seeds:
                episode = begin_episode(env, seed, source, None, options)
                if isinstance(episode, RunningEpisode):
                    episode = _RealTime(source, episode, worker).run()
                yield Advance(options.limit or episode.ticks, [episode])
    finally:
        env.close()


@dataclass
class _RealTime:
    """One episode, the thread of its inferences, and the measured times."""

    source: ChunkSource
    episode: RunningEpisode
    worker: ThreadPoolExecutor
    latency_ms: list[float] = field(default_factory=list)  # of inferences
    late_ms: list[float] = field(default_factory=list)  # of ticks
    missed: int = 0

    def run(self) -> Episode:
        """Run the episode to its end."""
        episode, controller, work = self.episode, self.episode.controller, None
        if not (controller.cold_start or episode.failure):
            self.finish(self.begin().result()[0])
        start = time.perf_counter()
        while True:
            if work and work.done():
                chunk, latency_ms = work.result()
                self.latency_ms.append(latency_ms)
                self.finish(chunk)
                work = None
            controller.deliver(episode.tick)
            if not episode.failure and controller.wants_observation(episode.tick):
                work = self.begin()
            if episode.failure or episode.advance():
                break
            self.wait(start)
        if work:  # the episode ended first; without this latency the slow ones would be missing
            self.latency_ms.append(work.result()[1])
        times = {"latency_ms": tuple(self.latency_ms), "late_ms": tuple(self.late_ms)}
        return replace(episode.result(), **times, missed_ticks=self.missed)

    def begin(self) -> Future[tuple[np.ndarray, float]]:
        """Begin an inference in its thread."""
        episode = self.episode
        episode.controller.begin(episode.tick)
        given = observe([episode], 1)
        return self.worker.submit(_infer, self.source, given, episode.seed, episode.tick)

    def finish(self, chunk: np.ndarray) -> None:
        """Take a chunk at this tick."""
        self.episode.controller.finish(chunk, self.episode.tick)
        self.episode.check_chunk(chunk)

    def wait(self, start: float) -> None:
        """Sleep to the next tick; a tick that begins a whole period late is a missed one."""
        dt_s = self.episode.options.control_dt_s
        until = start + self.episode.tick * dt_s
        time.sleep(max(until - time.perf_counter(), 0))
        late_s = time.perf_counter() - until
        self.late_ms.append(1000 * late_s)
        self.missed += late_s > dt_s


def _infer(
    source: ChunkSource, observation: dict[str, np.ndarray], seed: int, tick: int
) -> tuple[np.ndarray, float]:
    """One chunk [T_p - T_o + 1, D_a] and its latency in ms, noise included."""
    start = time.perf_counter_ns()
    [chunk] = ask(source, observation, [(seed, tick)], 1)
    return chunk, (time.perf_counter_ns() - start) / 1e6
