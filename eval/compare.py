"""The recommendation: the cheapest step budget that costs no more than the margin.

Every budget is tested for non-inferiority against every other one, and all budgets that could be
recommended share one error rate. Facts only: `report/sentences.py` writes the words.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .measure.results import BudgetMean, Comparison, Decision, Metric, Verdict
from .significance import (
    difference_interval,
    episodes_needed,
    mcnemar,
    noninferior,
    share_alpha,
)


@dataclass(frozen=True)
class Candidate:
    """One budget: its cost, deadline, and outcomes [E] in the order of the seeds."""

    name: str
    ddim_steps: int  # 0 is regression, without denoising
    network_evals: int
    meets_deadline: bool
    outcomes: np.ndarray  # bool for success, float for scores
    comparator_only: bool = False  # never recommended: ancestral DDPM, or regression

    @property
    def mean(self) -> float:
        """Success rate, or mean score."""
        return float(np.mean(self.outcomes))

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
    No budget is recommended where even the best is below the floor, where none meets the
    deadline, or where the episodes do not establish non-inferiority.
    """
    facts = _Facts(candidates, margin, floor, metric, paired)
    if facts.best.mean < floor:
        return facts.decide("below-floor")
    tested = family(candidates)
    worst = [largest_p(candidate, candidates, margin, paired) for candidate in tested]
    passed, levels = share_alpha(worst)
    suffices = any(tested[i].ddim_steps == 0 for i in passed)
    eligible = [i for i, c in enumerate(tested) if c.ddim_steps > 0]
    if not eligible:
        return facts.decide("no-budget-in-time", regression_suffices=suffices)
    chosen = next((tested[i] for i in reversed(eligible) if i in passed), None)
    if chosen is None:
        best = max((tested[i] for i in eligible), key=lambda c: c.mean)
        return facts.undecided(best, min(levels[i] for i in eligible), suffices)
    return facts.recommended(chosen, suffices)


def family(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Everything that may be called sufficient, the most expensive first, regression last."""
    tested = [
        c for c in candidates if c.meets_deadline and not (c.comparator_only and c.ddim_steps)
    ]
    return sorted(tested, key=lambda c: (c.ddim_steps > 0, c.network_evals))[::-1]


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
    binary = reference.outcomes.dtype == bool
    a, b = reference.outcomes, other.outcomes
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
        regression = [c.mean for c in self.candidates if c.ddim_steps == 0]
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

    def recommended(self, chosen: Candidate, suffices: bool) -> Decision:
        """A budget that is non-inferior to every other one, and the cheaper ones that are not."""
        others = _others(chosen, self.candidates)
        cheaper = [c for c in others if c.network_evals < chosen.network_evals]
        return self.decide(
            "recommended",
            chosen=chosen.named_mean,
            ddim_steps=chosen.ddim_steps,
            alone=not others,
            cheaper=tuple(c.named_mean for c in cheaper if not c.comparator_only),
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
