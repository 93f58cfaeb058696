"""Layout of differences with their 95 % intervals, as places in px."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ..measure.comparison_results import RowDifference
from .axes import Axis, Tick, around

LEFT, RIGHT, TOP, PITCH = 260, 690, 12, 22  # px
TONES = {"better": "good", "worse": "none", "worse-within-margin": "none"}


class Difference(NamedTuple):
    """A row: its place, the ends of its interval, and its tone."""

    name: str
    x: float
    y: float
    low: float
    high: float
    tone: str


@dataclass(frozen=True)
class DifferencesPlot:
    """A line for each row; margin: the place of a loss of it."""

    rows: list[Difference]
    bottom: float
    ticks: list[Tick]
    zero: float
    margin: float | None
    note: str
    spoken: str


def differences_plot(
    rows: Sequence[RowDifference], names: Sequence[str], margin: float | None, title: str
) -> DifferencesPlot:
    """The layout of named rows."""
    ends = [end for row in rows for end in (row.difference, *(row.interval or ()))]
    x = Axis(*around([*ends, 0.0, *([-margin] if margin else [])]), LEFT, RIGHT)
    found = []
    for i, (row, name) in enumerate(zip(rows, names, strict=True)):
        low, high = row.interval or (row.difference, row.difference)
        tone = TONES.get(row.verdict, "c0")
        y = TOP + PITCH * i + PITCH / 2
        found.append(Difference(name, x(row.difference), y, x(low), x(high), tone))
    dotted = "" if margin is None else f"; dotted: a loss of the margin, {margin:g}"
    return DifferencesPlot(
        rows=found,
        bottom=TOP + PITCH * len(rows) + 4,
        ticks=x.ticks(),
        zero=x(0.0),
        margin=None if margin is None else x(-margin),
        note=f"difference with its 95 % interval{dotted}",
        spoken=f"{title}; {len(rows)} differences with their 95 % intervals, as in the table",
    )
