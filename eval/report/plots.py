"""Plots of success and score over latency, delay and budget, drawn from results."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator

from ..measure.result_files import DelaysResult, EvalResult, SweepResult
from ..measure.results import COMPARATORS, BudgetResult
from .figure import plain
from .sentences import clock_label, episodes_label, short_name
from .trade import kind_of, kinds_of

LINES = ("-", "--", ":", "-.")
MARKS = "oDs^vP*"  # of the numbers of `kinds_of`
NUMBERS = ((3, 5), (3, -11))  # points from a mark to its number: above, or below
COLOURS = ("#3b6fb6", "#d1495b", "#3a9a6c", "#8d6cab")
METRICS = (
    ("success rate", "success_rate", "success_ci"),
    ("mean score", "score_mean", "score_ci"),
)


def success_against_latency(result: SweepResult | EvalResult) -> Figure:
    """Success and score over the latency of each budget, one line a clock, 95 % intervals.

    Clocks by colour, kinds of budgets by mark; a ring around the recommended budgets, and the
    margin below the best one of the last clock.
    """
    figure, axes = plt.subplots(1, 2, figsize=(11, 4.4), sharex=True, constrained_layout=True)
    clocks = list(dict.fromkeys(map(clock_label, result.rows)))
    kinds = kinds_of(result.rows)
    for axis, (title, mean, interval) in zip(axes, METRICS, strict=True):
        for i, clock in enumerate(clocks):
            rows = [row for row in result.rows if clock_label(row) == clock]
            _draw_clock(
                axis, rows, mean, interval, COLOURS[i % len(COLOURS)], kinds, NUMBERS[i % 2]
            )
        _draw_advice(axis, result, mean, clocks)
        tick_ms = 1000 * result.provenance.control_dt_s
        axis.axvline(tick_ms, color="0.6", lw=1, ls=":")
        axis.set(xscale="log", xlabel="latency of one control step, p50 (ms)", title=title)
        axis.xaxis.set_major_locator(LogLocator(subs=(1, 3)))
        axis.xaxis.set_major_formatter("{x:g}")
        axis.grid(alpha=0.25)
        if all(is_rate(getattr(row, interval)) for row in result.rows):
            axis.set_ylim(-0.03, 1.05)
    name = short_name(result.provenance.env)
    figure.suptitle(plain(f"{name}, {episodes_label(result.rows)}"), fontsize=11)
    _legends(figure, clocks, kinds)
    return figure


def _legends(figure: Figure, clocks: Sequence[str], kinds: dict[str, int]) -> None:
    """One of the colours, one of the marks, below the axes."""
    colours = [
        Line2D([], [], color=COLOURS[i % len(COLOURS)], label=plain(clock))
        for i, clock in enumerate(clocks)
    ]
    marks = [
        Line2D([], [], ls="", marker=MARKS[i], color="0.3", label=plain(name))
        for name, i in kinds.items()
    ]
    dotted = Line2D([], [], color="0.6", lw=1, ls=":", label="one control tick")
    handles = [*colours, *marks, dotted]
    figure.legend(handles=handles, loc="outside lower center", ncols=4, fontsize=8)


def _draw_advice(axis, result: SweepResult | EvalResult, mean: str, clocks: Sequence[str]) -> None:
    """Rings around recommended budgets; the margin, if this is the compared outcome."""
    if not isinstance(result, SweepResult):
        return
    for advice in result.recommendations:
        for row in result.rows:
            if (clock_label(row), row.name) == (clock_label(advice), advice.name):
                colour = COLOURS[clocks.index(clock_label(row)) % len(COLOURS)]
                ring = {"mfc": "none", "mec": colour, "ms": 12, "mew": 1.8}
                axis.plot(row.latency_ms.p50, getattr(row, mean), "o", **ring)
    if mean.startswith(result.provenance.outcome):
        last = [row for row in result.rows if clock_label(row) == clocks[-1]]
        best, margin = max(getattr(row, mean) for row in last), result.provenance.margin
        axis.axhspan(
            best - margin, best, color=COLOURS[(len(clocks) - 1) % len(COLOURS)], alpha=0.1
        )


def is_rate(interval: Sequence[float]) -> bool:
    """True for an interval within [0, 1]: always for success, not always for a score."""
    return interval[0] >= 0 and interval[1] <= 1


def _draw_clock(
    axis,
    rows: Sequence[BudgetResult],
    mean: str,
    interval: str,
    colour: str,
    kinds: dict[str, int],
    numbers: tuple[int, int],
) -> None:
    """Budgets of each kind, joined by a line and with their numbers of steps, but comparators."""
    for kind, shape in kinds.items():
        group = [row for row in rows if kind_of(row) == kind]
        if not group:
            continue
        x = [row.latency_ms.p50 for row in group]
        y, spread = _error_bars(group, mean, interval)
        alone = group[0].variant in COMPARATORS
        line = "" if alone else "-"
        style = {"fmt": MARKS[shape] + line, "capsize": 2, "ms": 4.5, "lw": 1.3}
        axis.errorbar(x, y, spread, color=colour, **style)
        for row, *place in zip(group, x, y, strict=True):
            text = "" if alone else str(row.ddim_steps)
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
