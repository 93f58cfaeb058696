"""Conclusions of a page: the recommendation, how sure it is, and what would change it."""

from collections.abc import Iterator
from typing import Literal, NamedTuple

from diffpolicy.terminal.output import counted

from ..measure.decisions import Recommendation
from ..measure.result_files import SweepResult
from ..measure.results import BudgetResult, Metric
from .sentences import FEW_EPISODES, clock_label, headline

Tone = Literal["good", "preliminary", "none", "plain"]
LABELS: dict[Tone, str] = {
    "good": "Recommendation",
    "preliminary": "Preliminary",
    "none": "No recommendation",
    "plain": "",
}
PLAN = "diffpolicy sweep --run RUN --plan"
CHANGES = {
    "recommended": "a smaller --margin could favour another budget",
    "below-floor": "longer training, more demonstrations, or a lower --floor",
    "no-budget-in-time": "a faster engine or computer, a longer action horizon, or fewer steps",
    "worse": "faster sampling, so that the better budget meets the deadline, or a wider --margin",
    "not-established": "more episodes, or a wider --margin",
    "too-few-episodes": "more episodes, or a wider --margin",
    "disturbed": "a measurement of latencies on a quiet computer",
}


class Conclusion(NamedTuple):
    """A box at the top of a page; tone: its colour, which its label says as well."""

    tone: Tone
    label: str
    title: str
    lines: list[str]


def plain_conclusion(tone: Tone, title: str, lines: list[str], label: str = "") -> Conclusion:
    """A box whose words are given."""
    return Conclusion(tone, label or LABELS[tone], title, lines)


def conclusions_of(result: SweepResult) -> Iterator[Conclusion]:
    """The box of the last clock's recommendation in full, then those of the other clocks."""
    main = result.recommendation
    yield conclusion_of(result, main)
    for advice in result.recommendations:
        if clock_label(advice) != clock_label(main):
            tone, title = tone_of(result, advice), _sentence(headline(advice))
            label = f"{_label(tone, advice)}, {clock_label(advice)}"
            yield Conclusion(tone, label, title, [f"{_sentence(advice.reason)}."])


def conclusion_of(result: SweepResult, advice: Recommendation, task: str = "") -> Conclusion:
    """The box of a recommendation; task: shown first, where a page has several."""
    tone, where = tone_of(result, advice), f"{clock_label(advice)}, margin {advice.margin:g}"
    title = f"{task}: {headline(advice)}" if task else _sentence(headline(advice))
    lines = [f"{_sentence(advice.reason)}.", *basis(result, advice), _change(advice, tone)]
    return Conclusion(tone, f"{_label(tone, advice)}, {where}", title, lines)


def _label(tone: Tone, advice: Recommendation) -> str:
    more = f", {LABELS['none'].lower()}" if tone == "preliminary" and advice.name is None else ""
    return LABELS[tone] + more


def tone_of(result: SweepResult, advice: Recommendation) -> Tone:
    """Amber for few episodes, green for a recommendation from enough of them."""
    if episodes_of(result) < FEW_EPISODES:
        return "preliminary"
    return "good" if advice.name else "none"


def episodes_of(result: SweepResult) -> int:
    """Episodes of each budget by one training seed."""
    first, last = result.provenance.seeds
    return last - first + 1


def basis(result: SweepResult, advice: Recommendation) -> Iterator[str]:
    """Sentences: success of the budget in question, episodes, and training."""
    rows = [row for row in result.rows if clock_label(row) == clock_label(advice)]
    chosen = advice.decision.chosen if advice.decision else None
    name = advice.name or (chosen.name if chosen else None)
    if row := next((row for row in rows if row.name == name), None):
        yield _outcome(row, result.provenance.outcome)
    paired = "paired episodes" if result.provenance.paired else "unpaired episodes"
    seeds = len(result.rows[0].training_seeds or [])
    of_seeds = f" by each of {seeds} training seeds" if seeds else ""
    yield f"n = {episodes_of(result)} {paired} of each budget{of_seeds}; {_training(result)}."


def _outcome(row: BudgetResult, metric: Metric) -> str:
    low, high = row.success_ci if metric == "success" else row.score_ci
    if metric == "score":
        return (
            f"{_sentence(row.name)} has a mean score of {row.score_mean:.2f} (95 % interval "
            f"{low:.2f} to {high:.2f}) and succeeded in {row.successes} of {row.episodes} episodes."
        )
    return (
        f"{_sentence(row.name)} succeeded in {row.successes} of {row.episodes} episodes "
        f"(95 % interval {low:.2f} to {high:.2f})."
    )


def _training(result: SweepResult) -> str:
    """Demonstrations, optimiser steps and weights, as far as they are known."""
    source, weights = result.provenance.checkpoint, result.rows[0].parameters
    found = [counted(source.episodes, "demonstration")] if source.episodes else []
    found += [counted(source.step, "training step")] if source.step else []
    found += [f"{weights / 1e6:.2g} million weights"] if weights else []
    return ", ".join(found) or "the training is not known"


def _change(advice: Recommendation, tone: Tone) -> str:
    verdict = advice.decision.verdict if advice.decision else None
    change = CHANGES.get(verdict or ("recommended" if advice.name else ""), "more episodes")
    few = f"fewer than {FEW_EPISODES} episodes say little; " if tone == "preliminary" else ""
    return f"What would change it: {few}{change}. {PLAN} prints the episodes that margins need."


def _sentence(text: str) -> str:
    """The text with a capital letter, unless it begins with a number."""
    return text[:1].upper() + text[1:]
