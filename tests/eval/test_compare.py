"""The statistics keep their promises: textbook values, exact levels, and advice one may follow."""

import math
from dataclasses import replace
from itertools import combinations, product
from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from diffpolicy.eval.bench.bench_recommendation import SCENARIOS, simulate
from diffpolicy.eval.compare import Candidate, compare, recommend
from diffpolicy.eval.measure.decisions import Verdict
from diffpolicy.eval.report.sentences import REASONS, reason
from diffpolicy.eval.significance import (
    ALPHA,
    CONTINUITY,
    episodes_needed,
    mcnemar,
    mean_interval,
    noninferior,
    noninferior_score,
    noninferior_success,
    noninferior_unpaired,
    share_alpha,
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
    distance = only_a - only_b + n * margin
    variance = n * (2 * best - margin * (1 + margin))
    z = max(distance - CONTINUITY, min(distance, 0)) / math.sqrt(variance)
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
    _, only_a, only_b = outcome
    a, b = pairs(*outcome)
    both = noninferior_success(a, b, 0.0) + noninferior_success(b, a, 0.0)
    lead = abs(only_a - only_b)
    z = np.array([max(lead - CONTINUITY, 0), -lead]) / math.sqrt(only_a + only_b or 1)
    assert both == pytest.approx(stats.norm.sf(z).sum() if only_a + only_b else 2)


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
    """Rounding must not make the square root fail if 2 n margin = (1 + margin) losses."""
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
def test_a_budget_that_loses_the_margin_passes_at_most_one_time_in_twenty(margin):
    """By exact enumeration at the border of H0, from no gains at all to half the pairs discordant.

    Without the continuity correction it would pass in 6.9 % where there are no gains (n = 52 at
    margin 0.05, n = 42 at 0.1).
    """
    levels = [
        chance_to_pass(n, margin, (discordance - margin) / 2, (discordance + margin) / 2)
        for n in (30, 42, 52, 60, 72, 128, 200)
        for discordance in (margin, 0.15, 0.3, 0.5)
    ]
    assert max(levels) <= ALPHA
    assert np.median(levels) > 0.75 * ALPHA


@pytest.mark.parametrize(
    ("episodes", "margin", "power"), [(100, 0.1, 0.89), (400, 0.05, 0.92), (2000, 0.02, 0.88)]
)
def test_equals_at_ten_percent_discordance_pass_this_often(episodes, margin, power):
    assert chance_to_pass(episodes, margin, 0.05, 0.05) == pytest.approx(power, abs=0.015)
    assert episodes_needed(0.1, margin, power) == pytest.approx(episodes, rel=0.2)


def test_half_the_margin_takes_four_times_the_episodes():
    assert episodes_needed(0.1, 0.05) == 343
    assert episodes_needed(0.1, 0.025) == pytest.approx(4 * 343, abs=4)


# Non-inferiority of scores


@pytest.mark.parametrize("loss", [0.0, 0.01, 0.02, 0.03, 0.05, 0.07])
def test_scores_agree_with_normal_theory_where_there_are_many(loss):
    rng = np.random.default_rng(1)
    b = rng.uniform(0.3, 0.7, 500)
    a = b + rng.normal(0, 0.2, 500)
    a += b.mean() - loss - a.mean()
    normal = stats.norm.sf((0.05 - loss) / (np.std(a - b) / math.sqrt(500)))
    assert noninferior_score(a, b, margin=0.05) == pytest.approx(normal, abs=0.035)


def test_no_test_of_scores_claims_more_than_rare_total_losses_allow():
    """They stay unseen with probability (1 - margin)^E."""
    a = np.linspace(0.8, 1, 50)
    for test in (noninferior_score, noninferior_unpaired):
        assert test(a, a - 0.5, margin=0.05) == pytest.approx(0.95**50)
        assert test(a - 0.5, a, margin=0.05) == pytest.approx(1)


@pytest.mark.parametrize("margin", [0.05, 0.1])
@pytest.mark.parametrize("size", [1.0, 0.5])
def test_rare_large_losses_pass_at_most_one_time_in_twenty(margin, size):
    """By exact enumeration; the plain t-test lets all-or-nothing losses pass in up to 9 %."""
    for n in (60, 100, 200, 400):
        chance = 0.0
        for losses in range(n):
            difference = np.where(np.arange(n) < losses, -size, 0.0)
            if noninferior_score(difference, np.zeros(n), margin) <= ALPHA:
                chance += stats.binom.pmf(losses, n, margin / size)
        assert chance <= 1.1 * ALPHA


@given(st.integers(0, 9), st.floats(0.05, 0.9))
def test_a_larger_lead_is_never_less_convincing(seed, lead):
    """Also with skewed scores and leads of many deviations."""
    rng = np.random.default_rng(seed)
    b = rng.choice([0.0, 0.2, 1.0], 100, p=[0.7, 0.2, 0.1])
    p = [noninferior_score(b * 0.05 + gain, b, 0.05) for gain in (0.0, lead / 2, lead)]
    assert p[0] >= p[1] >= p[2]


def test_returns_are_judged_by_their_range():
    """Scores of any unit: nothing changes where all of them and the margin are scaled."""
    rng = np.random.default_rng(2)
    b = rng.normal(200, 40, 300)
    a = b + rng.normal(0, 20, 300)
    p = noninferior_score(a, b, 5.0)
    assert p == pytest.approx(noninferior_score(a / 10, b / 10, 0.5))
    assert p == pytest.approx(
        stats.ttest_1samp(a - b, -5.0, alternative="greater").pvalue, abs=0.01
    )
    few = np.where(np.arange(300) == 0, b - 1000, b)
    assert noninferior_score(few, b, 5.0) > 0.05


@given(st.integers(1, 200), st.integers(0, 9), st.integers(0, 9), margins)
def test_few_discordant_pairs_are_bounded_by_their_losses(n, gains, losses, margin):
    """The chance to see so few losses, if each episode lost all with probability margin."""
    if gains + losses >= 10 or gains + losses > n:
        return
    a, b = (x.astype(float) for x in pairs(n, gains, losses))
    few = [math.comb(n, k) * margin**k * (1 - margin) ** (n - k) for k in range(losses + 1)]
    assert noninferior_score(a, b, margin) == pytest.approx(sum(few))


def test_ten_discordant_pairs_are_enough_for_moments():
    """Five gains and five losses in 50: the sum of 50 draws of +1, 0 and -1, exactly."""
    a, b = (x.astype(float) for x in pairs(50, 5, 5))
    total = np.ones(1)
    for _ in range(50):
        total = np.convolve(total, [0.1, 0.8, 0.1])
    p = total[: 50 - 5 + 1].sum()  # from -50 to the loss of 0.1 a draw
    assert noninferior_score(a, b, 0.1) == pytest.approx(p, abs=0.02)
    assert p < stats.binom.cdf(5, 50, 0.1) / 5


# Advice


def candidate(steps: int, outcomes, meets_deadline: bool = True) -> Candidate:
    return Candidate(f"{steps} steps", steps, steps, meets_deadline, np.asarray(outcomes))


def successes(rate: float, episodes: int = 400) -> np.ndarray:
    """The same seeds succeed at every budget, the first ones."""
    return np.arange(episodes) < round(rate * episodes)


def advise(*candidates: Candidate, floor: float = 0.5):
    return recommend(candidates, margin=0.05, floor=floor, metric="success")


def test_the_cheapest_that_loses_less_than_the_margin_is_recommended():
    budgets = [candidate(k, successes(r)) for k, r in [(1, 0.6), (4, 0.89), (16, 0.9), (64, 0.9)]]
    for order in (budgets, budgets[::-1]):
        advice = advise(*order)
        assert advice.ddim_steps == 4
        assert [(c.name, round(c.mean, 2)) for c in advice.cheaper] == [("1 steps", 0.6)]
        assert "1 steps 0.60" in reason(advice)


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
    assert "0.40, below the floor of 0.5" in reason(advice)


def test_nothing_is_recommended_where_nobody_keeps_the_deadline():
    advice = advise(*(candidate(k, successes(0.9), meets_deadline=False) for k in (1, 16)))
    assert advice.ddim_steps is None
    assert advice.verdict == "no-budget-in-time" and "starve" in reason(advice)


def test_a_late_budget_is_never_recommended_but_still_to_be_matched():
    fine, late = candidate(4, successes(0.9)), candidate(16, successes(0.9), meets_deadline=False)
    assert advise(fine, late).ddim_steps == 4
    assert advise(candidate(1, successes(0.9), meets_deadline=False), fine).ddim_steps == 4
    much_better = candidate(16, successes(1.0), meets_deadline=False)
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
    advice = advise(candidate(4, a), candidate(16, b, meets_deadline=not late))
    assert advice.ddim_steps is None
    assert advice.verdict == "too-few-episodes" and advice.chosen and advice.rival
    assert {advice.chosen.name, advice.rival.name} == {"4 steps", "16 steps"}
    assert "40 episodes are too few" in reason(advice)
    needed = advice.episodes_needed
    assert needed and f"about {needed} would suffice" in reason(advice)
    a, b = equals(needed, 0.1)
    assert advise(candidate(4, a), candidate(16, b)).ddim_steps == 4


def test_enough_episodes_are_not_called_too_few():
    advice = advise(
        candidate(4, successes(0.8)), candidate(16, successes(0.9), meets_deadline=False)
    )
    assert advice.ddim_steps is None
    assert advice.verdict == "worse" and "0.80 vs 0.90" in reason(advice)


def test_every_verdict_has_its_sentence():
    assert set(REASONS) == set(get_args(Verdict))


def test_a_single_budget_has_nobody_to_lose_to():
    assert advise(candidate(8, successes(0.9))).ddim_steps == 8


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 60), st.booleans()), min_size=1, max_size=4))
def test_advice_keeps_its_word(budgets):
    """The chosen budget is in time and safe at ALPHA; no cheaper one is safe at its first share."""
    candidates = [
        candidate(2**k, np.arange(60) < wins, meets_deadline)
        for k, (wins, meets_deadline) in enumerate(budgets)
    ]
    in_time = [c for c in candidates if c.meets_deadline]

    def safe(c: Candidate, level: float) -> bool:
        others = [o for o in candidates if o is not c]
        return all(noninferior_success(c.outcomes, o.outcomes, 0.1) <= level for o in others)

    advice = recommend(candidates, margin=0.1, floor=0.0, metric="success")
    assert reason(advice)
    chosen = next((c for c in in_time if c.ddim_steps == advice.ddim_steps), None)
    assert (chosen is None) == (advice.ddim_steps is None)
    assert chosen is None or safe(chosen, ALPHA)
    cheaper = [c for c in in_time if chosen is None or c.ddim_steps < chosen.ddim_steps]
    assert not any(safe(c, ALPHA / len(in_time)) for c in cheaper)


