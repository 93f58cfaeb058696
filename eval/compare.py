"""The recommendation: the cheapest step budget that costs no more than the margin.

Every budget is tested for non-inferiority against every other one, and all budgets that could be
recommended share one error rate. Of those that pass, one is not recommended if a better one takes
as many whole control ticks: control could not tell them apart by their latency. Facts only:
`report/sentences.py` writes the words.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .measure.decisions import BudgetMean, Comparison, Decision, SharedTicks, Verdict
from .measure.results import Metric
from .significance import (
    difference_interval,
    episodes_needed,
    mcnemar,
    noninferior,
    share_alpha,
)


@dataclass(frozen=True)
class Candidate:
    """One budget: its cost, deadline, and outcomes [E] in the order of the seeds.

    cost: evaluations of a chunk, or ms; of one kind for all. ticks: ⌈p95 / control period⌉ of the
    latency, None on the paused clock.
    """

    name: str
    ddim_steps: int  # 0 is regression, without denoising
    cost: float
    meets_deadline: bool
    outcomes: np.ndarray  # bool for success, float for scores
    comparator_only: bool = False  # never recommended: ancestral DDPM, or a regression beside
    ticks: int | None = None

    @property
    def mean(self) -> float:
        """Success rate, or mean score."""
        return float(np.mean(self.outcomes))

    @property
    def beside(self) -> bool:
        """True for the regression policy beside a run, which is named but not recommended."""
        return self.comparator_only and self.ddim_steps == 0

    @property
    def named_mean(self) -> BudgetMean:
        """Its name and mean."""
        return BudgetMean(self.name, self.mean)


def recommend(
    candidates: Sequence[Candidate],
    margin: float,
    floor: float,
    metric: Metric,
    paired: bool = True,
) -> Decision:
    """Decide on the cheapest budget in time that is non-inferior to every other by the margin.

    A budget's p-value is the largest over the others (an intersection-union test). The budgets
    that meet the deadline, and regression, share ALPHA from the largest down (`share_alpha`), so
    the chance of recommending any budget that truly loses the margin or more is at most ALPHA.
    A budget that passes gives way to a better one that passes in as many whole ticks
    (`shared_ticks`): a choice among budgets that all passed, which leaves that chance as it is.
    No budget is recommended where even the best is below the floor, where none meets the
    deadline, or where the episodes do not establish non-inferiority.
    """
    facts = _Facts(candidates, margin, floor, metric, paired)
    if facts.best.mean < floor:
        return facts.decide("below-floor")
    tested = family(candidates)
    worst = [largest_p(candidate, candidates, margin, paired) for candidate in tested]
    passed, levels = share_alpha(worst)
    suffices = any(tested[i].beside for i in passed)
    eligible = [i for i, c in enumerate(tested) if not c.beside]
    if not eligible:
        return facts.decide("no-budget-in-time", regression_suffices=suffices)
    sufficient = [tested[i] for i in reversed(eligible) if i in passed]
    if not sufficient:
        best = max((tested[i] for i in eligible), key=lambda c: c.mean)
        return facts.undecided(best, min(levels[i] for i in eligible), suffices)
    shared = shared_ticks(sufficient, paired)
    beaten = [s.budget.name for s in shared]
    chosen = next(c for c in sufficient if c.name not in beaten)
    return facts.recommended(chosen, suffices, shared)


def shared_ticks(sufficient: Sequence[Candidate], paired: bool) -> list[SharedTicks]:
    """The budgets that take as many whole ticks as one that is better by the 95 % interval.

    Never all of them: the best budget of a number of ticks has no better one.
    """
    found = (_shared(c, sufficient, paired) for c in sufficient)
    return [s for s in found if s]


def _shared(
    candidate: Candidate, sufficient: Sequence[Candidate], paired: bool
) -> SharedTicks | None:
    """The best of the better budgets in the ticks of one, if there is any."""
    if candidate.ticks is None:
        return None
    rivals = [c for c in sufficient if c.ticks == candidate.ticks and c.mean > candidate.mean]
    for better in sorted(rivals, key=lambda c: -c.mean):
        interval = difference_interval(better.outcomes, candidate.outcomes, paired)
        if interval and interval[0] > 0:
            return SharedTicks(
                budget=candidate.named_mean,
                better=better.named_mean,
                ticks=candidate.ticks,
                interval=interval,
            )
    return None


def family(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Everything that may be called sufficient, the most expensive first, regression last."""
    tested = [c for c in candidates if c.meets_deadline and (c.beside or not c.comparator_only)]
    return sorted(tested, key=lambda c: (not c.beside, c.cost))[::-1]


