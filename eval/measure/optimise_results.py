"""Candidates of `diffpolicy optimise` as a frozen dataclass."""

from dataclasses import dataclass

from .results import Count, Name, Number, Positive


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """Timesteps of a budget with their outcome.

    error: rms distance from the teacher's chunks, in normalised units. difference: of the mean from
    that of trailing, with its 95 % interval (None under 10 discordant pairs). chosen: stored.
    """

    name: Name
    ddim_steps: Count
    origin: Name
    timesteps: list[int]
    error: Positive
    mean: Number
    difference: Number
    difference_ci: tuple[float, float] | None
    chosen: bool = False
