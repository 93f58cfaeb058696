"""Difference of a row from its partner in the reference: statistics, latencies, verdict.

Shapes: S training seeds, E episodes that count.
"""

import math
from typing import Any

import numpy as np

from ..significance import (
    ALPHA,
    CONFIDENCE,
    FEWEST_DISCORDANT,
    crossed_interval,
    difference_interval,
    mcnemar,
    noninferior,
)
from .comparable import Comparable
from .comparison_results import RowDifference, RowVerdict
from .results import BudgetResult, Metric
from .seeds import values_of

LARGEST = 1e15  # ratio
FEWEST_SAMPLES = 59  # for p95: 1 - 0.95^59 > 0.95, as for the percentiles of a profile
Interval = tuple[float, float] | None


def row_difference(
    results: tuple[Comparable, Comparable],
    rows: tuple[BudgetResult, BudgetResult],
    shared: range | None,
    metric: Metric,
    margin: float | None,
    label: str,
) -> RowDifference:
    """The row of the second result less that of the first, over the shared seeds or unpaired.

    label: of the second file.
    """
    reference, row = rows
    theirs, ours = (
        _values(found, result.provenance.seeds[0], shared, metric)
        for found, result in zip(rows, results, strict=True)
    )
    facts = statistics(ours, theirs, shared is not None, margin)
    return RowDifference(
        other=label,
        clock=row.clock,
        reference_source=reference.latency_source,
        source=row.latency_source,
        reference_budget=reference.name,
        budget=row.name,
        reference_mean=float(theirs.mean()),
        mean=float(ours.mean()),
        paired=shared is not None,
        reference_episodes=theirs.shape[1],
        episodes=ours.shape[1],
        disturbed=row.clock != "paused" and "disturbed" in (reference.load, row.load),
        **facts,
        **_latencies(results, rows),
    )


def _values(row: BudgetResult, first: int, shared: range | None, metric: Metric) -> np.ndarray:
    """Outcomes [S, E] of the shared seeds, else of all; successes of one training as bool."""
    values = values_of(row, metric)
    if shared is not None:
        values = values[:, shared.start - first : shared.stop - first]
    return values.astype(bool) if metric == "success" else values


def statistics(
    ours: np.ndarray, theirs: np.ndarray, paired: bool, margin: float | None
) -> dict[str, Any]:
    """Difference of the means of outcomes [S, E], its interval, tests and verdict.

    As many training seeds in both, and ten or more discordant pairs: training seeds and episodes
    count as random. Else an episode counts once, with its mean over the training seeds.
    """
    several = paired and len(ours) == len(theirs) > 1
    if several and np.count_nonzero(ours != theirs) >= FEWEST_DISCORDANT:
        found = _over_trainings(ours.astype(float) - theirs, margin)
    else:
        found = _over_episodes(_means(ours), _means(theirs), paired, margin)
    difference = float(ours.mean() - theirs.mean())
    same = paired and np.array_equal(ours, theirs)
    said = verdict(difference, found["interval"], found["p_mcnemar"], found["noninferior"])
    if same and margin is None:
        said = "identical"
    return {"difference": difference, "verdict": said, **found}


def _means(values: np.ndarray) -> np.ndarray:
    """Outcomes [E] of one training, or means over several."""
    return values[0] if len(values) == 1 else values.mean(axis=0)


def _over_trainings(difference: np.ndarray, margin: float | None) -> dict[str, Any]:
    """Interval of the mean of differences [S, E]; is a loss of the margin rejected at ALPHA."""
    lowest, _ = crossed_interval(difference, 1 - 2 * ALPHA)
    return {
        "interval": crossed_interval(difference),
        "p_mcnemar": None,
        "noninferior": None if margin is None else lowest > -margin,
        "p_noninferior": None,
        "training_seeds": len(difference),
    }


def _over_episodes(
    ours: np.ndarray, theirs: np.ndarray, paired: bool, margin: float | None
) -> dict[str, Any]:
    """Interval and tests of the difference of outcomes [E]."""
    binary = ours.dtype == theirs.dtype == bool
    p = None if margin is None else noninferior(ours, theirs, margin, paired)
    return {
        "interval": difference_interval(ours, theirs, paired),
        "p_mcnemar": mcnemar(ours, theirs) if binary and paired else None,
        "noninferior": None if p is None else p <= ALPHA,
        "p_noninferior": p,
    }


def verdict(
    difference: float, interval: Interval, p_mcnemar: float | None, noninferior: bool | None
) -> RowVerdict:
    """The verdict by the 95 % interval; without an interval by McNemar's test."""
    significant = p_mcnemar is not None and p_mcnemar <= 1 - CONFIDENCE
    low, high = interval or ((difference, difference) if significant else (-np.inf, np.inf))
    if low > 0:
        return "better"
    if high < 0:
        return "worse-within-margin" if noninferior else "worse"
    return "non-inferior" if noninferior else "not-established"


def _latencies(
    results: tuple[Comparable, Comparable], rows: tuple[BudgetResult, BudgetResult]
) -> dict[str, Any]:
    """Ratios of the latencies that the clock used."""
    if rows[0].clock == "paused":
        return {"p50_ratio": None, "p95_ratio": None}
    p95 = [_p95(result, row) for result, row in zip(results, rows, strict=True)]
    p50 = [row.latency_ms.p50 for row in rows]
    return {"p50_ratio": _ratio(*p50), "p95_ratio": _ratio(*p95)}


def _ratio(reference: float | None, value: float | None) -> float | None:
    """None without a value, and if the reference is as good as zero beside it."""
    found = value / reference if reference and value is not None else math.inf
    return found if found <= LARGEST else None


def _p95(result: Comparable, row: BudgetResult) -> float | None:
    """p95 in ms of the samples in the file; of a constant, which has none, p90 and the maximum."""
    if row.latency_ms.p90 == row.latency_ms.max:
        return row.latency_ms.max
    key = row.name, row.latency_source
    profiles = getattr(result, "profiles", [])
    samples = row.samples_ms or next(
        (p.samples_ms for p in profiles if (p.name, p.source) == key), []
    )
    return float(np.percentile(samples, 95)) if len(samples) >= FEWEST_SAMPLES else None
