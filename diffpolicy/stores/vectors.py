"""The numbers of an episode other than pictures, joined to one vector for each row.

Shapes: T rows of an episode, D numbers of the actions and the observed vectors, actions first.
"""

from collections.abc import Mapping

import numpy as np

from diffpolicy.data.demonstration import Demonstration, Source
from diffpolicy.specification import ACTION, picture_shape
from diffpolicy.terminal.progress import progress_bar


def names_of(arrays: Mapping[str, np.ndarray]) -> list[str]:
    """Names of the vectors, the actions first."""
    others = sorted(n for n, x in arrays.items() if n != ACTION and not picture_shape(x.shape[1:]))
    return [ACTION, *others]


def vectors(episode: Demonstration) -> np.ndarray:
    """[T, D] float64."""
    arrays = episode.arrays
    flat = [np.reshape(arrays[name], (len(episode), -1)) for name in names_of(arrays)]
    return np.concatenate(flat, axis=1).astype(np.float64)


def final_vector(episode: Demonstration) -> np.ndarray | None:
    """[D] float64 after the last action, with that action; None without final observations."""
    first, *observed = names_of(episode.arrays)
    if not observed or any(name not in episode.final for name in observed):
        return None
    parts = [episode.arrays[first][-1], *(episode.final[name] for name in observed)]
    return np.concatenate([np.ravel(part) for part in parts]).astype(np.float64)


def labels(arrays: Mapping[str, np.ndarray]) -> list[str]:
    """Name of each of the D numbers, such as action[0]."""
    found = []
    for name in names_of(arrays):
        size = int(np.prod(arrays[name].shape[1:]))
        found += [name] if size == 1 else [f"{name}[{i}]" for i in range(size)]
    return found


def spans(source: Source) -> np.ndarray:
    """Range [D] of each number over all episodes, from one pass over the source."""
    low = high = None
    for episode in progress_bar(
        source.episodes(), "ranges", len(source), unit="episode", leave=False
    ):
        values = vectors(episode)
        first, last = values.min(axis=0), values.max(axis=0)
        low = first if low is None else np.minimum(low, first)
        high = last if high is None else np.maximum(high, last)
    return np.zeros(0) if low is None or high is None else high - low
