"""Results of simulated sweeps, which measure the rules of recommendation."""

from dataclasses import dataclass
from typing import Annotated

from diffpolicy.checked import NOT_EMPTY

from .results import Metric, Name, Rate


@dataclass(frozen=True)
class Rule:
    """Size and power of a rule of recommendation."""

    size: Rate
    power: Rate


@dataclass(frozen=True, kw_only=True)
class SimulatedSweeps:
    """Size and power of the recommendation over simulated sweeps of one scenario."""

    name: Name
    losses: list[float]
    late: list[int]
    outcome: Metric
    episodes: int
    margin: float
    sweeps: int
    rules: dict[Name, Rule]


@dataclass(frozen=True, kw_only=True)
class Simulation:
    """Result of `bench_recommendation.py`, a list of scenarios."""

    rows: Annotated[list[SimulatedSweeps], NOT_EMPTY]
