"""One episode of demonstrations, as every format gives it and every store takes it.

Shapes: T actions of the episode.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from diffpolicy.errors import DiffpolicyError

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
    that a store cannot hold, or that is in doubt.
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


def as_outcome(name: str, values: np.ndarray) -> np.ndarray:
    """Values of one of `OUTCOMES` in its type; rewards in float64 if float32 would change them."""
    kind = OUTCOME_TYPES[name]
    if name == REWARD and not np.can_cast(values.dtype, kind):
        kind = np.float64
    return values.astype(kind, copy=False)


def fits(given: np.dtype, stored: np.dtype) -> bool:
    """True if nothing is lost in the stored type but the precision of floats."""
    return np.can_cast(given, stored, "same_kind" if stored.kind == "f" else "safe")


def check_alike(
    episode: Demonstration, first: Mapping[str, Any], path: Path, name: str = "this episode"
) -> None:
    """Raise DiffpolicyError unless the episode has the first one's arrays, in rows of their shape.

    first: arrays by name, outcomes too. path and name: of the data and the episode in messages.
    """
    arrays = {**episode.arrays, **episode.outcomes}
    found = {key: values.shape[1:] for key, values in arrays.items()}
    expected = {key: array.shape[1:] for key, array in first.items()}
    if found != expected:
        raise DiffpolicyError(f"{path} holds rows of {expected}; {name} has rows of {found}")
    for key, array in first.items():
        if not fits(arrays[key].dtype, array.dtype):
            raise DiffpolicyError(
                f"{path} holds {key!r} as {array.dtype}; {name} has {arrays[key].dtype}; give "
                "every episode in one type"
            )


def alike(source: Source) -> Iterator[Demonstration]:
    """Episodes of a source. Raises DiffpolicyError if one has other arrays than the first."""
    first: Mapping[str, Any] = {}
    for number, episode in enumerate(source.episodes()):
        arrays = {**episode.arrays, **episode.outcomes}
        first = first or {key: np.empty((0, *x.shape[1:]), x.dtype) for key, x in arrays.items()}
        check_alike(episode, first, source.path, f"episode {number}")
        yield episode


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
