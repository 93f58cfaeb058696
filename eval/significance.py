"""Statistics of episodes as pure functions: intervals, McNemar's test, non-inferiority tests.

Outcomes a, b [E] are successes (bool) or scores (float) of two policies over the same number of
episodes. Paired means that episode i of both had the same seed and the same starting noise.
"""

import math
from collections.abc import Iterator, Sequence

import numpy as np
from scipy import special, stats

CONFIDENCE = 0.95
ALPHA = 0.05  # one-sided, for non-inferiority
RESAMPLES = 10_000
BLOCK, GROUP = 1_000_000, 16  # counts in memory at one time, about; resamples of a group
FEWEST_DISCORDANT = 10  # below this the moments of the differences are not used
CONTINUITY = 0.25  # of one episode's outcome
SEED = 0


def wilson(successes: int, episodes: int) -> tuple[float, float]:
    """Wilson's 95 % score interval of a rate."""
    interval = stats.binomtest(successes, episodes).proportion_ci(CONFIDENCE, method="wilson")
    return float(interval.low), float(interval.high)


def mean_interval(scores: np.ndarray) -> tuple[float, float]:
    """Bootstrap 95 % interval (percentile) of the mean of scores [E], with a fixed seed."""
    if np.ptp(scores) == 0:
        return float(scores[0]), float(scores[0])
    return _percentiles(_bootstrap_means(scores))


