"""Agreement of several data sets that are to become one store."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from diffpolicy.data.attributes import VERSION
from diffpolicy.data.demonstration import Demonstration, Source
from diffpolicy.errors import DiffpolicyError
from diffpolicy.stores.copying import IMPORTED, SOURCES

EQUAL = {  # attribute: its name in messages
    "env_id": "environment",
    "env_kwargs": "keyword arguments of the environment",
    "control_dt_s": "control period",
    "position_targets": "meaning of actions (position_targets)",
    "observation_keys": "parts of the observation",
    "camera": "camera",
}


@dataclass(frozen=True)
class Shared:
    """Optional arrays that every source has; notes: sentences about those that are left out."""

    outcomes: frozenset[str]
    final: frozenset[str]
    notes: tuple[str, ...]

    def of(self, episode: Demonstration) -> Demonstration:
        """The episode without arrays that other sources lack."""
        outcomes = {name: x for name, x in episode.outcomes.items() if name in self.outcomes}
        final = {name: x for name, x in episode.final.items() if name in self.final}
        return replace(episode, outcomes=outcomes, final=final)


def check_alike(sources: Sequence[Source]) -> Shared:
    """Raise DiffpolicyError unless attributes and rows agree; return the shared optional arrays.

    Rows are those of the first episode of each source.
    """
    first = sources[0]
    episodes = [next(iter(source.episodes())) for source in sources]
    for source, episode in zip(sources[1:], episodes[1:], strict=True):
        for name, words in EQUAL.items():
            _check_equal(
                words, first, first.attributes.get(name), source, source.attributes.get(name)
            )
        ours, theirs = _rows(episodes[0].arrays), _rows(episode.arrays)
        _check_equal("arrays", first, ", ".join(sorted(ours)), source, ", ".join(sorted(theirs)))
        for name, row in ours.items():
            _check_equal(f"rows of {name}", first, row, source, theirs[name])
    return Shared(
        frozenset.intersection(*(frozenset(e.outcomes) for e in episodes)),
        frozenset.intersection(*(frozenset(e.final) for e in episodes)),
        tuple(_left_out(sources, episodes)),
    )


def _rows(arrays: Mapping[str, np.ndarray]) -> dict[str, str]:
    return {name: f"{x.dtype} {list(x.shape[1:])}" for name, x in arrays.items()}


def _check_equal(words: str, first: Source, ours: Any, other: Source, theirs: Any) -> None:
    if ours != theirs:
        raise DiffpolicyError(
            f"the stores differ in their {words}: {_shown(ours)} in {first.path}, {_shown(theirs)} "
            f"in {other.path}; only data of one kind can be merged"
        )


def _shown(value: Any) -> str:
    return "not declared" if value is None else str(value)


def _left_out(sources: Sequence[Source], episodes: Sequence[Demonstration]) -> list[str]:
    """Sentences about optional arrays that some of the sources lack."""
    notes = []
    for kind in ("outcomes", "final"):
        found = [set(getattr(episode, kind)) for episode in episodes]
        for name in sorted(set.union(*found) - set.intersection(*found)):
            lacking = [
                str(s.path) for s, has in zip(sources, found, strict=True) if name not in has
            ]
            words = name if kind == "outcomes" else f"final observations of {name}"
            notes.append(f"left out: {words}, which {', '.join(lacking)} does not hold")
    return notes


def common(sources: Sequence[Source]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Attributes that all sources share, and for each source those that differ."""
    hidden = {VERSION, *IMPORTED}
    names = dict.fromkeys(name for source in sources for name in source.attributes)
    values = {name: [source.attributes.get(name) for source in sources] for name in names}
    equal = {
        name: found[0]
        for name, found in values.items()
        if name not in {*hidden, SOURCES} and all(value == found[0] for value in found)
    }
    differing = [
        {n: v for n, v in s.attributes.items() if n not in {*equal, *hidden}} for s in sources
    ]
    return equal, differing
