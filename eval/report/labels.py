"""Places of labels beside marks, so that they cover neither marks nor each other."""

from collections.abc import Sequence
from typing import NamedTuple

HEIGHT = 11  # px of a label
OFFSETS = tuple(
    (dx, dy) for step in (13, 19, 25) for dx in (0, step, -step) for dy in (-step, step)
)  # px, the nearest first


class Box(NamedTuple):
    """A rectangle by its middle and half its sides, in px."""

    x: float
    y: float
    half_width: float
    half_height: float

    def overlaps(self, other: "Box") -> bool:
        """True if the two have an area in common."""
        wide = abs(self.x - other.x) < self.half_width + other.half_width
        return wide and abs(self.y - other.y) < self.half_height + other.half_height


def free_place(at: tuple[float, float], width: float, taken: Sequence[Box]) -> Box:
    """The first place of a label around a mark that is free, else the one above it."""
    places = [Box(at[0] + dx, at[1] + dy, width / 2, HEIGHT / 2) for dx, dy in OFFSETS]
    free = (box for box in places if not any(box.overlaps(other) for other in taken))
    return next(free, places[0])
