"""Timeline of one episode: its actions, their ages, its chunks and its starved ticks."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np

from diffpolicy.checked import NOT_EMPTY
from diffpolicy.control.episode import Episode
from diffpolicy.errors import DiffpolicyError

from .results import Count, Name, Number, Seed

MOST_TICKS, MOST_DIMENSIONS = 400, 8  # of a stored timeline


@dataclass(frozen=True, kw_only=True)
class Timeline:
    """The first ticks [t] of an episode, of `ticks` in all, on a simulated or paused clock.

    actions [t, D_a]: as applied, in units of the environment, of `dimensions` in all. ages [t]: of
    the actions in ticks, None where the neutral one was applied. chunks: ticks of the observation
    and of the arrival of each chunk that arrived; the first one is free without a cold start.
    """

    budget: Name
    clock: Name
    seed: Seed
    success: bool
    success_tick: Count | None = None
    ticks: Count
    dimensions: Count
    actions: Annotated[list[list[Number]], NOT_EMPTY]
    ages: list[Count | None]
    chunks: list[tuple[Count, Count]]

    def __post_init__(self):
        if len(self.ages) != len(self.actions) or len({len(a) for a in self.actions}) != 1:
            raise DiffpolicyError("expected one age and equally many numbers for each action")


def timeline_of(
    budget: str, clock: str, episode: Episode, applied: Sequence[np.ndarray]
) -> Timeline | None:
    """The timeline of an episode that applied these actions [ticks, D_a]; None without any."""
    actions = np.array(applied[:MOST_TICKS], float)
    if not len(actions) or not np.isfinite(actions).all():
        return None
    return Timeline(
        budget=budget,
        clock=clock,
        seed=episode.seed,
        success=episode.success,
        success_tick=episode.success_tick,
        ticks=episode.ticks,
        dimensions=actions.shape[1],
        actions=[[float(f"{x:.4g}") for x in row] for row in actions[:, :MOST_DIMENSIONS].tolist()],
        ages=episode.ages_by_tick[: len(actions)],
        chunks=[chunk for chunk in chunks_of(episode) if chunk[1] < len(actions)],
    )


def chunks_of(episode: Episode) -> list[tuple[int, int]]:
    """Ticks of the observation and of the arrival of each chunk, also of one after the end.

    A chunk that was waited for, without a cold start, arrived at the tick of its observation.
    """
    waited_for = episode.replans - len(episode.delay_ticks)
    delays = [*[0] * waited_for, *episode.delay_ticks]
    return [(tick, tick + delay) for tick, delay in zip(episode.begun, delays, strict=False)]
