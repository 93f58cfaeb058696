"""Parts of every reader: an opened source, and the checks that make an episode of its arrays.

Shapes: T actions of the episode; observations have T rows, or T + 1 with the one after the last.
"""

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from diffpolicy.data.attributes import READ, attribute
from diffpolicy.data.demonstration import OUTCOMES, Demonstration, as_outcome
from diffpolicy.data.formats.options import OptionNeeded
from diffpolicy.errors import DiffpolicyError
from diffpolicy.specification import ACTION, FLAT

LONGEST_NAME = 200
LARGEST_EPISODE_BYTES = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 4
NAME = re.compile(r"[^/\x00-\x1f\x7f]+(/[^/\x00-\x1f\x7f]+)*")  # parts between single slashes


@dataclass(frozen=True)
class Opened:
    """A `Source` whose episodes one function reads.

    count: E. read: function of the number of the first episode that gives the episodes from it on.
    """

    format: str
    path: Path
    count: int
    read: Callable[[int], Iterator[Demonstration]]
    attributes: Mapping[str, Any]
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        """E."""
        return self.count

    def episodes(self, start: int = 0) -> Iterator[Demonstration]:
        """Episodes from number `start` on."""
        return self.read(start)


def demonstration(
    what: str,
    observations: Mapping[str, np.ndarray],
    actions: np.ndarray,
    outcomes: Mapping[str, np.ndarray],
    **known: Any,
) -> Demonstration:
    """Check the arrays of one episode, and split T + 1 observations into T rows and the final one.

    what: name of the episode in messages. known: `final` of T observations, success, task and name.
    """
    steps = len(actions)
    if not steps:
        raise DiffpolicyError(f"{what} has no steps; expected at least one action")
    seen = {key: len(values) for key, values in observations.items()}
    if not seen or set(seen.values()) - {steps, steps + 1} or len(set(seen.values())) != 1:
        raise DiffpolicyError(f"{what} has {steps} actions and observations of {seen} rows")
    if any(len(values) != steps for values in outcomes.values()):
        found = {key: len(values) for key, values in outcomes.items()}
        raise DiffpolicyError(f"{what} has {steps} actions and outcomes of {found} rows")
    if steps + 1 in seen.values():
        known["final"] = {key: values[steps] for key, values in observations.items()}
    arrays = {key: values[:steps] for key, values in observations.items()}
    arrays = {**arrays, ACTION: actions}
    if any(0 in values.shape[1:] for values in arrays.values()):
        raise DiffpolicyError(f"{what} has rows without numbers")
    outcomes = {key: as_outcome(key, np.asarray(values)) for key, values in outcomes.items()}
    return Demonstration(arrays, outcomes, **known)


def check_episode_bytes(needed: int, what: object) -> None:
    """Raise DiffpolicyError for an array of one episode beyond a quarter of the memory."""
    if needed > LARGEST_EPISODE_BYTES:
        raise DiffpolicyError(
            f"{what} takes {needed / 2**30:,.1f} GiB for one episode, more than a quarter of this "
            "machine's memory"
        )


def check_names(names: Iterable[str], what: str) -> None:
    """Refuse observation names that a store cannot have, or uses for something else."""
    for name in names:
        parts = name.split("/")
        hidden = any(part.startswith(".") for part in parts)
        if not NAME.fullmatch(name) or hidden or len(name) > LONGEST_NAME:
            raise DiffpolicyError(f"{what} has an observation named {name[:80]!r}; rename it")
        if parts[0] in (ACTION, *OUTCOMES):
            raise OptionNeeded(
                f"{what} has an observation named {name!r}, a name that stores use for something "
                "else; rename it, or leave it out with --skip"
            )


def kept_names(names: Sequence[str], skip: Sequence[str], what: str) -> list[str]:
    """Observation names without those to skip, checked. Raises DiffpolicyError for unknown ones."""
    for name in skip:
        if name not in names:
            raise DiffpolicyError(f"{what} has no observation {name!r} to skip; it has: {names}")
    kept = [name for name in names if name not in skip]
    check_names(kept, what)
    if not kept:
        raise DiffpolicyError(f"{what} has no observation that is not skipped")
    return kept


def flat_or_named(names: Sequence[str], single: bool) -> dict[str, str]:
    """{name in the source: name in a store}: FLAT for a source with one array, without a name."""
    return {name: FLAT if single else name for name in names}


def declared(own: Any) -> dict[str, Any]:
    """Attributes that an export of this project kept besides, checked."""
    found = own if isinstance(own, dict) else {}
    return {name: attribute(found, name) for name in READ if name in found}


def without_place(attributes: Mapping[str, Any]) -> list[str]:
    """Sentence about the attributes of a store that exports do not keep."""
    left = [name for name in attributes if name not in READ]
    return [f"attributes of the store: {', '.join(left)}"] if left else []
