"""Result of `diffpolicy replay`: recorded actions applied in open loop."""

from dataclasses import dataclass, field
from typing import Annotated, Any

from diffpolicy.checked import NOT_EMPTY

from .computer import Provenance
from .results import COUNT, RATE, Count, Name, Number, Positive, Rate, Seed


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Difference of one key of the observations in a replay from the recorded ones.

    first_tick: of any difference, in float32. far_tick: of a difference by more than 1 % of the
    range of a number over the replayed episodes, or of 255 for pictures. largest: in units;
    largest_share: of the range; None for numbers that are constant in the recording.
    """

    key: Name
    first_tick: Annotated[int | None, COUNT] = None
    far_tick: Annotated[int | None, COUNT] = None
    largest: Positive
    largest_share: Annotated[float | None, COUNT]


@dataclass(frozen=True, kw_only=True)
class ReplayedEpisode:
    """One episode of a store, replayed in open loop.

    seed: None if arrays of the store set the start. recorded_success: None if it is unknown.
    actions: of the recording; ticks: those applied before the environment ended the episode.
    """

    episode: Count
    seed: Seed | None
    success: Annotated[int, RATE]
    success_tick: Annotated[int | None, COUNT]
    recorded_success: Annotated[int | None, RATE]
    score: Number
    actions: Count
    ticks: Count
    differences: list[Difference]


@dataclass(frozen=True, kw_only=True)
class ReplayProvenance(Provenance):
    """Provenance of a replay.

    start: arrays that set the start of each episode, instead of a seed. left_out: number of
    episodes that have no seed.
    """

    store: str
    env: Name
    env_kwargs: dict[str, Any] = field(default_factory=dict)
    success_from: str | None
    success: str
    max_steps: Count
    start: list[str]
    left_out: Count


@dataclass(frozen=True, kw_only=True)
class ReplayResult:
    """Result of `diffpolicy replay`: one row for each episode."""

    provenance: ReplayProvenance
    episodes: Count
    successes: Count
    success_rate: Rate
    success_ci: tuple[Rate, Rate]
    rows: Annotated[list[ReplayedEpisode], NOT_EMPTY]
