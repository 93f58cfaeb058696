"""Plots of success and score over latency, delay and budget, drawn from results."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from ..measure.result_files import DelaysResult, EvalResult, SweepResult
from ..measure.results import BudgetResult
from .figure import plain
from .sentences import clock_label

LINES = ("-", "--", ":", "-.")
MARKS = {"DDPM": "D", "regression": "s"}
NUMBERS = ((3, 5), (3, -11))  # points from a mark to its number: above, or below
COLOURS = ("#3b6fb6", "#d1495b", "#3a9a6c", "#8d6cab")
METRICS = (
    ("success rate", "success_rate", "success_ci"),
    ("mean score", "score_mean", "score_ci"),
)


def success_against_latency(result: SweepResult | EvalResult) -> Figure:
    """Success and score over the latency of each budget, one line a clock, 95 % intervals."""
    figure, axes = plt.subplots(1, 2, figsize=(11, 4.2), sharex=True, constrained_layout=True)
    for axis, (title, mean, interval) in zip(axes, METRICS, strict=True):
        for i, label in enumerate(dict.fromkeys(map(clock_label, result.rows))):
            rows = [row for row in result.rows if clock_label(row) == label]
            colour = COLOURS[i % len(COLOURS)]
            _draw_clock(axis, rows, mean, interval, label, colour, NUMBERS[i % 2])
        tick_ms = 1000 * result.provenance.control_dt_s
        axis.axvline(tick_ms, color="0.6", lw=1, ls=":", label="one control tick")
        axis.set(xscale="log", xlabel="latency of one control step, p50 (ms)", title=title)
        axis.grid(alpha=0.25)
        if all(is_rate(getattr(row, interval)) for row in result.rows):
            axis.set_ylim(-0.03, 1.05)
    axes[0].legend(fontsize=8, loc="best")
    return figure


def is_rate(interval: Sequence[float]) -> bool:
    """True for an interval within [0, 1]: always for success, not always for a score."""
    return interval[0] >= 0 and interval[1] <= 1


def _draw_clock(
    axis,
    rows: Sequence[BudgetResult],
    mean: str,
    interval: str,
    label: str,
    colour: str,
    numbers: tuple[int, int],
) -> None:
    """Budgets as a line for each variant, with their numbers of steps; the others as a mark."""
    variants = sorted({row.variant: None for row in rows}, key=lambda variant: variant in MARKS)
    for variant, line in zip(variants, LINES * len(variants), strict=False):
        mark = MARKS.get(variant)
        group = [row for row in rows if row.variant == variant]
        x = [row.latency_ms.p50 for row in group]
        y, spread = _error_bars(group, mean, interval)
        style = mark or "o" + line
        name = plain(f"{label}, {variant}" if variant else label)
        axis.errorbar(x, y, spread, fmt=style, color=colour, capsize=2, ms=4, lw=1.3, label=name)
        for row, *place in zip(group, x, y, strict=True):
            text = "" if mark else str(row.ddim_steps)
            offset = {"textcoords": "offset points", "fontsize": 7, "color": colour}
            axis.annotate(text, place, numbers, **offset)


def _error_bars(
    rows: Sequence[BudgetResult], mean: str, interval: str
) -> tuple[np.ndarray, np.ndarray]:
    """Means [R] of rows, and their distances [2, R] to the ends of the interval."""
    means = np.array([getattr(row, mean) for row in rows])
    return means, np.abs(np.array([getattr(row, interval) for row in rows]).T - means)


def success_against_delay(result: DelaysResult) -> Figure:
    """Success and score over constant delays in control ticks, a line each budget, 95 % intervals.

    Scores beyond [0, 1] have an axis of their own on the right.
    """
    figure, axis = plt.subplots(figsize=(5.5, 3.8), constrained_layout=True)
    rows = [row for row in result.rows if row.ticks is not None]
    names = list(dict.fromkeys(row.name for row in rows))
    beyond = not all(is_rate(row.score_ci) for row in rows)
    axes = axis, axis.twinx() if beyond else axis
    for i, (_, mean, interval) in enumerate(METRICS):
        metric = ("success", "score")[i]
        axes[i].set_ylabel(metric if beyond else "")
        for j, name in enumerate(names):
            line = [row for row in rows if row.name == name]
            ticks = [row.ticks or 0 for row in line]
            y, spread = _error_bars(line, mean, interval)
            label = plain(f"{metric}, {name}") if len(names) > 1 else metric
            style, colour = "o" + LINES[i], f"C{j if len(names) > 1 else i}"
            axes[i].errorbar(
                ticks, y, spread, fmt=style, color=colour, capsize=3, ms=4, label=label
            )
    tick_ms = 1000 * result.provenance.control_dt_s
    axis.set(
        xlabel=f"delay of every chunk (control ticks of {tick_ms:g} ms)",
        xticks=sorted({row.ticks or 0 for row in rows}),
        ylim=(-0.03, 1.05),
        title=plain(", ".join([result.provenance.env, *names[: len(names) == 1]])),
    )
    axis.grid(alpha=0.25)
    if beyond or len(names) > 1:
        figure.legend(loc="outside lower center", ncols=2, fontsize=7)
    elif names:
        axis.legend()
    return figure
