"""Statistics of a stream of episodes, from which the row of a result is made.

An episode is reduced when it ends: outcomes, counts by whole ticks, sums, and its numbers that are
not whole at eight bytes each. So ten thousand episodes take megabytes, in any order of their ends.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from diffpolicy.control.episode import Episode

Numbers = Literal["seam_jumps", "seam_jerks", "latency_ms", "late_ms"]
NUMBERS: tuple[Numbers, ...] = ("seam_jumps", "seam_jerks", "latency_ms", "late_ms")


@dataclass
class Tally:
    """Statistics of one episode for each seed [E].

    success, score [E], success_tick and failures: in the order of the seeds; a failure by its
    place. ages, delays, early: how often each number of ticks occurred; early: the expected delay
    less the true one. observed, far, lowest, highest [D_o]: as in Episode, over all of them.
    """

    seeds: Sequence[int]
    success: np.ndarray = field(init=False)
    score: np.ndarray = field(init=False)
    success_tick: list[int | None] = field(init=False)
    failures: dict[int, str] = field(default_factory=dict)
    ages: Counter[int] = field(default_factory=Counter)
    delays: Counter[int] = field(default_factory=Counter)
    early: Counter[int] = field(default_factory=Counter)
    evaluations: Counter[int] = field(default_factory=Counter)
    starved_ticks: int = 0
    missed_ticks: int = 0
    replans: int = 0
    observed: int = 0
    far: np.ndarray = field(default_factory=lambda: np.zeros(0))
    lowest: np.ndarray = field(default_factory=lambda: np.zeros(0))
    highest: np.ndarray = field(default_factory=lambda: np.zeros(0))

    def __post_init__(self):
        count = len(self.seeds)
        self.success, self.score = np.zeros(count, bool), np.zeros(count)
        self.success_tick = [None] * count
        self._open = {seed: place for place, seed in enumerate(self.seeds)}
        self._numbers: dict[Numbers, list[bytes]] = {name: [b""] * count for name in NUMBERS}

    @property
    def left(self) -> list[int]:
        """Seeds whose episode has not been added."""
        return list(self._open)

    def add(self, episode: Episode) -> None:
        """Count an episode; a seed counts once, and seeds of others do not."""
        place = self._open.pop(episode.seed, None)
        if place is None:
            return
        self._add_outcome(place, episode)
        self.ages.update(episode.ages)
        self.delays.update(episode.delay_ticks)
        pairs = zip(episode.delay_ticks, episode.expected_ticks, strict=True)
        self.early.update(expected - delay for delay, expected in pairs)
        self.evaluations.update(episode.evaluations)
        self.starved_ticks += episode.starved_ticks
        self.missed_ticks += episode.missed_ticks
        self.replans += episode.replans
        if episode.observed:
            self._add_range(episode)
        for name, of_all in self._numbers.items():
            of_all[place] = np.array(getattr(episode, name), float).tobytes()

    def numbers(self, name: Numbers) -> np.ndarray:
        """The numbers of all episodes, in the order of the seeds."""
        return np.frombuffer(b"".join(self._numbers[name]))

    def _add_outcome(self, place: int, episode: Episode) -> None:
        self.success[place], self.score[place] = episode.success, episode.score
        self.success_tick[place] = episode.success_tick
        if episode.failure:
            self.failures[place] = episode.failure

    def _add_range(self, episode: Episode) -> None:
        far, low, high = map(np.array, (episode.far, episode.lowest, episode.highest))
        if self.observed:
            far, low = self.far + far, np.minimum(self.lowest, low)
            high = np.maximum(self.highest, high)
        self.observed += episode.observed
        self.far, self.lowest, self.highest = far, low, high


def tally_of(episodes: Iterable[Episode]) -> Tally:
    """Statistics of given episodes."""
    found = list(episodes)
    tally = Tally([episode.seed for episode in found])
    for episode in found:
        tally.add(episode)
    return tally


def mean_of(counts: Mapping[int, int]) -> float | None:
    """Mean of whole numbers, from how often each occurred; None for none."""
    count = sum(counts.values())
    return sum(value * times for value, times in counts.items()) / count if count else None


def median_of(counts: Mapping[int, int]) -> float | None:
    """Exact median of whole numbers, from how often each occurred; None for none."""
    values = sorted(counts)
    ends = np.cumsum([counts[value] for value in values])
    if not values:
        return None
    middle = np.searchsorted(ends, [(ends[-1] - 1) // 2, ends[-1] // 2], side="right")
    return float(np.mean([values[i] for i in middle]))
