"""Comparisons of budgets, and the decision for one: parts of results."""

from dataclasses import dataclass
from typing import Literal

from .results import Count, Metric, Name, Number

Verdict = Literal[
    "recommended",
    "below-floor",  # the best budget is below the floor
    "no-budget-in-time",  # no budget meets the deadline
    "worse",  # the best budget in time is worse than its rival
    "not-established",  # there are enough episodes for equals
    "too-few-episodes",
    "disturbed",  # withheld: other processes disturbed the latencies
]


@dataclass(frozen=True)
class Comparison:
    """Difference reference - other of means, with its tests.

    difference_ci: bootstrap 95 % interval, None under 10 discordant pairs. p_noninferior: against
    "the reference loses the margin or more", not adjusted for the number of budgets. p_mcnemar:
    against "both succeed equally often", for paired success only.
    """

    reference: Name
    other: Name
    difference: float
    difference_ci: tuple[float, float] | None
    p_noninferior: float
    p_mcnemar: float | None


@dataclass(frozen=True, kw_only=True)
class AgainstDrop:
    """Difference name - reference of means at one pattern of delays, over the same episodes.

    reference: the same budget where late chunks lose their head (`--late drop`). delays: the
    `latency_source` of both rows. difference_ci and p_mcnemar as in `Comparison`.
    """

    delays: Name
    name: Name
    reference: Name
    metric: Metric
    difference: Number
    difference_ci: tuple[Number, Number] | None
    p_mcnemar: float | None


@dataclass(frozen=True)
class BudgetMean:
    """A budget and its success rate or mean score."""

    name: Name
    mean: float


@dataclass(frozen=True, kw_only=True)
class SharedTicks:
    """A sufficient budget that takes as many whole ticks (⌈p95/dt⌉) as a better sufficient one.

    interval: 95 % interval of the difference better - budget.
    """

    budget: BudgetMean
    better: BudgetMean
    ticks: Count
    interval: tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class OverSeeds:
    """The difference chosen - rival over S training seeds, each with the same episodes.

    rival: the best other budget. interval: 95 %, with training seeds and episodes as random.
    within: number of training seeds whose difference is within the margin.
    """

    seeds: Count
    rival: BudgetMean
    difference: float
    interval: tuple[float, float]
    within: Count

    def holds(self, margin: float) -> bool:
        """True if the interval excludes a loss of the margin."""
        return self.interval[0] > -margin


@dataclass(frozen=True, kw_only=True)
class Decision:
    """Facts of a recommendation.

    chosen: the recommended budget, else the best one that meets the deadline, if that decided.
    rival: the budget that `chosen` is least surely non-inferior to; interval: of their difference.
    one_tick_ms: the control tick, if every latency fits in one. shared: sufficient budgets that are
    not recommended, because they would not be any faster than a better one. over_seeds: of a
    recommended budget with several training seeds.
    """

    verdict: Verdict
    metric: Metric
    margin: float
    floor: float
    episodes: int
    best: BudgetMean
    chosen: BudgetMean | None = None
    ddim_steps: int | None = None  # of the recommended budget
    alone: bool = False
    cheaper: tuple[BudgetMean, ...] = ()  # not recommended
    rival: BudgetMean | None = None
    interval: tuple[float, float] | None = None
    episodes_needed: int | None = None
    regression: float | None = None  # its mean
    regression_suffices: bool = False
    one_tick_ms: float | None = None
    shared: tuple[SharedTicks, ...] = ()
    over_seeds: OverSeeds | None = None
    disturbed: bool = False

    @property
    def name(self) -> str | None:
        """The recommended budget."""
        recommended = self.chosen if self.verdict == "recommended" else None
        return recommended and recommended.name


@dataclass(frozen=True, kw_only=True)
class Recommendation:
    """Recommendation on one clock: the budget to use, or None, the reason, and the facts."""

    clock: Name
    latency_source: Name
    ddim_steps: int | None
    name: Name | None
    margin: float
    reason: Name
    regression_suffices: bool = False
    comparisons: list[Comparison]
    decision: Decision | None = None
