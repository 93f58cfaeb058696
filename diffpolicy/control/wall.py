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
    begin_episode,
    failed_episode,
    forgive,
    noise_batch,
    observe,
)
from diffpolicy.control.ranges import TrainingRange, training_range
from diffpolicy.control.rollout import Advance, collect
from diffpolicy.environment.monitored import EnvironmentFailure, Monitored


@dataclass
class Timing:
    """Measurements of one episode: inference latencies, lateness of ticks, missed ticks."""

    latency_ms: list[float] = field(default_factory=list)
    late_ms: list[float] = field(default_factory=list)
    missed: int = 0


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
            clock = _WallClock(source, options, worker, training_range(source))
            for seed in seeds:
                episode = clock.run(env, seed)
                yield Advance(options.limit or episode.ticks, [episode])
    finally:
        env.close()


@dataclass(frozen=True)
class _WallClock:
    source: ChunkSource
    options: RolloutOptions
    worker: ThreadPoolExecutor
    trained: TrainingRange | None

    def run(self, env: Monitored, seed: int) -> Episode:
        """One episode from reset to end."""
        try:
            episode = begin_episode(env, seed, self.source, None, self.options)
        except EnvironmentFailure as error:
            return failed_episode(seed, 0, forgive(error, env, self.options))
        timing = self._control(episode)
        return replace(
            episode.result(self.options.control_dt_s),
            latency_ms=tuple(timing.latency_ms),
            late_ms=tuple(timing.late_ms),
            missed_ticks=timing.missed,
        )

    def _control(self, episode: RunningEpisode) -> Timing:
        timing, controller, dt_s = Timing(), episode.controller, self.options.control_dt_s
        work: Future[tuple[np.ndarray, float]] | None = None
        if not (self.options.cold_start or episode.failure):
            first, _ = self._begin(episode).result()
            self._finish(episode, first)
        start = time.perf_counter()
        while True:
            if work and work.done():
                chunk, latency_ms = work.result()
                timing.latency_ms.append(latency_ms)
                self._finish(episode, chunk)
                work = None
            controller.deliver(episode.tick)
            if not episode.failure and controller.wants_observation(episode.tick):
                work = self._begin(episode)
            if episode.failure or episode.advance(self.options):
                break
            _wait(start + episode.tick * dt_s, dt_s, timing)
        if work:  # the episode ended first; without this latency the slow ones would be missing
            timing.latency_ms.append(work.result()[1])
        return timing

    def _begin(self, episode: RunningEpisode) -> Future[tuple[np.ndarray, float]]:
        """Begin an inference in the inference thread."""
        episode.controller.begin(episode.tick)
        observation = observe([episode], self.trained, 1)
        return self.worker.submit(_infer, self.source, observation, episode.seed, episode.tick)

    def _finish(self, episode: RunningEpisode, chunk: np.ndarray) -> None:
        episode.controller.finish(chunk, episode.tick)
        episode.check_chunk(chunk)


def _infer(
    source: ChunkSource, observation: dict[str, np.ndarray], seed: int, tick: int
) -> tuple[np.ndarray, float]:
    """One chunk [T_p - T_o + 1, D_a] and its latency in ms, noise included."""
    start = time.perf_counter_ns()
    [chunk] = source(observation, noise_batch(source, [(seed, tick)], 1))
    return chunk, (time.perf_counter_ns() - start) / 1e6


def _wait(until: float, dt_s: float, timing: Timing) -> None:
    """Sleep to the next tick; a tick that begins a whole period late is a missed one."""
    time.sleep(max(until - time.perf_counter(), 0))
    late_s = time.perf_counter() - until
    timing.late_ms.append(1000 * late_s)
    timing.missed += late_s > dt_s
