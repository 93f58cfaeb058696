"""The statistics keep their promises: textbook values, exact levels, and advice one may follow."""

import math
import re
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from diffpolicy.eval.compare import (
    ALPHA,
    RESAMPLES,
    Candidate,
    episodes_needed,
    mcnemar,
    mean_interval,
    noninferior_score,
    noninferior_success,
    recommend,
    wilson,
)


def pairs(n: int, only_a: int, only_b: int) -> tuple[np.ndarray, np.ndarray]:
    """Paired successes a, b [n] with so many discordant pairs; the others fail together."""
    a, b = np.zeros((2, n), bool)
    a[:only_a] = True
    b[only_a : only_a + only_b] = True
    return a, b


@st.composite
def outcomes(draw) -> tuple[int, int, int]:
    """(n, only_a, only_b)."""
    n = draw(st.integers(1, 300))
    only_a = draw(st.integers(0, n))
    return n, only_a, draw(st.integers(0, n - only_a))


margins = st.sampled_from([0.01, 0.02, 0.05, 0.1, 0.2])

# Intervals


@pytest.mark.parametrize(
    ("successes", "episodes", "low", "high"),
    [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_agrees_with_newcombe_s_table(successes, episodes, low, high):
    """Newcombe, Statistics in Medicine 17:857 (1998), table I, method 3."""
    assert wilson(successes, episodes) == pytest.approx((low, high), abs=6e-5)


def test_mean_interval_is_the_normal_one_for_many_scores_and_repeats():
    scores = np.random.default_rng(0).uniform(size=400)
    half = 1.96 * scores.std() / math.sqrt(400)
    expected = (scores.mean() - half, scores.mean() + half)
    assert mean_interval(scores) == pytest.approx(expected, abs=2e-3)
    assert mean_interval(scores) == mean_interval(scores)
    assert mean_interval(np.full(5, 0.25)) == (0.25, 0.25)


# McNemar


@pytest.mark.parametrize(("only_a", "only_b"), [(0, 0), (1, 0), (3, 3), (8, 2), (2, 8), (0, 10)])
def test_mcnemar_counts_the_ways_to_be_so_uneven(only_a, only_b):
    n = only_a + only_b
    uneven = [
        abs(2 * sum(flips) - n) >= abs(only_a - only_b) for flips in product([0, 1], repeat=n)
    ]
    assert mcnemar(*pairs(20, only_a, only_b)) == pytest.approx(np.mean(uneven))


@given(outcomes())
def test_mcnemar_does_not_care_who_is_called_a(outcome):
    a, b = pairs(*outcome)
    assert mcnemar(a, b) == pytest.approx(mcnemar(b, a))


# Non-inferiority of success


@given(outcomes(), margins)
def test_tango_s_score_is_the_difference_over_its_deviation_under_the_null(outcome, margin):
    """The restricted likelihood is maximised by brute force here, and in closed form there."""
    n, only_a, only_b = outcome
    p = noninferior_success(*pairs(n, only_a, only_b), margin)
    counts = np.array([only_a, only_b, n - only_a - only_b])

    def likelihood(q):
        cells = np.stack([q - margin, q, 1 - 2 * q + margin])
        return np.sum(np.where(counts[:, None] > 0, counts[:, None] * np.log(cells), 0), axis=0)

    q = np.linspace(margin, (1 + margin) / 2, 20_002)[1:-1]
    best = q[np.argmax(likelihood(q))]
    z = (only_a - only_b + n * margin) / math.sqrt(n * (2 * best - margin * (1 + margin)))
    assert p == pytest.approx(stats.norm.sf(z), abs=5e-3)


@given(outcomes(), margins)
def test_more_losses_never_make_a_budget_better(outcome, margin):
    n, only_a, only_b = outcome
    p = noninferior_success(*pairs(n, only_a, only_b), margin)
    assert 0 <= p <= 1
    if only_a + only_b < n:
        assert noninferior_success(*pairs(n, only_a, only_b + 1), margin) >= p
        assert noninferior_success(*pairs(n, only_a + 1, only_b), margin) <= p
    assert noninferior_success(*pairs(n, only_a, only_b), 1.5 * margin) <= p


@given(outcomes())
def test_without_a_margin_the_two_directions_share_the_probability(outcome):
    a, b = pairs(*outcome)
    both = noninferior_success(a, b, 0.0) + noninferior_success(b, a, 0.0)
    assert both == pytest.approx(2 if (a == b).all() else 1)


@given(outcomes(), margins)
def test_losing_exactly_the_margin_is_a_coin_toss(outcome, margin):
    n, only_a, _ = outcome
    only_b = only_a + n * margin
    if only_b == int(only_b) and only_a + only_b <= n:
        assert noninferior_success(*pairs(n, only_a, int(only_b)), margin) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("n", "only_b", "margin"), [(55, 10, 0.1), (110, 20, 0.1), (210, 20, 0.05)]
)
def test_a_double_root_of_the_likelihood_is_no_accident(n, only_b, margin):
    """Where 2 n margin = (1 + margin) losses, rounding must not make the square root fail."""
    assert 0.5 < noninferior_success(*pairs(n, 0, only_b), margin) < 1


def chance_to_pass(n: int, margin: float, gain: float, loss: float) -> float:
    """Exact P(p ≤ α) where a pair is a gain or a loss with these probabilities.

    All outcomes are enumerated but those beyond seven deviations.
    """

    def counts(p: float) -> range:
        spread = 7 * math.sqrt(n * p) + 7
        return range(max(0, int(n * p - spread)), min(n, int(n * p + spread)) + 1)

    passing = [
        (only_a, only_b, n - only_a - only_b)
        for only_a in counts(gain)
        for only_b in counts(loss)
        if only_a + only_b <= n and noninferior_success(*pairs(n, only_a, only_b), margin) <= ALPHA
    ]
    if not passing:
        return 0.0
    return float(stats.multinomial.pmf(passing, n, [gain, loss, 1 - gain - loss]).sum())


@pytest.mark.parametrize("margin", [0.05, 0.1])
def test_a_budget_that_loses_the_margin_passes_about_one_time_in_twenty(margin):
    """By exact enumeration at the border of H0, from no gains at all to half the pairs discordant.

    The score test is not exact: over all n from 30 to 60 it reaches 6.9 % where there are no
    gains (n = 52 at margin 0.05, n = 42 at 0.1), and 4.9 % on average.
    """
    levels = {
        (n, discordance): chance_to_pass(
            n, margin, (discordance - margin) / 2, (discordance + margin) / 2
        )
        for n in (30, 42, 52, 60)
        for discordance in (margin, 0.15, 0.3, 0.5)
    }
    assert max(levels.values()) < 0.070
    typical = [level for (n, discordance), level in levels.items() if discordance >= 0.3]
    assert typical == pytest.approx([0.05] * len(typical), abs=0.006)


@pytest.mark.parametrize(
    ("episodes", "margin", "power"), [(100, 0.1, 0.91), (400, 0.05, 0.93), (2000, 0.02, 0.88)]
)
def test_equals_at_ten_percent_discordance_pass_this_often(episodes, margin, power):
    assert chance_to_pass(episodes, margin, 0.05, 0.05) == pytest.approx(power, abs=0.015)
    assert episodes_needed(0.1, margin, power) == pytest.approx(episodes, rel=0.1)


def test_half_the_margin_takes_four_times_the_episodes():
    assert episodes_needed(0.1, 0.05) == 343
    assert episodes_needed(0.1, 0.025) == pytest.approx(4 * 343, abs=4)


# Non-inferiority of scores


@pytest.mark.parametrize("loss", [0.0, 0.01, 0.02, 0.03, 0.05, 0.07])
def test_the_bootstrap_agrees_with_normal_theory_on_many_scores(loss):
    rng = np.random.default_rng(1)
    b = rng.uniform(0.3, 0.7, 500)
    a = b + rng.normal(0, 0.2, 500)
    a += b.mean() - loss - a.mean()
    normal = stats.norm.sf((0.05 - loss) / (np.std(a - b) / math.sqrt(500)))
    assert noninferior_score(a, b, margin=0.05) == pytest.approx(normal, abs=0.015)


def test_a_bootstrap_never_claims_more_than_its_resamples_can_tell():
    a = np.linspace(0.8, 1, 50)
    assert noninferior_score(a, a - 0.5, margin=0.05) == 1 / (1 + RESAMPLES)
    assert noninferior_score(a - 0.5, a, margin=0.05) == 1


@given(st.integers(1, 200), st.integers(0, 9), st.integers(0, 9), margins)
def test_few_discordant_pairs_are_bounded_by_their_losses(n, gains, losses, margin):
    """The chance to see so few losses, if each episode lost all with probability margin."""
    if gains + losses >= 10 or gains + losses > n:
        return
    a, b = (x.astype(float) for x in pairs(n, gains, losses))
    few = [math.comb(n, k) * margin**k * (1 - margin) ** (n - k) for k in range(losses + 1)]
    assert noninferior_score(a, b, margin) == pytest.approx(sum(few))


def test_ten_discordant_pairs_are_enough_for_a_bootstrap():
    """Five gains and five losses in 50: the sum of 50 draws of +1, 0 and -1, exactly."""
    a, b = (x.astype(float) for x in pairs(50, 5, 5))
    total = np.ones(1)
    for _ in range(50):
        total = np.convolve(total, [0.1, 0.8, 0.1])
    p = total[: 50 - 5 + 1].sum()  # from -50 to the loss of 0.1 a draw
    assert noninferior_score(a, b, 0.1) == pytest.approx(p, abs=0.01)
    assert p < stats.binom.cdf(5, 50, 0.1) / 5


# Advice


def candidate(steps: int, outcomes, punctual: bool = True) -> Candidate:
    return Candidate(f"{steps} steps", steps, steps, punctual, np.asarray(outcomes))


def successes(rate: float, episodes: int = 400) -> np.ndarray:
    """The same seeds succeed at every budget, the first ones."""
    return np.arange(episodes) < round(rate * episodes)


def advise(*candidates: Candidate, floor: float = 0.5):
    return recommend(candidates, margin=0.05, floor=floor, noun="success")


def test_the_cheapest_that_loses_less_than_the_margin_is_recommended():
    budgets = [candidate(k, successes(r)) for k, r in [(1, 0.6), (4, 0.89), (16, 0.9), (64, 0.9)]]
    for order in (budgets, budgets[::-1]):
        advice = advise(*order)
        assert advice.ddim_steps == 4
        assert "1 steps 0.60" in advice.reason


def test_cost_is_counted_in_network_evaluations_not_in_steps():
    cheap = Candidate("50, skipped", 50, 10, True, successes(0.9))
    assert advise(candidate(20, successes(0.9)), cheap).ddim_steps == 50


def test_every_other_budget_counts_also_the_dearer_and_the_cheaper():
    best_in_the_middle = [(1, 0.8), (4, 0.9), (16, 0.8)]
    assert advise(*(candidate(k, successes(r)) for k, r in best_in_the_middle)).ddim_steps == 4


def test_scores_are_advised_upon_like_successes():
    rng = np.random.default_rng(0)
    truth = rng.uniform(0.4, 0.9, 300)
    budgets = {1: truth - 0.2, 4: truth + rng.normal(0, 0.05, 300), 16: truth}
    assert advise(*(candidate(k, scores) for k, scores in budgets.items())).ddim_steps == 4


def test_nothing_is_recommended_below_the_floor():
    budgets = [candidate(k, successes(0.4)) for k in (1, 16)]
    assert advise(*budgets, floor=0.3).ddim_steps == 1
    advice = advise(*budgets, floor=0.5)
    assert advice.ddim_steps is None
    assert "0.40, under 0.5" in advice.reason


def test_nothing_is_recommended_where_nobody_keeps_the_deadline():
    advice = advise(*(candidate(k, successes(0.9), punctual=False) for k in (1, 16)))
    assert advice.ddim_steps is None
    assert "starve" in advice.reason


def test_a_late_budget_is_never_recommended_but_still_to_be_matched():
    fine, late = candidate(4, successes(0.9)), candidate(16, successes(0.9), punctual=False)
    assert advise(fine, late).ddim_steps == 4
    assert advise(candidate(1, successes(0.9), punctual=False), fine).ddim_steps == 4
    much_better = candidate(16, successes(1.0), punctual=False)
    assert advise(fine, much_better).ddim_steps is None


def equals(episodes: int, discordance: float) -> tuple[np.ndarray, np.ndarray]:
    """Two budgets that succeed equally often, and differ on this share of the episodes."""
    each = round(episodes * discordance / 2)
    a, b = pairs(episodes, each, each)
    a[2 * each : -2] = b[2 * each : -2] = True
    return a, b


@pytest.mark.parametrize("late", [False, True])
def test_too_few_episodes_are_called_too_few_with_a_number_that_suffices(late):
    a, b = equals(40, 0.1)
    advice = advise(candidate(4, a), candidate(16, b, punctual=not late))
    assert advice.ddim_steps is None
    [needed] = map(int, re.findall(r"about (\d+) would tell (?:4|16) steps", advice.reason))
    assert "40 episodes cannot show" in advice.reason
    assert "4 steps" in advice.reason and "16 steps" in advice.reason
    a, b = equals(needed, 0.1)
    assert advise(candidate(4, a), candidate(16, b)).ddim_steps == 4


def test_enough_episodes_are_not_called_too_few():
    advice = advise(candidate(4, successes(0.8)), candidate(16, successes(0.9), punctual=False))
    assert advice.ddim_steps is None
    assert "cannot show" not in advice.reason
    assert "0.80 against 0.90" in advice.reason


def test_a_single_budget_has_nobody_to_lose_to():
    assert advise(candidate(8, successes(0.9))).ddim_steps == 8


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 60), st.booleans()), min_size=1, max_size=4))
def test_advice_keeps_its_word(budgets):
    """Whatever came out: chosen is punctual, and nobody cheaper would have done."""
    candidates = [
        candidate(2**k, np.arange(60) < wins, punctual)
        for k, (wins, punctual) in enumerate(budgets)
    ]

    def acceptable(c: Candidate) -> bool:
        others = [o for o in candidates if o is not c]
        safe = all(noninferior_success(c.outcomes, o.outcomes, 0.1) <= ALPHA for o in others)
        return c.meets_deadline and safe

    advice = recommend(candidates, margin=0.1, floor=0.0, noun="success")
    assert advice.ddim_steps == next((c.ddim_steps for c in candidates if acceptable(c)), None)
    assert advice.reason
