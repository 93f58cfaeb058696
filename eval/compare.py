"""Statistics of paired episodes, and the recommendation that follows from them.

Every budget meets the same episode seeds and the same starting noise, so outcomes are compared
pair by pair. Binary success: Wilson intervals, exact McNemar, and Tango's score test (Statistics
in Medicine 17:891, 1998) for non-inferiority. Scores: paired bootstrap.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

CONFIDENCE = 0.95
ALPHA = 0.05  # one-sided, for non-inferiority
RESAMPLES = 10_000
FEWEST_DISCORDANT = 10  # below this a bootstrap knows nothing
SEED = 0


def wilson(successes: int, episodes: int) -> tuple[float, float]:
    """Wilson's 95 % score interval of a rate."""
    interval = stats.binomtest(successes, episodes).proportion_ci(CONFIDENCE, method="wilson")
    return float(interval.low), float(interval.high)


def mean_interval(scores: np.ndarray) -> tuple[float, float]:
    """Bootstrap 95 % interval (percentile) of the mean of scores [E]; one seed, one answer."""
    if np.ptp(scores) == 0:
        return float(scores[0]), float(scores[0])
    means = _bootstrap_means(scores)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def _bootstrap_means(values: np.ndarray, seed: int = SEED) -> np.ndarray:
    rng = np.random.default_rng(seed)
    counts = rng.multinomial(len(values), np.full(len(values), 1 / len(values)), size=RESAMPLES)
    return counts @ values / len(values)


def over_tasks(
    by_task: Sequence[np.ndarray], trims: Sequence[float]
) -> list[tuple[float, float, float]]:
    """Means over tasks of their means, less a share `trims` at both ends, with 95 % intervals.

    0.25 is an interquartile mean (after Agarwal et al., arXiv 2108.13264, who take it over runs and
    tasks): of four tasks the best and the worst are left out. Intervals are a bootstrap of episodes
    [E] within each task; they know nothing of other training seeds.
    """
    drawn = np.stack([_bootstrap_means(o, seed) for seed, o in enumerate(by_task)])
    means = [outcomes.mean() for outcomes in by_task]
    found = []
    for trim in trims:
        low, high = np.percentile(stats.trim_mean(drawn, trim, axis=0), [2.5, 97.5])
        found.append((float(stats.trim_mean(means, trim)), float(low), float(high)))
    return found


def mcnemar(a: np.ndarray, b: np.ndarray) -> float:
    """Exact two-sided p-value that paired successes a, b [E] bool have one rate."""
    only_a, only_b = int(np.sum(a & ~b)), int(np.sum(~a & b))
    if only_a + only_b == 0:
        return 1.0
    return float(stats.binomtest(only_a, only_a + only_b).pvalue)


def noninferior_success(a: np.ndarray, b: np.ndarray, margin: float) -> float:
    """One-sided p-value against H0: rate(a) ≤ rate(b) - margin (Tango's score test)."""
    n, only_a, only_b = len(a), int(np.sum(a & ~b)), int(np.sum(~a & b))
    q = _null_discordance(n, only_a, only_b, margin)
    variance = n * (2 * q - margin * (1 + margin)) if q > 0 else 0.0
    difference = only_a - only_b + n * margin
    if variance <= 0:
        return 0.0 if difference > 0 else 1.0
    return float(stats.norm.sf(difference / math.sqrt(variance)))


def _null_discordance(n: int, only_a: int, only_b: int, margin: float) -> float:
    """q = P(only b succeeds) by maximum likelihood under rate(a) = rate(b) - margin.

    With Δ = -margin the score equation is 2n q² + linear · q + constant = 0.
    """
    Δ = -margin
    linear = (2 * n - only_a + only_b) * Δ - only_a - only_b
    constant = -only_b * Δ * (1 - Δ)
    discriminant = max(linear**2 - 8 * n * constant, 0.0)  # 0 where both roots meet
    return (math.sqrt(discriminant) - linear) / (4 * n)


def noninferior_score(a: np.ndarray, b: np.ndarray, margin: float) -> float:
    """One-sided p-value against H0: mean(a) ≤ mean(b) - margin, for scores in [0, 1].

    Paired bootstrap. Under 10 pairs that differ it is replaced by a bound that assumes nothing:
    the loss is at most P(a < b), and p is the chance of seeing so few losses if that were margin.
    """
    difference = a - b
    if np.count_nonzero(difference) < FEWEST_DISCORDANT:
        return float(stats.binom.cdf(np.count_nonzero(difference < 0), len(a), margin))
    means = _bootstrap_means(difference)
    return float((1 + np.count_nonzero(means <= -margin)) / (1 + RESAMPLES))


def episodes_needed(variance: float, margin: float, power: float = 0.9) -> int:
    """Paired episodes that show non-inferiority of equals with this power (normal theory).

    variance: of the paired difference; for success it is the share of discordant pairs.
    """
    z = stats.norm.ppf(1 - ALPHA) + stats.norm.ppf(power)
    return math.ceil(z**2 * variance / margin**2)


