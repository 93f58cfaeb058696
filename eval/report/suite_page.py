"""The suite's report: tasks × budgets with intervals, means over tasks, pictures."""

import html
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from diffpolicy.files import write_text

from ..significance import mean_interval, over_tasks, wilson
from .plots import data_uri
from .sweep_page import headline, html_table, page
from .table import print_table

OUTCOMES = ("success", "score")
OVER_TASKS = {"mean": 0.0, "IQM": 0.25}  # the share of tasks left out at each end


class Estimate(NamedTuple):
    """A mean and its 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        if self.low == self.high:  # all alike: a bootstrap knows nothing of the spread
            return f"{self.value:.2f}"
        return f"{self.value:.2f} [{self.low:.2f}, {self.high:.2f}]"


Table = dict[str, dict[str, Estimate]]  # {budget: {task, "mean" or "IQM": estimate}}
Tables = dict[tuple[str, str], Table]  # by clock, and success or score


def tables_of(result: dict[str, Any]) -> Tables:
    """Every table of the report."""
    clocks = clocks_of(result)
    return {(c, o): table_of(result, c, o) for c in clocks for o in OUTCOMES}


def table_of(result: dict[str, Any], clock: str, outcome: str) -> Table:
    """Every budget's success (or score) in every task, and over tasks."""
    rows: dict[str, dict[str, np.ndarray]] = {}
    for task, swept in result["tasks"].items():
        for record in swept["records"]:
            if record["clock"] == clock:
                found = np.array(record["outcomes"][outcome], float)
                rows.setdefault(record["name"], {})[task] = found
    return {
        budget: {
            **{task: _estimate(found, outcome) for task, found in by_task.items()},
            **_over_tasks(list(by_task.values())),
        }
        for budget, by_task in rows.items()
    }


def _over_tasks(by_task: Sequence[np.ndarray]) -> dict[str, Estimate]:
    found = over_tasks(by_task, list(OVER_TASKS.values()))
    return {name: Estimate(*e) for name, e in zip(OVER_TASKS, found, strict=True)}


def _estimate(found: np.ndarray, outcome: str) -> Estimate:
    interval = (
        wilson(int(found.sum()), len(found)) if outcome == "success" else mean_interval(found)
    )
    return Estimate(float(found.mean()), *interval)


def clocks_of(result: dict[str, Any]) -> list[str]:
    """The clocks that the tasks were swept on."""
    records = [r for swept in result["tasks"].values() for r in swept["records"]]
    return list(dict.fromkeys(r["clock"] for r in records))


def print_suite(result: dict[str, Any], tables: Tables) -> None:
    """Every table and every recommendation on the terminal."""
    for (clock, outcome), table in tables.items():
        print(f"\n{outcome}, {clock}")
        print_table(*cells(table, result["tasks"]))
    for task, swept in result["tasks"].items():
        print(f"{task}: {verdict(swept)}")


def cells(table: Table, tasks: Iterable[str]) -> tuple[list[str], list[list[str]]]:
    """Titles and rows of one table."""
    titles = ["budget", *tasks, *OVER_TASKS]
    return titles, [
        [budget, *(str(row.get(column, "–")) for column in titles[1:])]
        for budget, row in table.items()
    ]


def verdict(swept: dict[str, Any]) -> str:
    """The recommendation of a task, in one sentence."""
    advice = swept["recommendation"]
    return f"{headline(advice)}: {advice['reason']}"


def suite_plot(result: dict[str, Any], tables: Tables) -> Figure:
    """Score of every task, and their mean, over the budgets, a panel for each clock."""
    clocks = clocks_of(result)
    figure, axes = plt.subplots(
        1, len(clocks), figsize=(5.5 * len(clocks), 4), sharey=True, squeeze=False
    )
    for axis, clock in zip(axes[0], clocks, strict=True):
        table = tables[clock, "score"]
        for column in (*result["tasks"], "mean"):
            y = np.array([row[column] for row in table.values() if column in row])
            spread = np.abs(y[:, 1:].T - y[:, 0])
            thick = 2.5 if column == "mean" else 1.2
            budgets = [budget for budget, row in table.items() if column in row]
            axis.errorbar(
                budgets, y[:, 0], spread, fmt="o-", lw=thick, ms=4, capsize=2, label=column
            )
        axis.set(title=f"mean score, {clock}", ylim=(-0.03, 1.05))
        axis.tick_params(axis="x", rotation=40)
        axis.grid(alpha=0.25)
    axes[0][0].legend(fontsize=8)
    figure.tight_layout()
    return figure


def write_suite_report(
    path: Path,
    result: dict[str, Any],
    tables: Tables,
    plot: bytes,
    films: dict[str, bytes],
) -> None:
    """One self-contained page; plot and films {task: …} are PNG."""
    title = f"diffpolicy suite, {result['budget']}: how many denoising steps can you afford?"
    parts = [
        f'<div class="verdict"><b>{task}</b>: {html.escape(verdict(swept))}.</div>'
        for task, swept in result["tasks"].items()
    ]
    parts.append(f'<img alt="score over budgets" src="{data_uri(plot)}">')
    for (clock, outcome), table in tables.items():
        parts.append(f"<h2>{outcome.capitalize()}, {clock}</h2>")
        parts.append(html_table(*cells(table, result["tasks"])))
    parts.append(
        "<p>Means with 95 % intervals over episodes, of one training each. IQM: the mean of the "
        "middle half of the tasks (after Agarwal et al., 2021). Intervals of both are a bootstrap "
        "of the episodes within each task; where all came out alike there is none.</p>"
    )
    for task, film in films.items():
        parts.append(f'<h2>{task}</h2><img alt="{task}, one episode" src="{data_uri(film)}">')
    write_text(path, page(title, parts))