def largest_p(
    candidate: Candidate, candidates: Sequence[Candidate], margin: float, paired: bool
) -> float:
    """The p-value against "it loses the margin or more to some other budget"."""
    others = _others(candidate, candidates)
    tests = (noninferior(candidate.outcomes, o.outcomes, margin, paired) for o in others)
    return max(tests, default=0.0)


def compare(
    reference: Candidate, other: Candidate, margin: float, paired: bool = True
) -> Comparison:
    """The difference reference - other with its tests."""
    a, b = reference.outcomes, other.outcomes
    binary = a.dtype == b.dtype == bool
    return Comparison(
        reference=reference.name,
        other=other.name,
        difference=reference.mean - other.mean,
        difference_ci=difference_interval(a, b, paired),
        p_noninferior=noninferior(a, b, margin, paired),
        p_mcnemar=mcnemar(a, b) if binary and paired else None,
    )


def _others(candidate: Candidate, candidates: Sequence[Candidate]) -> list[Candidate]:
    return [c for c in candidates if c is not candidate]


@dataclass(frozen=True)
class _Facts:
    """The facts that every decision holds, and the decisions."""

    candidates: Sequence[Candidate]
    margin: float
    floor: float
    metric: Metric
    paired: bool

    @property
    def best(self) -> Candidate:
        """The best of all budgets."""
        return max(self.candidates, key=lambda c: c.mean)

    def decide(self, verdict: Verdict, **more: Any) -> Decision:
        """The decision with these facts and more."""
        regression = [c.mean for c in self.candidates if c.beside]
        return Decision(
            verdict=verdict,
            metric=self.metric,
            margin=self.margin,
            floor=self.floor,
            episodes=len(self.best.outcomes),
            best=self.best.named_mean,
            regression=regression[0] if regression else None,
            **more,
        )

    def recommended(
        self, chosen: Candidate, suffices: bool, shared: Sequence[SharedTicks]
    ) -> Decision:
        """A budget that is non-inferior to every other one, and the cheaper ones that are not."""
        others = _others(chosen, self.candidates)
        beaten = {s.budget.name for s in shared}
        cheaper = [c for c in others if c.cost < chosen.cost and c.name not in beaten]
        return self.decide(
            "recommended",
            chosen=chosen.named_mean,
            ddim_steps=chosen.ddim_steps,
            alone=not others,
            cheaper=tuple(c.named_mean for c in cheaper if not c.comparator_only),
            shared=tuple(s for s in shared if s.budget.name != chosen.name),
            regression_suffices=suffices,
        )

    def undecided(self, chosen: Candidate, level: float, suffices: bool) -> Decision:
        """No budget passed: the best one in time, and the rival it is least surely as good as."""
        rival = max(
            _others(chosen, self.candidates),
            key=lambda c: noninferior(chosen.outcomes, c.outcomes, self.margin, self.paired),
        )
        a, b = chosen.outcomes.astype(float), rival.outcomes.astype(float)
        variance = float(np.var(a - b) if self.paired else np.var(a) + np.var(b))
        needed = episodes_needed(max(variance, 1 / len(a)), self.margin, level=level)
        interval = difference_interval(chosen.outcomes, rival.outcomes, self.paired)
        enough: Verdict = "not-established" if needed <= len(a) else "too-few-episodes"
        return self.decide(
            "worse" if interval and interval[1] < 0 else enough,
            chosen=chosen.named_mean,
            rival=rival.named_mean,
            interval=interval,
            episodes_needed=needed,
            regression_suffices=suffices,
        )