# The error rate of the whole procedure


def closed_test(p: list[float]) -> list[int]:
    """A hypothesis is rejected where every intersection that holds it is, each at level ALPHA.

    The weight of a member is its own share and those of the non-members that stand before it.
    """

    def rejected(members: tuple[int, ...]) -> bool:
        weights = dict.fromkeys(members, 0)
        for i in range(len(p)):
            heir = next(j % len(p) for j in range(i, i + len(p)) if j % len(p) in members)
            weights[heir] += 1
        return any(p[i] <= ALPHA * w / len(p) for i, w in weights.items())

    sets = [m for r in range(1, len(p) + 1) for m in combinations(range(len(p)), r)]
    failed = {i for members in sets if not rejected(members) for i in members}
    return [i for i in range(len(p)) if i not in failed]


levels = st.sampled_from([0.001, 0.009, 0.011, 0.016, 0.024, 0.026, 0.034, 0.049, 0.051, 0.3])


@given(st.lists(levels, min_size=1, max_size=5))
def test_sharing_alpha_is_a_closed_test(p):
    passed, tested_at = share_alpha(p)
    assert passed == closed_test(p)
    assert all(ALPHA / len(p) <= level <= ALPHA + 1e-12 for level in tested_at)


def test_sharing_alpha_goes_from_the_first_to_the_last():
    assert share_alpha([]) == ([], [])
    assert share_alpha([0.01, 0.04, 0.2])[0] == [0]
    assert share_alpha([0.01, 0.03, 0.049])[0] == [0, 1, 2]
    assert share_alpha([0.2, 0.03, 0.01])[0] == [2]
    passed, tested_at = share_alpha([0.9, 0.0, 0.9])
    assert passed == [1] and tested_at == pytest.approx([ALPHA / 3, ALPHA / 3, 2 * ALPHA / 3])


