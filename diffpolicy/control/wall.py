"""Episodes on real time: a `Controller` called by a fixed-rate timer.

The loop is that of the simulated clock; only the arrival of a chunk is measured. Control never
waits for the policy: a tick acts with the chunk it has.
"""

import time
from collections.abc import Callable, Iterator, MutableSequence, Sequence
from dataclasses import replace
from typing import Any

from diffpolicy.control.chunk_source import ChunkSource
from diffpolicy.control.controller import ActionsNotFinite, Controller
from diffpolicy.control.episode import (
    Episode,
    RolloutOptions,
    RunningEpisode,
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
    try:
        for seed in seeds:
            episode = begin_episode(env, seed, source, None, options)
            if isinstance(episode, RunningEpisode):
                episode = _run(source, episode)
            yield Advance(options.limit or episode.ticks, [episode])
    finally:
        env.close()


def _run(source: ChunkSource, episode: RunningEpisode) -> Episode:
    """Run an episode in real time to its end."""
    options, before = episode.options, episode.controller
    made = getattr(source, "evaluations_made", [])  # of a policy with --late cut
    made.clear()
    with Controller(
        source,
        control_dt_s=options.control_dt_s,
        neutral=before.neutral,
        cold_start=before.cold_start,
        seed=episode.seed,
    ) as controller:
        episode.controller = controller.loop
        while not (episode.failure or _advance(episode, controller)):
            time.sleep(max(controller.due_s - time.perf_counter(), 0))
    times = controller.statistics
    return replace(
        episode.result(),
        latency_ms=times.latency_ms,
        late_ms=times.late_ms,
        missed_ticks=times.missed_ticks,
        evaluations=tuple(made),
    )


def _advance(episode: RunningEpisode, controller: Controller) -> bool:
    """One control tick; True at the end of the episode."""
    try:
        action = controller.act({key: values[-1] for key, values in episode.history.items()})
    except ActionsNotFinite as error:
        episode.fail(str(error))
        return True
    episode.check_chunk(action[None])  # D_a
    if controller.loop.started == episode.tick:
        observe([episode], 1)  # ends the episode at an observation that overflows the network
    return episode.failure is not None or episode.apply(action)
