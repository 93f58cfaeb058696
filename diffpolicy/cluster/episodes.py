"""Seeded episodes on the machines of a Ray cluster."""

from collections.abc import Callable, Sequence
from contextlib import closing
from typing import Any

from diffpolicy.cluster.jobs import Job, connect, gpus_for, run_jobs
from diffpolicy.control.chunk_source import ChunkSource, on_one_engine
from diffpolicy.control.episode import Episode, RolloutOptions
from diffpolicy.control.latency import LatencyProfile
from diffpolicy.control.rollout import Advance, stream
from diffpolicy.control.workers import FEWEST_EPISODES, Workers, one_thread
from diffpolicy.errors import DiffpolicyError
from diffpolicy.terminal.progress import EpisodeBar

Shared = tuple[ChunkSource, Callable[[], Any], LatencyProfile, RolloutOptions]


def stream_episodes(
    source: ChunkSource,
    make_env: Callable[[], Any],
    seeds: Sequence[int],
    profile: LatencyProfile,
    options: RolloutOptions,
    keep: Callable[[Episode], object],
    bar: EpisodeBar,
) -> None:
    """The episodes of Workers.stream_episodes, in jobs of 50; each is given to `keep`.

    An episode depends on its seed alone, so it is the same to the bit on machines of one kind.
    """
    with one_thread():
        fixed = on_one_engine(source, options.batch)
    ray = connect()
    gpus = _gpus(ray, fixed)
    shared = ray.put((fixed, make_env, profile, options))
    shares = [seeds[i : i + FEWEST_EPISODES] for i in range(0, len(seeds), FEWEST_EPISODES)]
    jobs = [
        Job(f"{bar.text}, seeds from {share[0]}", _episodes, (shared, list(share)))
        for share in shares
    ]
    for _, episodes in run_jobs(jobs, gpus=gpus):
        stream([Advance((options.limit or 0) * len(episodes), episodes)], bar, keep)


def _gpus(ray: Any, source: ChunkSource) -> int:
    """GPUs of a job: one for a policy on CUDA. Raises DiffpolicyError if the cluster has none."""
    if getattr(getattr(source, "device", None), "type", "cpu") != "cuda":
        return 0
    if not gpus_for(ray, "cuda"):
        raise DiffpolicyError(
            "--on ray: the policy is on cuda, and the cluster has no GPU; try --device cpu"
        )
    return 1


def _episodes(shared: Shared, seeds: list[int]) -> list[Episode]:
    source, make_env, profile, options = shared
    with closing(Workers(1)) as workers:
        return workers.run_episodes(source, make_env, seeds, profile, options)