@pytest.mark.parametrize("outcome", ["success", "score"])
@pytest.mark.parametrize("scenario", SCENARIOS[1:7], ids=lambda s: s.name)
def test_a_losing_budget_is_recommended_at_most_one_time_in_twenty(scenario, outcome):
    """300 simulated sweeps a cell: at a true 5 %, 28 or more would come once in 500 cells."""
    found = simulate(scenario, outcome, episodes=200, margin=0.1, sweeps=300, seed=1)
    assert found["ring"][0] <= 27 / 300


def test_testing_every_budget_at_alpha_would_err_more_often():
    found = simulate(SCENARIOS[3], "success", episodes=200, margin=0.1, sweeps=300, seed=1)
    assert found["each"][0] > 0.1 > 0.05 > found["ring"][0] - 0.02


# Seeds that do not pair


def test_unpaired_outcomes_do_not_care_about_their_order():
    rng = np.random.default_rng(0)
    a, b = rng.random(200) < 0.9, rng.random(200) < 0.9
    p = noninferior(a, b, 0.1, paired=False)
    assert p == pytest.approx(noninferior(a, rng.permutation(b), 0.1, paired=False))
    spread = math.sqrt(a.var(ddof=1) / 200 + b.var(ddof=1) / 200)
    assert p == pytest.approx(stats.norm.sf((a.mean() - b.mean() + 0.1) / spread), abs=0.01)


