"""The recommendation: the cheapest step budget that costs no more than the margin.

Every budget is tested for non-inferiority against every other one, and all budgets that could be
recommended share one error rate.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

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
    rival_only: bool = False  # compared against, never recommended: it is no DDIM budget

    @property
    def mean(self) -> float:
        """Success rate, or mean score."""
        return float(np.mean(self.outcomes))


@dataclass(frozen=True)
class Recommendation:
    """The budget to use, or None, and why.

    regression_suffices: regression alone passed the same test, so denoising is not worth its cost.
    """

    name: str | None
    ddim_steps: int | None
    margin: float
    reason: str
    regression_suffices: bool = False


def recommend(
    candidates: Sequence[Candidate], margin: float, floor: float, noun: str, paired: bool = True
) -> Recommendation:
    """The cheapest budget that keeps the deadline and is non-inferior to every other by margin.

    A budget's p-value is the largest over the others (an intersection-union test). The budgets
    that keep the deadline, and regression, share ALPHA from the largest down (`share_alpha`), so
    the chance of recommending any budget that truly loses the margin or more is at most ALPHA.
    noun: "success" or "score". None where even the best stays under the floor, where no budget
    keeps the deadline, or where the episodes cannot tell.
    """
    best = max(candidates, key=lambda c: c.mean)
    if best.mean < floor:
        return _none(margin, f"the best budget reaches {noun} {best.mean:.2f}, under {floor:g}")
    tested = family(candidates)
    worst = [largest_p(candidate, candidates, margin, paired) for candidate in tested]
    passed, levels = share_alpha(worst)
    plain = any(tested[i].ddim_steps == 0 for i in passed)
    eligible = [i for i, c in enumerate(tested) if c.ddim_steps > 0]
    if not eligible:
        reason = "at every budget inference outruns the chunk: the robot would starve"
        return _none(margin, reason, plain)
    chosen = next((tested[i] for i in reversed(eligible) if i in passed), None)
    if chosen is None:
        share = min(levels[i] for i in eligible)
        return _none(margin, _undecided(candidates, tested, margin, share, paired), plain)
    why = _why(chosen, candidates, noun)
    return Recommendation(chosen.name, chosen.ddim_steps, margin, why, plain)


def family(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Everything that may be called sufficient, the most expensive first, regression last."""
    tested = [c for c in candidates if c.meets_deadline and not (c.rival_only and c.ddim_steps)]
    return sorted(tested, key=lambda c: (c.ddim_steps > 0, c.network_evals))[::-1]


def compare(
    reference: Candidate, other: Candidate, margin: float, paired: bool = True
) -> dict[str, Any]:
    """The difference reference - other with its tests.

    difference_ci: bootstrap 95 % interval, None under 10 pairs that differ. p_noninferior: against
    "the reference loses the margin or more", not adjusted for the number of budgets. p_mcnemar:
    that both succeed equally often, for paired success only.
    """
    binary = reference.outcomes.dtype == bool
    a, b = reference.outcomes, other.outcomes
    return {
        "reference": reference.name,
        "other": other.name,
        "difference": reference.mean - other.mean,
        "difference_ci": difference_interval(a, b, paired),
        "p_noninferior": noninferior(a, b, margin, paired),
        "p_mcnemar": mcnemar(a, b) if binary and paired else None,
    }


def _none(margin: float, reason: str, plain: bool = False) -> Recommendation:
    return Recommendation(None, None, margin, reason, plain)


def _others(candidate: Candidate, candidates: Sequence[Candidate]) -> list[Candidate]:
    return [c for c in candidates if c is not candidate]


def largest_p(
    candidate: Candidate, candidates: Sequence[Candidate], margin: float, paired: bool
) -> float:
    """The p-value against "it loses the margin or more to some other budget"."""
    others = _others(candidate, candidates)
    tests = (noninferior(candidate.outcomes, o.outcomes, margin, paired) for o in others)
    return max(tests, default=0.0)


def _why(chosen: Candidate, candidates: Sequence[Candidate], noun: str) -> str:
    others = _others(chosen, candidates)
    cheaper = [c for c in others if c.network_evals < chosen.network_evals and not c.rival_only]
    why = f"{chosen.name}: {noun} {chosen.mean:.2f}"
    why += ", non-inferior to every other budget within the margin" if others else ", alone"
    if cheaper:
        losses = ", ".join(f"{c.name} {c.mean:.2f}" for c in cheaper)
        why += f"; not established for the cheaper ones ({losses})"
    return why


def _undecided(
    candidates: Sequence[Candidate],
    tested: Sequence[Candidate],
    margin: float,
    level: float,
    paired: bool,
) -> str:
    """Why no budget passed, told by the best one in time and the rival it is least sure of."""
    chosen = max((c for c in tested if c.ddim_steps), key=lambda c: c.mean)
    rival = max(
        _others(chosen, candidates),
        key=lambda c: noninferior(chosen.outcomes, c.outcomes, margin, paired),
    )
    means = f"{chosen.mean:.2f} against {rival.mean:.2f}"
    interval = difference_interval(chosen.outcomes, rival.outcomes, paired)
    if interval and interval[1] < 0:
        return (
            f"{chosen.name}, the best budget that keeps the deadline, is worse than {rival.name} "
            f"({means}, 95 % interval of the difference {interval[0]:+.2f} to {interval[1]:+.2f})"
        )
    a, b = chosen.outcomes.astype(float), rival.outcomes.astype(float)
    episodes = len(a)
    variance = float(np.var(a - b) if paired else np.var(a) + np.var(b))
    needed = episodes_needed(max(variance, 1 / episodes), margin, level=level)
    if needed <= episodes:
        return (
            f"non-inferiority of {chosen.name}, the best budget that keeps the deadline, to "
            f"{rival.name} at margin {margin:g} is not established ({means}); {episodes} episodes "
            "would have sufficed if the two were equal"
        )
    return (
        f"{episodes} episodes cannot show that any budget which keeps the deadline loses less than "
        f"{margin:g} to every other; about {needed} would tell {chosen.name} from {rival.name} if "
        "they are equal"
    )
