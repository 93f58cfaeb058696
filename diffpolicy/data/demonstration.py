"""One episode of demonstrations, as every format gives it and every store takes it.

Shapes: T actions of the episode.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

REWARD, TERMINATED, TRUNCATED = OUTCOMES = ("reward", "terminated", "truncated")
BATCH_BYTES = 2**25
OUTCOME_TYPES = {REWARD: np.float32, TERMINATED: np.bool_, TRUNCATED: np.bool_}


@dataclass(frozen=True)
class Demonstration:
    """One episode: T actions, each with the observation before it.

    arrays: {key: [T, …]}, the actions under "action". outcomes: those of `OUTCOMES` that are known,
    [T]: row t belongs to action t. final: {key: […]}, the observation after the last action.
    success: of the episode. task: instruction in words. name: of the episode in its source.
    None, or empty, stands for unknown.
    """

    arrays: Mapping[str, np.ndarray]
    outcomes: Mapping[str, np.ndarray] = field(default_factory=dict)
    final: Mapping[str, np.ndarray] = field(default_factory=dict)
    success: bool | None = None
    task: str = ""
    name: str = ""

    def __len__(self) -> int:
        """T."""
        return len(self.arrays["action"])

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        kinds = self.arrays, self.outcomes, self.final
        return sum(values.nbytes for kind in kinds for values in kind.values())


class Source(Protocol):
    """Demonstrations in one format, opened and checked; episodes are read when they are asked for.

    attributes: those of `StoreAttributes` that the source declares (env_id, env_kwargs,
    control_dt_s, position_targets), and nothing that it does not. notes: sentences about everything
    that a store cannot hold, or that the source does not say.
    """

    format: str
    path: Path
    attributes: Mapping[str, Any]
    notes: tuple[str, ...]

    def __len__(self) -> int:
        """E, the number of episodes."""
        ...

    def episodes(self, start: int = 0) -> Iterator[Demonstration]:
        """Episodes from number `start` on, in the order of the source.

        Raises DiffpolicyError for damaged content.
        """
        ...


def batches(
    episodes: Iterable[Demonstration], most_bytes: int = BATCH_BYTES
) -> Iterator[list[Demonstration]]:
    """Consecutive episodes in lists that reach so many bytes, for `DemonstrationWriter.extend`."""
    batch, size = [], 0
    for episode in episodes:
        batch.append(episode)
        size += episode.nbytes
        if size >= most_bytes:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
