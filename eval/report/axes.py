"""Axes of inline SVG: data to pixels, and their ticks."""

from collections.abc import Iterable
from math import log10
from typing import NamedTuple

from matplotlib.ticker import LogLocator, MaxNLocator


class Tick(NamedTuple):
    """A label and its place in px."""

    at: float
    label: str


class Axis(NamedTuple):
    """Linear or logarithmic axis from `low` to `high` in data, at `start` to `end` in px."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """The place of a value in px; beyond the axis it is at its end."""
        low, high, at = self.low, self.high, min(max(value, self.low), self.high)
        if self.log:
            low, high, at = log10(low), log10(high), log10(at)
        share = (at - low) / (high - low)
        return round(self.start + share * (self.end - self.start), 1)

    def ticks(self, most: int = 5) -> list[Tick]:
        """Round values on the axis: 1 and 3 of each decade of a logarithmic one."""
        if self.log:
            decades = log10(self.high / self.low)
            subs = (1.0, 3.0) if decades < 4 else (1.0,)
            values = LogLocator(subs=subs, numticks=99).tick_values(self.low, self.high)
        else:
            values = MaxNLocator(most, steps=[1, 2, 5, 10]).tick_values(self.low, self.high)
        inside = [
            float(v)
            for v in values
            if self.low <= v * (1 + 1e-9) and v <= self.high * (1 + 1e-9) + 1e-12
        ]
        return [Tick(self(value), f"{round(value, 9):g}") for value in inside]


def around(values: Iterable[float], log: bool = False) -> tuple[float, float]:
    """Ends of an axis that leaves a little room around the values."""
    found = list(values)
    low, high = min(found), max(found)
    if log:
        return low / 1.5, high * 1.5
    room = 0.08 * (high - low) or 0.5
    return low - room, high + room