@dataclass(frozen=True)
class Candidate:
    """One budget: what it costs, whether it keeps the deadline, outcomes [E] in seed order."""

    name: str
    ddim_steps: int
    network_evals: int
    meets_deadline: bool
    outcomes: np.ndarray  # bool for success, float for scores
    rival_only: bool = False  # compared against, never recommended: it is no DDIM budget


@dataclass(frozen=True)
class Recommendation:
    """The budget to use, or None, and why."""

    name: str | None
    ddim_steps: int | None
    margin: float
    reason: str


def recommend(
    candidates: Sequence[Candidate], margin: float, floor: float, noun: str
) -> Recommendation:
    """The cheapest budget that keeps the deadline and is non-inferior to every other by margin.

    Requiring every single comparison is an intersection-union test: its level needs no correction.
    noun: "success" or "score". None where even the best stays under the floor, where no budget
    keeps the deadline, or where the episodes cannot tell.
    """
    best = max(candidates, key=lambda c: float(np.mean(c.outcomes)))
    if float(np.mean(best.outcomes)) < floor:
        rate = float(np.mean(best.outcomes))
        return _none(margin, f"the best budget reaches {noun} {rate:.2f}, under {floor:g}")
    punctual = [c for c in candidates if c.meets_deadline and not c.rival_only]
    if not punctual:
        return _none(margin, "at every budget inference outruns the chunk: the robot would starve")
    for candidate in sorted(punctual, key=lambda c: c.network_evals):
        others = [c for c in candidates if c is not candidate]
        if all(noninferior(candidate, other, margin) for other in others):
            why = _why(candidate, others, noun)
            return Recommendation(candidate.name, candidate.ddim_steps, margin, why)
    return _none(margin, _undecided(candidates, punctual, margin))


def noninferior(a: Candidate, b: Candidate, margin: float) -> bool:
    """Whether the episodes show that a loses less than the margin to b."""
    return _pvalue(a, b, margin) <= ALPHA


def compare(reference: Candidate, other: Candidate, margin: float) -> dict[str, Any]:
    """The paired difference reference - other, and what the tests say of it.

    difference_ci: bootstrap 95 % interval, None under 10 pairs that differ; p_noninferior: that the
    reference loses margin or more; p_mcnemar: that both succeed equally often (success only).
    """
    binary = reference.outcomes.dtype == bool
    difference = reference.outcomes.astype(float) - other.outcomes.astype(float)
    enough = np.count_nonzero(difference) >= FEWEST_DISCORDANT
    return {
        "reference": reference.name,
        "other": other.name,
        "difference": float(difference.mean()),
        "difference_ci": mean_interval(difference) if enough else None,
        "p_noninferior": _pvalue(reference, other, margin),
        "p_mcnemar": mcnemar(reference.outcomes, other.outcomes) if binary else None,
    }


def _none(margin: float, reason: str) -> Recommendation:
    return Recommendation(None, None, margin, reason)


def _pvalue(a: Candidate, b: Candidate, margin: float) -> float:
    binary = a.outcomes.dtype == bool
    test = noninferior_success if binary else noninferior_score
    return test(a.outcomes, b.outcomes, margin)


def _why(chosen: Candidate, others: Sequence[Candidate], noun: str) -> str:
    mean = float(np.mean(chosen.outcomes))
    cheaper = [c for c in others if c.network_evals < chosen.network_evals and not c.rival_only]
    why = f"{chosen.name} keeps {noun} {mean:.2f}"
    why += ", shown to lose less than the margin to every other budget" if others else ", alone"
    if cheaper:
        losses = ", ".join(f"{c.name} {float(np.mean(c.outcomes)):.2f}" for c in cheaper)
        why += f"; not shown for the cheaper ones ({losses})"
    return why


def _undecided(
    candidates: Sequence[Candidate], punctual: Sequence[Candidate], margin: float
) -> str:
    """Why no budget passed, told by the best punctual one and the rival it is least sure of."""
    chosen = max(punctual, key=lambda c: float(np.mean(c.outcomes)))
    others = [c for c in candidates if c is not chosen]
    rival = max(others, key=lambda c: _pvalue(chosen, c, margin))
    difference = chosen.outcomes.astype(float) - rival.outcomes.astype(float)
    episodes = len(difference)
    low, high = mean_interval(difference)
    if high < 0 and np.count_nonzero(difference) >= FEWEST_DISCORDANT:
        return (
            f"{chosen.name}, the best budget that keeps the deadline, is worse than {rival.name} "
            f"({float(np.mean(chosen.outcomes)):.2f} against {float(np.mean(rival.outcomes)):.2f}, "
            f"95 % interval of the difference {low:+.2f} to {high:+.2f})"
        )
    needed = episodes_needed(max(float(np.var(difference)), 1 / episodes), margin)
    if needed <= episodes:
        return (
            f"{chosen.name}, the best budget that keeps the deadline, is not shown to lose less "
            f"than {margin:g} to {rival.name} ({float(np.mean(chosen.outcomes)):.2f} against "
            f"{float(np.mean(rival.outcomes)):.2f}); {episodes} episodes are enough for equals"
        )
    return (
        f"{episodes} episodes cannot show that any budget which keeps the deadline loses "
        f"less than {margin:g} to every other; about {needed} would tell {chosen.name} from "
        f"{rival.name} if they are equal"
    )
