"""Sentences about results, for the terminal, the pages and the `reason` in JSON."""

import re
from collections.abc import Iterator, Sequence

from ..measure.decisions import Decision, OverSeeds, Recommendation, SharedTicks
from ..measure.result_files import EvalProvenance, LatencyFile
from ..measure.results import BudgetResult, LatencyResult
from .numbers import rounded

FEW_EPISODES = 30  # fewer are preliminary


def clock_label(row: BudgetResult | Recommendation) -> str:
    """The name of a clock in a legend."""
    if row.clock == "paused":
        return "paused (zero latency)"
    return f"{row.clock} ({row.latency_source})"


def short_name(env: str) -> str:
    """An environment without the module that registers it."""
    return env.rpartition(":")[2]


def episodes_label(rows: Sequence[BudgetResult]) -> str:
    """The number of episodes of each row, such as n = 100 or n = 3 × 100 of three runs."""
    seeds = len(rows[0].training_seeds or [0])
    per_seed = rows[0].episodes // seeds
    return f"n = {per_seed}" if seeds == 1 else f"n = {seeds} training seeds × {per_seed}"


def figures(row: BudgetResult) -> list[str]:
    """The figures of a budget on a clock, one a line, its name first."""
    low, high = row.success_ci
    found = [
        f"{row.name}, {clock_label(row)}",
        f"success {row.successes} of {row.episodes} (95 %: {low:.2f} to {high:.2f})",
        "score {:.3f} (95 %: {:.2f} to {:.2f})".format(row.score_mean, *row.score_ci),
        f"latency p50 {rounded(row.latency_ms.p50)} ms" + _p99(row),
        f"delay {rounded(row.delay_ticks, 2)} ticks" + _age(row),
    ]
    if row.starved_ticks or row.deadline_misses:
        misses = f", deadline misses {row.deadline_misses:,}" if row.deadline_misses else ""
        found.append(f"starved ticks {row.starved_ticks:,}{misses}")
    return found + [f"failed episodes {len(row.failures)}"] * bool(row.failures)


def _p99(row: BudgetResult) -> str:
    return "" if row.latency_ms.p99 is None else f", p99 {rounded(row.latency_ms.p99)} ms"


def _age(row: BudgetResult) -> str:
    age = row.action_age_ms_p50
    return "" if age is None else f", action age {rounded(age)} ms"


def load_of(row: BudgetResult) -> str | None:
    """The load during the latencies of a row; None on the paused clock, which uses none."""
    return None if row.clock == "paused" else row.load


def headline(advice: Recommendation | Decision) -> str:
    """The recommendation in a few words."""
    budget = f"use {advice.name}" if advice.name else "no budget can be recommended"
    if advice.regression_suffices:
        return f"regression is sufficient; if you denoise, {budget}"
    return budget


def verdict(advice: Recommendation) -> str:
    """The recommendation and its reason, and if it is preliminary."""
    few = advice.decision is not None and advice.decision.episodes < FEW_EPISODES
    mark = f" (preliminary: n = {advice.decision.episodes})" if few and advice.decision else ""
    return f"{headline(advice)}: {advice.reason}{mark}"


def reason(decision: Decision) -> str:
    """The reason of a decision, with what limits it."""
    text = REASONS[decision.verdict](decision)
    if decision.regression is not None:
        text += f"; regression, without denoising, reaches {decision.regression:.2f}"
    if decision.over_seeds is not None:
        text += f"; {_over_seeds(decision.over_seeds, decision.margin)}"
    if decision.one_tick_ms is not None:
        text += f"; all budgets fit in one control tick ({decision.one_tick_ms:g} ms)"
    if decision.disturbed and decision.verdict != "disturbed":
        text += "; latencies are disturbed"
    return text


def _recommended(d: Decision) -> str:
    assert d.chosen
    text = f"{d.chosen.name}: {d.metric} {d.chosen.mean:.2f}, "
    text += "the only budget" if d.alone else "non-inferior to every other budget within the margin"
    if d.cheaper:
        losses = ", ".join(f"{budget.name} {budget.mean:.2f}" for budget in d.cheaper)
        text += f"; not established for the cheaper ones ({losses})"
    for shared in d.shared:
        text += f"; {_shared(shared)}"
    return text


def _shared(s: SharedTicks) -> str:
    low, high = s.interval
    ticks = f"{s.ticks} control tick{'s' * (s.ticks != 1)}"
    return (
        f"{s.budget.name} suffices too, but takes {ticks} "
        f"like {s.better.name}, which is better ({s.better.mean:.2f} vs {s.budget.mean:.2f}, 95 % "
        f"interval of the difference {low:+.2f} to {high:+.2f})"
    )


def _over_seeds(o: OverSeeds, margin: float) -> str:
    low, high = o.interval
    verdict = "it holds" if o.holds(margin) else "it is not established"
    return (
        f"{verdict} over training seeds: the difference to {o.rival.name} is {o.difference:+.3f}, "
        f"with other seeds and episodes {low:+.3f} to {high:+.3f} (95 % interval), and within the "
        f"margin in {o.within} of {o.seeds} seeds"
    )


