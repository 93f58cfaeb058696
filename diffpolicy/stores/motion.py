"""Second pass of `validate`: jumps, actions outside their space, near-duplicate episodes.

Shapes: E episodes, D numbers of a row other than pictures, the D_a of the action first.
"""

from dataclasses import dataclass, field

import numpy as np

from diffpolicy.data import facts
from diffpolicy.data.demonstration import Demonstration
from diffpolicy.stores.content import Frozen
from diffpolicy.stores.findings import Findings, Place
from diffpolicy.stores.space import Limits
from diffpolicy.stores.vectors import final_vector, labels, vectors

MOST_COMPARED = 10_000  # episodes, evenly spaced, that are compared with each other
ROUNDING = 0.01  # of the range of an action: excess up to this is rounding
MOVED = 0.1  # of a range, while pictures stand still


@dataclass
class Motion:
    """Changes and courses of the episodes so far, against the ranges [D] of all."""

    findings: Findings
    low: np.ndarray
    span: np.ndarray
    episodes: int  # E
    limits: Limits | None
    names: list[str] = field(default_factory=list)
    places: list[Place] = field(default_factory=list)
    largest: list[np.ndarray] = field(default_factory=list)
    steps: list[np.ndarray] = field(default_factory=list)
    to_final: list[np.ndarray] = field(default_factory=list)
    usual: list[np.ndarray] = field(default_factory=list)
    compared: list[Place] = field(default_factory=list)
    outlines: list[np.ndarray] = field(default_factory=list)

    def see(self, episode: Demonstration, place: Place) -> None:
        """Measure one undamaged episode."""
        values = vectors(episode)
        self.names = self.names or labels(episode.arrays)
        shares = facts.changes(values, self.span)
        if self.limits:
            self._actions(values[:, : len(self.limits.low)], place, self.limits)
        self.places.append(place)
        self.usual.append(facts.usual_change(shares))
        none = np.zeros(len(self.span))
        self.largest.append(shares.max(axis=0) if len(shares) else none)
        self.steps.append(shares.argmax(axis=0) + 1 if len(shares) else none)
        final = final_vector(episode)
        last = none if final is None else facts.changes(np.stack([values[-1], final]), self.span)[0]
        self.to_final.append(last)
        if place.episode % -(-self.episodes // MOST_COMPARED) == 0:
            self.compared.append(place)
            self.outlines.append(facts.outline(values))

    def _actions(self, actions: np.ndarray, place: Place, limits: Limits) -> None:
        size = actions.shape[1]
        room = ROUNDING * self.span[:size]
        outside = (actions < limits.low - room) | (actions > limits.high + room)
        if outside.any():
            step, dimension = (int(i) for i in np.argwhere(outside)[0])
            text = (
                f"action {dimension} is {actions[step, dimension]:.4g}, outside the space of "
                f"{limits.env_id}, [{limits.low[dimension]:.4g}, {limits.high[dimension]:.4g}], "
                f"in {int(outside.any(axis=1).sum()):,} steps"
            )
            at = Place(place.episode, place.first_row, step)
            self.findings.warn("actions outside their space", text, at)

    def conclude(self, frozen: list[Frozen]) -> None:
        """Add the findings that need all episodes."""
        if self.places:
            self._jumps()
            self._duplicates()
        for run in frozen:
            moved = np.where(self.span > 0, run.moved / np.where(self.span > 0, self.span, 1), 0)
            if moved.max(initial=0) > MOVED:
                number = self.names[int(moved.argmax())]
                text = (
                    f"{run.name} stands still for {run.rows:,} steps, while {number} moves by "
                    f"{moved.max():.0%} of its range"
                )
                self.findings.warn("frozen pictures", text, run.place)

    def _jumps(self) -> None:
        """Observations only: an action may change at once."""
        usual = np.stack(self.usual)
        known = ~np.isnan(usual).all(axis=0)
        median = np.full(usual.shape[1], np.nan)
        median[known] = np.nanmedian(usual[:, known], axis=0)
        largest = np.stack(self.largest)
        jumps = facts.jumps(largest, median)
        jumps[:, [name.partition("[")[0] == "action" for name in self.names]] = False
        for i, number in np.argwhere(jumps):
            place, step = self.places[i], int(self.steps[i][number])
            text = (
                f"{self.names[number]} jumps by {largest[i, number]:.0%} of its range; "
                f"{median[number]:.2g} is usual"
            )
            self.findings.warn("jumps", text, Place(place.episode, place.first_row, step))
        for place, change in zip(self.places, self.to_final, strict=True):
            if (far := facts.jumps(change[None], median)[0]).any():
                number = int(np.where(far, change, 0).argmax())
                text = (
                    f"the final {self.names[number]} is {change[number]:.0%} of its range from the "
                    "last row; it may be of the next episode"
                )
                self.findings.warn("final", text, place)

    def _duplicates(self) -> None:
        found = facts.nearest(np.stack(self.outlines), self.low, self.span)
        for i, j, distance in facts.near_pairs(*found):
            text = (
                f"it nearly equals episode {self.compared[i].episode} ({distance:.2%} of the "
                "ranges apart)"
            )
            self.findings.warn("near duplicates", text, self.compared[j])
