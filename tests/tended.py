"""Stores to look after: with outcomes, final observations, success, tasks, names and pictures."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from diffpolicy.data.demonstration import Demonstration
from diffpolicy.data.demonstration_writer import DemonstrationWriter
from diffpolicy.data.formats import open_source
from diffpolicy.stores.copying import seeds_of

ATTRIBUTES = {"control_dt_s": 0.1, "position_targets": True}


def demonstration(number: int, length: int = 30, pictures: bool = False) -> Demonstration:
    """A smooth episode of its own course."""
    rng = np.random.default_rng([number, 7])
    times, start = np.arange(length + 1)[:, None] / 20, rng.uniform(-1, 1, (2, 3))
    course = (start[0] + np.sin(times * (1 + number % 5) + start[1])).astype(np.float32)
    arrays = {"observation": course[:-1], "action": course[1:, :2].copy()}
    final = {"observation": course[-1]}
    if pictures:
        frames = rng.integers(0, 256, (length + 1, 8, 9, 3), dtype=np.uint8)
        arrays["camera"], final["camera"] = frames[:-1], frames[-1]
    last = np.arange(length) == length - 1
    outcomes = {
        "reward": times[:-1, 0].astype(np.float32),
        "terminated": last & (number % 2 == 0),
        "truncated": last & (number % 2 == 1),
    }
    success = (True, False, None)[number % 3]
    task = ("push", "", "pull")[number % 3]
    return Demonstration(arrays, outcomes, final, success, task, f"demo_{number}")


def write(
    path: Path, episodes: Sequence[Demonstration], seeds: Sequence[int] | None = None, **more: Any
) -> Path:
    """A store of these episodes, with seeds 100, 101, … by default."""
    writer = DemonstrationWriter(path, ATTRIBUTES | more)
    for number, episode in enumerate(episodes):
        writer.append(episode, seeds[number] if seeds else 100 + number)
    writer.close()
    return path


def contents_of(path: Path) -> list[tuple[Any, ...]]:
    """Everything that a store holds of each episode, comparable with ==."""
    source = open_source(path)
    return [
        (
            seed,
            *(
                tuple((name, x.dtype.str, x.shape, x.tobytes()) for name, x in sorted(part.items()))
                for part in (e.arrays, e.outcomes, _as_arrays(e.final))
            ),
            (e.success, e.task, e.name),
        )
        for seed, e in zip(seeds_of(source), source.episodes(), strict=True)
    ]


def _as_arrays(final: Any) -> dict[str, np.ndarray]:
    return {key: np.asarray(value) for key, value in final.items()}
