"""Seeded episodes in closed loop: many environments, one batched policy call a replan.

An episode depends on its seed alone: the policy always sees one fixed, padded batch (matrix
products differ in the last bit between batch sizes), noise is keyed by (seed, tick), latencies by
the seed.
"""

from collections.abc import Callable, Iterable, Iterator, MutableSequence, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from diffpolicy.control.chunk_source import ChunkSource, late_of
from diffpolicy.control.correcting import corrections
from diffpolicy.control.episode import (
    Episode,
    RolloutOptions,
    RunningEpisode,
    ask,
    begin_episode,
    observe,
)
from diffpolicy.control.latency import LatencyProfile
from diffpolicy.environment.monitored import Monitored
from diffpolicy.errors import DiffpolicyError
from diffpolicy.terminal.progress import EpisodeBar


class Advance(NamedTuple):
    """Control ticks done, or no longer needed, and the episodes that ended."""

    ticks: int
    episodes: list[Episode]


def run_episodes(
    source: ChunkSource,
    make_env: Callable[[], Any],
    seeds: Sequence[int],
    profile: LatencyProfile,
    options: RolloutOptions,
    description: str = "episodes",
) -> list[Episode]:
    """One Episode for each seed, in the order of the seeds, failed ones included."""
    return collect(episodes(source, make_env, seeds, profile, options), seeds, options, description)


def collect(
    advances: Iterable[Advance], seeds: Sequence[int], options: RolloutOptions, description: str
) -> list[Episode]:
    """Episodes in the order of the seeds; with a bar of ticks."""
    done: dict[int, Episode] = {}
    with EpisodeBar(description, len(seeds), options.limit) as bar:
        stream(advances, bar, lambda episode: done.update({episode.seed: episode}))
    return [done[seed] for seed in seeds]


def stream(advances: Iterable[Advance], bar: EpisodeBar, keep: Callable[[Episode], object]) -> None:
    """Give each episode to `keep` as it ends, and hold none."""
    for ticks, ended in advances:
        for episode in ended:
            keep(episode)
        bar.advance(ticks, len(ended))


def episodes(
    source: ChunkSource,
    make_env: Callable[[], Any],
    seeds: Sequence[int],
    profile: LatencyProfile,
    options: RolloutOptions,
    at: MutableSequence[int] | None = None,
) -> Iterator[Advance]:
    """Every seed's episode, as it ends; at: record of the environments' calls (`monitored`)."""
    if (late := late_of(source)).wall_only:
        raise DiffpolicyError(
            f"--late {late.text} depends on real time; expected the wall clock; try --clock wall"
        )
    rollout, envs, running = _Rollout(source, profile, options, iter(seeds)), [], []
    try:
        for seed in seeds[: options.envs]:
            envs.append(Monitored(make_env, seed, at))
            running += rollout.next_episode(envs[-1])
        while running or rollout.ended:
            count = len(running)
            running = rollout.tick(running)
            left = sum(options.limit - e.ticks for e in rollout.ended) if options.limit else 0
            yield Advance(count + left, rollout.ended)
            rollout.ended = []
    except Exception:
        yield Advance(0, rollout.ended)  # finished episodes are not lost
        raise
    finally:
        for env in envs:
            env.close()


@dataclass
class _Rollout:
    """Seeds that wait for an environment, and episodes that ended since the last advance."""

    source: ChunkSource
    profile: LatencyProfile
    options: RolloutOptions
    waiting: Iterator[int]
    ended: list[Episode] = field(default_factory=list)

    def next_episode(self, env: Monitored) -> list[RunningEpisode]:
        """The next seed's episode in this environment, unless none is left."""
        for seed in self.waiting:
            delays = self.profile.delays(seed, self.options.control_dt_s)
            first = self.profile.first_delay(self.options.control_dt_s)
            episode = begin_episode(env, seed, self.source, delays, self.options, first)
            if isinstance(episode, RunningEpisode):
                return [episode]
            self.ended.append(episode)
        return []

    def tick(self, running: list[RunningEpisode]) -> list[RunningEpisode]:
        """One control tick of every episode; a finished one gives its environment to the next."""
        for episode in running:
            episode.controller.deliver(episode.tick)
        observing = [e for e in running if not e.failure and e.controller.wants_observation(e.tick)]
        for i in range(0, len(observing), self.options.batch):
            replan(self.source, observing[i : i + self.options.batch], self.options.batch)
        going = []
        corrected = corrections(self.source, running, self.options.batch)
        for episode, action in zip(running, corrected, strict=True):
            if not (episode.failure or episode.advance(action)):
                going.append(episode)
                continue
            self.ended.append(episode.result())
            going += self.next_episode(episode.env)
        return going


def replan(source: ChunkSource, observing: Sequence[RunningEpisode], batch: int) -> None:
    """One policy call for all that observe now, padded to the fixed batch."""
    for episode in observing:
        episode.controller.begin(episode.tick)
    keys = [(e.seed, e.tick) for e in observing]
    plans = [e.controller.plan(e.tick) for e in observing]
    chunks = ask(source, observe(observing, batch), keys, batch, plans)
    for episode, chunk in zip(observing, chunks, strict=False):
        episode.check_chunk(chunk)
        episode.controller.finish(chunk)