@pytest.mark.parametrize("best", [0.5, 0.9, 0.97])
def test_an_unpaired_budget_that_loses_the_margin_passes_about_one_time_in_twenty(best):
    rng = np.random.default_rng(0)
    passed = [
        noninferior(rng.random(300) < best - 0.1, rng.random(300) < best, 0.1, paired=False)
        <= ALPHA
        for _ in range(1000)
    ]
    assert 0.02 < np.mean(passed) < 0.07


def test_unpaired_comparisons_are_wider_and_have_no_mcnemar():
    """The same successes and failures, strongly correlated between two budgets."""
    a = np.arange(400) < 240
    b = np.roll(a, 10)
    two = candidate(2, a), candidate(4, b)
    paired, unpaired = (compare(*two, margin=0.05, paired=p) for p in (True, False))
    assert paired.difference == unpaired.difference
    assert unpaired.difference_ci and paired.difference_ci
    assert np.ptp(unpaired.difference_ci) > 1.5 * np.ptp(paired.difference_ci)
    assert unpaired.p_mcnemar is None and unpaired.p_noninferior > paired.p_noninferior
    assert recommend(two, 0.05, 0.5, "success").ddim_steps == 2
    assert recommend(two, 0.05, 0.5, "success", paired=False).ddim_steps is None


# Regression, and what cannot be recommended


def test_ddpm_and_late_budgets_take_no_share_of_alpha():
    """Their number does not change what the others can show."""
    a, b = equals(300, 0.1)
    two = [candidate(2, a), candidate(4, b)]
    ddpm = Candidate("DDPM", 100, 100, True, b, comparator_only=True)
    late = [candidate(8 * k, b, meets_deadline=False) for k in range(1, 9)]
    assert advise(*two).ddim_steps == advise(*two, ddpm, *late).ddim_steps == 2


def test_regression_shares_alpha_with_the_budgets():
    plain = Candidate("regression", 0, 1, True, successes(0.9), comparator_only=True)
    advice = advise(candidate(1, successes(0.9)), plain)
    assert advice.regression_suffices and advice.ddim_steps == 1
    worse = replace(plain, outcomes=successes(0.8))
    assert not advise(candidate(1, successes(0.9)), worse).regression_suffices