def crossed_interval(values: np.ndarray, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Bootstrap interval (percentile) of the mean of values [S, E], with a fixed seed.

    S training seeds ran the same E episodes: both are resampled, independently of each other (the
    pigeonhole bootstrap, Owen, Annals of Applied Statistics 1:386, 2007). A few seeds tell little
    about others: the spread between S of them is taken as √((S - 1) / S) of what it is.
    """
    if np.ptp(values) == 0:
        return float(values[0, 0]), float(values[0, 0])
    blocks = _blocks(values.shape[1])
    drawn = (_draws(n, SEED + axis, blocks) for axis, n in enumerate(values.shape))
    means = [
        np.einsum("rs,se,re->r", s / len(values), values, e / values.shape[1], optimize=True)
        for s, e in zip(*drawn, strict=True)
    ]
    return _percentiles(np.concatenate(means), confidence)


def rate_interval(successes: np.ndarray) -> tuple[float, float]:
    """95 % interval of the rate of successes [S, E]: `crossed_interval`, at least Wilson's.

    Wilson's is that of all S · E episodes; without any failure a bootstrap has no width.
    """
    low, high = crossed_interval(successes)
    least = wilson(int(successes.sum()), successes.size)
    return min(low, least[0]), max(high, least[1])


def difference_interval(a: np.ndarray, b: np.ndarray, paired: bool) -> tuple[float, float] | None:
    """95 % interval of mean(a) - mean(b).

    Paired: a bootstrap, None under 10 discordant pairs. Unpaired: Newcombe's for successes,
    Welch's for scores.
    """
    if not paired:
        return (newcombe if a.dtype == b.dtype == bool else welch)(a, b)
    difference = a.astype(float) - b
    enough = np.count_nonzero(difference) >= FEWEST_DISCORDANT
    return mean_interval(difference) if enough else None


def newcombe(a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    """95 % interval of rate(a) - rate(b) for independent successes [E] bool.

    Two Wilson intervals, combined: method 10 of Newcombe (Statistics in Medicine 17:873, 1998).
    """
    (p, low_a, high_a), (q, low_b, high_b) = (
        (float(o.mean()), *wilson(int(o.sum()), len(o))) for o in (a, b)
    )
    below, above = math.hypot(p - low_a, high_b - q), math.hypot(high_a - p, q - low_b)
    return p - q - below, p - q + above


def welch(a: np.ndarray, b: np.ndarray) -> tuple[float, float] | None:
    """Welch's 95 % interval of mean(a) - mean(b) for independent outcomes [E].

    Newcombe's where each has one outcome only, and these differ: they are a rate of 1 and one of 0
    of the difference. None for a single episode, and if all outcomes are equal.
    """
    a, b = a.astype(float), b.astype(float)
    if min(len(a), len(b)) < 2:
        return None
    if np.ptp(a) == np.ptp(b) == 0:
        difference = float(a[0] - b[0])
        ends = newcombe(np.ones(len(a), bool), np.zeros(len(b), bool))
        low, high = sorted(difference * end for end in ends)
        return (low, high) if difference else None
    interval = stats.ttest_ind(a, b, equal_var=False).confidence_interval(CONFIDENCE)
    return float(interval.low), float(interval.high)


def _percentiles(means: np.ndarray, confidence: float = CONFIDENCE) -> tuple[float, float]:
    low, high = np.percentile(means, [50 - 50 * confidence, 50 + 50 * confidence])
    return float(low), float(high)


def _bootstrap_means(values: np.ndarray, seed: int = SEED) -> np.ndarray:
    blocks = [counts @ values for counts in _draws(len(values), seed, _blocks(len(values)))]
    return np.concatenate(blocks) / len(values)


def _blocks(n: int) -> list[int]:
    """Numbers of resamples of n episodes whose counts are in memory at one time.

    Few large blocks of whole groups: a matrix product rounds as it would without them.
    """
    groups = RESAMPLES // GROUP
    blocks = min(math.ceil(RESAMPLES * n / BLOCK), groups)
    return [GROUP * len(block) for block in np.array_split(np.arange(groups), blocks)]


def _draws(n: int, seed: int, blocks: Sequence[int]) -> Iterator[np.ndarray]:
    """Counts [resamples of a block, n] of n draws from n with replacement, for each block."""
    rng, weights = np.random.default_rng(seed), np.full(n, 1 / n)
    yield from (rng.multinomial(n, weights, size) for size in blocks)


def over_tasks(
    by_task: Sequence[np.ndarray], trims: Sequence[float]
) -> list[tuple[float, float, float]]:
    """Trimmed means of task means with 95 % intervals; `trims` are the shares cut at both ends.

    0.25 is an interquartile mean (after Agarwal et al., arXiv 2108.13264, who take it over runs and
    tasks): of four tasks the best and the worst are left out. Intervals are a bootstrap of episodes
    [E] within each task; they do not cover other training seeds.
    """
    drawn = np.stack([_bootstrap_means(o, seed) for seed, o in enumerate(by_task)])
    means = [outcomes.mean() for outcomes in by_task]
    found = []
    for trim in trims:
        low, high = _percentiles(stats.trim_mean(drawn, trim, axis=0))
        found.append((float(stats.trim_mean(means, trim)), low, high))
    return found


def mcnemar(a: np.ndarray, b: np.ndarray) -> float:
    """Exact two-sided p-value that paired successes a, b [E] bool have one rate."""
    only_a, only_b = int(np.sum(a & ~b)), int(np.sum(~a & b))
    if only_a + only_b == 0:
        return 1.0
    return float(stats.binomtest(only_a, only_a + only_b).pvalue)


def noninferior(a: np.ndarray, b: np.ndarray, margin: float, paired: bool = True) -> float:
    """One-sided p-value against H0: mean(a) ≤ mean(b) - margin, by the test for these outcomes."""
    if not paired:
        return noninferior_unpaired(a, b, margin)
    test = noninferior_success if a.dtype == b.dtype == bool else noninferior_score
    return test(a, b, margin)


def noninferior_success(a: np.ndarray, b: np.ndarray, margin: float) -> float:
    """p-value against H0: rate(a) ≤ rate(b) - margin, for paired successes [E] bool.

    Tango's score test (Statistics in Medicine 17:891, 1998) with a continuity correction of a
    quarter of a pair: without one its level at 5 % reaches 6.9 %, with this one it stays below 5 %.
    """
    n, only_a, only_b = len(a), int(np.sum(a & ~b)), int(np.sum(~a & b))
    q = _null_discordance(n, only_a, only_b, margin)
    variance = n * (2 * q - margin * (1 + margin)) if q > 0 else 0.0
    difference = only_a - only_b + n * margin
    difference = max(difference - CONTINUITY, min(difference, 0.0))
    if variance <= 0:
        return 0.0 if difference > 0 else 1.0
    return float(special.ndtr(-difference / math.sqrt(variance)))


def _null_discordance(n: int, only_a: int, only_b: int, margin: float) -> float:
    """q = P(only b succeeds) by maximum likelihood under rate(a) = rate(b) - margin.

    With Δ = -margin the score equation is 2n q² + linear · q + constant = 0.
    """
    Δ = -margin
    linear = (2 * n - only_a + only_b) * Δ - only_a - only_b
    constant = -only_b * Δ * (1 - Δ)
    discriminant = max(linear**2 - 8 * n * constant, 0.0)  # 0 for a double root
    return (math.sqrt(discriminant) - linear) / (4 * n)


def noninferior_score(a: np.ndarray, b: np.ndarray, margin: float) -> float:
    """p-value against H0: mean(a) ≤ mean(b) - margin, for paired scores [E].

    A t-test corrected for skewness and continuity. Under 10 discordant pairs it is replaced by a
    distribution-free bound: the loss is at most P(a < b) times the range of the scores, and p is
    the probability of so few losses if that bound were the margin.
    """
    difference, span = a - b, _span(a, b)
    share = min(margin / span, 1.0)
    if np.count_nonzero(difference) < FEWEST_DISCORDANT:
        return float(special.bdtr(np.count_nonzero(difference < 0), len(a), share))
    mean, variance, third = _moments(difference)
    distance = mean + margin - CONTINUITY * span / len(a)
    return max(_skewed_t(distance, variance, third, len(a)), _unseen(share, len(a)))


def noninferior_unpaired(a: np.ndarray, b: np.ndarray, margin: float) -> float:
    """p-value against H0: mean(a) ≤ mean(b) - margin, for independent successes or scores [E].

    Welch's t-test, corrected for skewness and continuity.
    """
    n, span = min(len(a), len(b)), _span(a, b)
    (mean_a, variance_a, third_a), (mean_b, variance_b, third_b) = _moments(a), _moments(b)
    distance = mean_a - mean_b + margin - CONTINUITY * span / n
    p = _skewed_t(distance, variance_a + variance_b, third_a - third_b, n)
    return max(p, _unseen(min(margin / span, 1.0), n))


def _span(a: np.ndarray, b: np.ndarray) -> float:
    """Range of the outcomes: 1 for successes and for scores in [0, 1]."""
    return max(1.0, float(np.ptp(np.concatenate([a, b]).astype(float))))


def _unseen(share: float, episodes: int) -> float:
    """Probability that losses of the whole range, in this share of the episodes, stay unseen.

    A lower bound of every p-value: unseen losses of the margin look like no loss.
    """
    return (1 - share) ** episodes


def _moments(values: np.ndarray) -> tuple[float, float, float]:
    """Mean of values [E], and variance and third central moment of that mean."""
    n, centred = len(values), values - np.mean(values)
    variance = float(np.sum(centred**2)) / max(n - 1, 1) / n
    return float(np.mean(values)), variance, float(np.mean(centred**3)) / n**2


def _skewed_t(distance: float, variance: float, third: float, n: int) -> float:
    """P(T ≥ t) for the smaller of t = distance / √variance and its skewness-corrected form.

    The correction is Hall's monotone cubic (JRSS B 54:221, 1992): rare large losses make the plain
    t too optimistic.
    """
    if variance <= 0:
        return 0.0 if distance > 0 else 1.0
    t, skewness = distance / math.sqrt(variance), third / variance**1.5
    corrected = t + skewness * t**2 / 3 + skewness**2 * t**3 / 27 + skewness / 6
    return float(special.stdtr(max(n - 1, 1), -min(t, corrected)))


def episodes_needed(
    variance: float, margin: float, power: float = 0.9, level: float = ALPHA
) -> int:
    """Paired episodes that establish non-inferiority of equals with this power (normal theory).

    variance: of the paired difference; for success it is the share of discordant pairs.
    """
    z = special.ndtri(1 - level) + special.ndtri(power)
    return math.ceil(z**2 * variance / margin**2)


def share_alpha(p_values: Sequence[float], alpha: float = ALPHA) -> tuple[list[int], list[float]]:
    """(rejected hypotheses, level at which each hypothesis was last tested), by a graph in a ring.

    Every hypothesis starts with an equal share of alpha; a rejected one passes its share to the
    next open one in the given order, and from the last to the first. The probability of any false
    rejection is at most alpha under any dependence (Bretz, Maurer, Brannath and Posch, Statistics
    in Medicine 28:586, 2009).
    """
    levels = [alpha / len(p_values)] * len(p_values) if p_values else []
    ring = list(range(len(p_values)))
    while (i := next((i for i in ring if p_values[i] <= levels[i]), None)) is not None:
        heir = ring[(ring.index(i) + 1) % len(ring)]
        ring.remove(i)
        if ring:
            levels[heir] += levels[i]
    return [i for i in range(len(p_values)) if i not in ring], levels