def _below_floor(d: Decision) -> str:
    return f"the best budget reaches {d.metric} {d.best.mean:.2f}, below the floor of {d.floor:g}"


def _no_budget_in_time(d: Decision) -> str:
    return "no budget meets the deadline: inference outlasts the chunk and the controller starves"


def _worse(d: Decision) -> str:
    assert d.chosen and d.rival and d.interval
    low, high = d.interval
    return (
        f"{d.chosen.name}, the best budget that meets the deadline, is worse than {d.rival.name} "
        f"({_means(d)}, 95 % interval of the difference {low:+.2f} to {high:+.2f})"
    )


def _not_established(d: Decision) -> str:
    assert d.chosen and d.rival
    return (
        f"non-inferiority of {d.chosen.name}, the best budget that meets the deadline, to "
        f"{d.rival.name} at margin {d.margin:g} is not established ({_means(d)}); {d.episodes} "
        "episodes would have sufficed if the two were equal"
    )


def _too_few_episodes(d: Decision) -> str:
    assert d.chosen and d.rival
    seen = f"{d.episodes} episodes are too few to establish non-inferiority of any budget at margin"
    if abs(d.chosen.mean - d.rival.mean) > d.margin:  # a number for equals would mislead
        return (
            f"{seen} {d.margin:g}; seen so far: {d.chosen.name} {d.chosen.mean:.2f}, "
            f"{d.rival.name} {d.rival.mean:.2f}; `sweep --plan` prints the numbers that suffice"
        )
    return (
        f"{seen} {d.margin:g}; about {d.episodes_needed} would suffice for {d.chosen.name} against "
        f"{d.rival.name} ({_means(d)}) if the two were equal"
    )


def _disturbed(d: Decision) -> str:
    return (
        "other processes disturbed the measurement of latencies; measure again on a quiet machine, "
        "or repeat the sweep with `--accept-disturbed`"
    )


def _means(d: Decision) -> str:
    assert d.chosen and d.rival
    return f"{d.chosen.mean:.2f} vs {d.rival.mean:.2f}"


REASONS = {
    "recommended": _recommended,
    "below-floor": _below_floor,
    "no-budget-in-time": _no_budget_in_time,
    "worse": _worse,
    "not-established": _not_established,
    "too-few-episodes": _too_few_episodes,
    "disturbed": _disturbed,
}


def pairing(provenance: EvalProvenance) -> str:
    """Pairing of the episodes of different budgets."""
    if provenance.paired:
        return "Every budget ran the same episodes with the same starting noise."
    return f"Episodes cannot be compared in pairs: {provenance.seeds_evidence}."


def remarks(row: BudgetResult) -> list[str]:
    """Failed episodes with their causes, and observations far outside the range of training."""
    found = []
    if row.failures:
        kinds = {re.sub(r"[-+.\d]+", "", text): text for text in reversed(row.failures)}
        causes = "; ".join(reversed(kinds.values()))
        causes = "".join(letter if letter.isprintable() else " " for letter in causes)
        found.append(f"{len(row.failures)} of {row.episodes} episodes failed: {causes}")
    if row.far_observations:
        found.append(_far(row))
    return found


def _far(row: BudgetResult) -> str:
    worst = max(row.far_observations, key=lambda far: far.share)
    more = len(row.far_observations) - 1
    others = f" (and {more} more)" if more else ""
    (low, high), (least, greatest) = worst.seen, worst.training
    return (
        f"observations far outside the range of training: dimension {worst.dimension}{others} in "
        f"{worst.share:.0%} of the observations; range {rounded(low)} to {rounded(high)}, "
        f"in training {rounded(least)} to {rounded(greatest)}"
    )


def caption(seed: int, success: bool, score: float, ticks: int, notes: list[str]) -> str:
    """The caption of one episode's picture."""
    return "; ".join([f"seed {seed}: {ending(success, score, ticks)}", *notes])


def ending(success: bool, score: float, ticks: int) -> str:
    """The outcome of an episode."""
    return f"{'success' if success else 'failure'}, score {score:.2f}, {ticks} ticks"


def deadlines(result: LatencyFile) -> Iterator[str]:
    """For each engine, the largest budget whose p99, and p99.9, meet the deadline."""
    deadline_ms = result.provenance.deadline_ms
    if deadline_ms is None:
        return
    for engine in dict.fromkeys(row.engine for row in result.rows):
        rows = [row for row in result.rows if row.engine == engine]
        parts = [
            f"at {name}: {_largest(rows, deadline_ms, field)}"
            for name, field in (("p99", "p99"), ("p99.9", "p99_9"))
        ]
        mark = " (disturbed)" if any(row.load == "disturbed" for row in rows) else ""
        yield f"{engine}: largest budget within {deadline_ms:g} ms {', '.join(parts)}{mark}"


def _largest(rows: list[LatencyResult], deadline_ms: float, field: str) -> int | str:
    known = [(row.ddim_steps, getattr(row.latency_ms, field)) for row in rows]
    if all(ms is None for _, ms in known):
        return "unknown (too few samples)"
    return max((k for k, ms in known if ms is not None and ms <= deadline_ms), default="none")
