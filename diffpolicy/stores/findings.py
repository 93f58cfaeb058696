"""Findings of `validate`: errors and warnings, each one line with its episode and step."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Literal

MOST_LINES = 10  # printed of each kind of finding

Kind = Literal["error", "warning"]


@dataclass(frozen=True)
class Place:
    """A step of an episode, both from 0; first_row: of the episode in the whole data set."""

    episode: int
    first_row: int
    step: int | None = None

    def __str__(self) -> str:
        if self.step is None:
            return f"episode {self.episode}"
        return f"episode {self.episode}, step {self.step} (row {self.first_row + self.step})"


@dataclass
class Findings:
    """Lines of each kind and topic, and their numbers; only the first of a topic are kept."""

    lines: dict[tuple[Kind, str], list[str]] = field(default_factory=dict)
    counts: Counter[tuple[Kind, str]] = field(default_factory=Counter)
    damaged: set[int] = field(default_factory=set)  # episodes with an error

    def error(self, topic: str, text: str, place: Place | None = None) -> None:
        """Add something that makes the data unusable or false."""
        if place:
            self.damaged.add(place.episode)
        self._add(("error", topic), text, place)

    def warn(self, topic: str, text: str, place: Place | None = None) -> None:
        """Add something that a person should look at."""
        self._add(("warning", topic), text, place)

    def total(self, kind: Kind) -> int:
        """Number of findings of a kind."""
        return sum(count for (found, _), count in self.counts.items() if found == kind)

    def show(self) -> None:
        """Print the errors, then the warnings."""
        for key, lines in sorted(self.lines.items(), key=lambda item: item[0][0]):
            for line in lines:
                print(line)
            if more := self.counts[key] - len(lines):
                print(f"{key[0]}: {more:,} more like this ({key[1]})")

    def _add(self, key: tuple[Kind, str], text: str, place: Place | None) -> None:
        lines = self.lines.setdefault(key, [])
        self.counts[key] += 1
        if len(lines) < MOST_LINES:
            lines.append(f"{key[0]}: {f'{place}: ' if place else ''}{text}")
