"""The suite's report: tasks × budgets with intervals, means over tasks, pictures."""

import html
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from diffpolicy.files import write_text

from .compare import mean_interval, over_tasks, wilson
from .pictures import data_uri
from .report import headline, html_table, page
from .table import print_table

OUTCOMES = ("success", "score")
OVER_TASKS = {"mean": 0.0, "IQM": 0.25}  # the share of tasks left out at each end


class Estimate(NamedTuple):
    """A mean and its 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.2f} [{self.low:.2f}, {self.high:.2f}]"


def table_of(result: dict[str, Any], clock: str, outcome: str) -> dict[str, dict[str, Estimate]]:
    """{budget: {task: estimate, "mean" and "IQM" over tasks}}; outcome: success or score."""
    rows: dict[str, dict[str, np.ndarray]] = {}
    for task, swept in result["tasks"].items():
        for record in swept["records"]:
            if record["clock"] == clock:
                found = np.array(record["outcomes"][outcome], float)
                rows.setdefault(record["name"], {})[task] = found
    return {
        budget: {
            **{task: _estimate(found, outcome) for task, found in by_task.items()},
            **{n: Estimate(*over_tasks(list(by_task.values()), t)) for n, t in OVER_TASKS.items()},
        }
        for budget, by_task in rows.items()
    }


def _estimate(found: np.ndarray, outcome: str) -> Estimate:
    interval = (
        wilson(int(found.sum()), len(found)) if outcome == "success" else mean_interval(found)
    )
    return Estimate(float(found.mean()), *interval)


def clocks_of(result: dict[str, Any]) -> list[str]:
    """The clocks that the tasks were swept on."""
    records = [r for swept in result["tasks"].values() for r in swept["records"]]
    return list(dict.fromkeys(r["clock"] for r in records))


def print_suite(result: dict[str, Any]) -> None:
    """Every table and every recommendation on the terminal."""
    for clock in clocks_of(result):
        for outcome in OUTCOMES:
            print(f"{outcome}, {clock}")
            print_table(*cells(result, clock, outcome))
    for task, swept in result["tasks"].items():
        print(f"{task}: {verdict(swept)}")


def cells(result: dict[str, Any], clock: str, outcome: str) -> tuple[list[str], list[list[Any]]]:
    """Titles and rows of one table."""
    titles = ["budget", *result["tasks"], *OVER_TASKS]
    table = table_of(result, clock, outcome)
    return titles, [
        [budget, *(str(row.get(column, "–")) for column in titles[1:])]
        for budget, row in table.items()
    ]


def verdict(swept: dict[str, Any]) -> str:
    """The recommendation of a task, in one sentence."""
    advice = swept["recommendation"]
    return f"{headline(advice)}: {advice['reason']}"


def suite_plot(result: dict[str, Any]) -> Figure:
    """Score of every task, and their mean, over the budgets, a panel for each clock."""
    clocks = clocks_of(result)
    figure, axes = plt.subplots(
        1, len(clocks), figsize=(5.5 * len(clocks), 4), sharey=True, squeeze=False
    )
    for axis, clock in zip(axes[0], clocks, strict=True):
        table = table_of(result, clock, "score")
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
    path: Path, result: dict[str, Any], plot: bytes, films: dict[str, bytes]
) -> None:
    """One self-contained page; plot and films {task: …} are PNG."""
    title = f"diffpolicy suite, {result['budget']}: how many denoising steps can you afford?"
    parts = [
        f'<div class="verdict"><b>{task}</b>: {html.escape(verdict(swept))}.</div>'
        for task, swept in result["tasks"].items()
    ]
    parts.append(f'<img alt="score over budgets" src="{data_uri(plot)}">')
    for clock in clocks_of(result):
        for outcome in OUTCOMES:
            parts.append(f"<h2>{outcome.capitalize()}, {clock}</h2>")
            parts.append(html_table(*cells(result, clock, outcome)))
    parts.append(
        "<p>Means with 95 % intervals over episodes, of one training each. IQM: the mean of the "
        "middle half of the tasks (Agarwal et al., 2021), its interval by a bootstrap within each "
        "task.</p>"
    )
    for task, film in films.items():
        parts.append(f'<h2>{task}</h2><img alt="{task}, one episode" src="{data_uri(film)}">')
    write_text(path, page(title, parts))
