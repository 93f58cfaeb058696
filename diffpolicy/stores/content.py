"""First pass of `validate`: the arrays, outcomes, final observations and hashes of each episode.

Shapes: T rows of an episode, D numbers of a row other than pictures (see vectors.py).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from diffpolicy.data import facts
from diffpolicy.data.demonstration import TERMINATED, TRUNCATED, Demonstration
from diffpolicy.data.episode_facts import content_hash
from diffpolicy.specification import ACTION, picture_shape
from diffpolicy.stores.findings import Findings, Place
from diffpolicy.stores.vectors import vectors

FROZEN_ROWS = 10  # equal pictures in a row


@dataclass(frozen=True)
class Frozen:
    """A run of equal pictures; moved [D]: range of each number during it."""

    place: Place
    name: str
    rows: int
    moved: np.ndarray


@dataclass
class Content:
    """Sums over the episodes so far.

    low, high [D]: of the numbers. frozen: the longest run of equal pictures of each camera and
    episode, if it has `FROZEN_ROWS` rows or more.
    """

    findings: Findings
    hashes: np.ndarray | None  # [E, 16], as stored
    rows: int = 0
    episodes: int = 0
    first: Demonstration | None = None
    low: np.ndarray | None = None
    high: np.ndarray | None = None
    frozen: list[Frozen] = field(default_factory=list)
    success: set[bool | None] = field(default_factory=set)

    def see(self, episode: Demonstration) -> None:
        """Check the next episode."""
        place = Place(self.episodes, self.rows)
        self.first = self.first or episode
        if self._alike(episode, place) and self._finite(episode, place):
            self._outcomes(episode, place)
            self._hash(episode, place)
            self._measure(episode, place)
        self.success.add(episode.success)
        self.episodes += 1
        self.rows += len(episode)

    def _alike(self, episode: Demonstration, place: Place) -> bool:
        """The arrays have one length, and the rows of the first episode."""
        findings, first = self.findings, self.first or episode
        before = findings.total("error")
        if ACTION not in episode.arrays or not len(episode):
            findings.error("empty", "no actions", place)
            return False
        for name, values in {**episode.arrays, **episode.outcomes}.items():
            if len(values) != len(episode):
                text = f"{name} has {len(values):,} rows for {len(episode):,} actions"
                findings.error("length", text, place)
            if values.dtype.kind not in "fiub":
                findings.error("type", f"{name} holds no numbers but {values.dtype}", place)
        for kind in ("arrays", "outcomes", "final"):
            ours, theirs = _rows(getattr(episode, kind)), _rows(getattr(first, kind))
            if kind != "final":
                ours, theirs = ({n: (t, s[1:]) for n, (t, s) in x.items()} for x in (ours, theirs))
            if ours != theirs:
                text = f"its {kind} are {_listed(ours)}; those of episode 0 {_listed(theirs)}"
                findings.error("form", text, place)
        for key, value in episode.final.items():
            rows = episode.arrays.get(key)
            if rows is not None and np.shape(value) != rows.shape[1:]:
                text = f"the final {key} has the shape {list(np.shape(value))}"
                findings.error("final", f"{text}, rows of it {list(rows.shape[1:])}", place)
        return findings.total("error") == before

    def _finite(self, episode: Demonstration, place: Place) -> bool:
        found = True
        for name, values in {**episode.arrays, **episode.outcomes}.items():
            finite = np.isfinite(values) if values.dtype.kind == "f" else None
            if finite is not None and not finite.all():
                step = int(np.argwhere(~finite)[0, 0])
                text = f"{name} is not finite (NaN or inf)"
                self.findings.error("finite", text, Place(place.episode, place.first_row, step))
                found = False
        for key, value in episode.final.items():
            if not np.isfinite(value).all():
                self.findings.error("finite", f"the final {key} is not finite", place)
                found = False
        return found

    def _outcomes(self, episode: Demonstration, place: Place) -> None:
        for name in (TERMINATED, TRUNCATED):
            early = np.flatnonzero(episode.outcomes.get(name, np.zeros(1))[:-1])
            if len(early):
                at = Place(place.episode, place.first_row, int(early[0]))
                text = f"{name} before the last step, {len(early):,} times"
                self.findings.error("early end", text, at)
        ended = [bool(x[-1]) for n, x in episode.outcomes.items() if n in (TERMINATED, TRUNCATED)]
        if ended and not any(ended):
            text = "neither terminated nor truncated at its last step"
            self.findings.warn("open end", text, place)

    def _hash(self, episode: Demonstration, place: Place) -> None:
        if self.hashes is not None and self.hashes[place.episode].tobytes() != content_hash(
            episode
        ):
            text = "its arrays differ from those that were written (hash)"
            self.findings.error("hash", text, place)

    def _measure(self, episode: Demonstration, place: Place) -> None:
        values = vectors(episode)
        low, high = values.min(axis=0), values.max(axis=0)
        self.low = low if self.low is None else np.minimum(self.low, low)
        self.high = high if self.high is None else np.maximum(self.high, high)
        if len(episode) == 1:
            self.findings.warn("short", "one step", place)
        for name, pictures in episode.arrays.items():
            if name != ACTION and picture_shape(pictures.shape[1:]):
                start, end = facts.longest_run(facts.repeats(pictures))
                if end - start + 1 >= FROZEN_ROWS:
                    moved = np.ptp(values[start - 1 : end], axis=0)
                    at = Place(place.episode, place.first_row, start - 1)
                    self.frozen.append(Frozen(at, name, end - start + 1, moved))


def _rows(arrays: Mapping[str, np.ndarray]) -> dict[str, tuple[str, tuple[int, ...]]]:
    return {name: (str(np.asarray(x).dtype), np.shape(x)) for name, x in arrays.items()}


def _listed(rows: Mapping[str, tuple[str, tuple[int, ...]]]) -> str:
    return (
        ", ".join(f"{name} {kind} {list(shape)}" for name, (kind, shape) in rows.items()) or "none"
    )
