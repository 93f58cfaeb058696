"""suite.html and the suite's tables: tasks × budgets with intervals, and means over tasks."""

import html
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from ..measure.result_files import SuiteResult
from ..measure.results import Metric
from ..significance import mean_interval, over_tasks, wilson
from .figure import picture_in, plain
from .page import html_table, image, page, paragraph
from .sentences import verdict
from .table import print_table

OUTCOMES: tuple[Metric, ...] = ("success", "score")
OVER_TASKS = {"mean": 0.0, "IQM": 0.25}  # the share of tasks left out at each end
STRIPS = ("strip.png", "film.png")  # picture of an episode, in the folder of its task
NOTE = (
    "Means with 95 % intervals over episodes of one training run each. IQM: the mean of the middle "
    "half of the tasks (after Agarwal et al., 2021). Intervals of both are a bootstrap of the "
    "episodes within each task; there is none where all outcomes are equal."
)


class Estimate(NamedTuple):
    """A mean and its 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        if self.low == self.high:  # equal outcomes: a bootstrap cannot estimate their spread
            return f"{self.value:.2f}"
        return f"{self.value:.2f} [{self.low:.2f}, {self.high:.2f}]"


Table = dict[str, dict[str, Estimate]]  # {budget: {task, "mean" or "IQM": estimate}}
Tables = dict[tuple[str, str], Table]  # by clock, and success or score


def tables_of(result: SuiteResult) -> Tables:
    """Every table of the report."""
    clocks = clocks_of(result)
    return {(c, o): table_of(result, c, o) for c in clocks for o in OUTCOMES}


def table_of(result: SuiteResult, clock: str, outcome: Metric) -> Table:
    """Success (or score) of every budget in every task, and over tasks."""
    rows: dict[str, dict[str, np.ndarray]] = {}
    for task, swept in result.tasks.items():
        for row in swept.rows:
            if row.clock == clock:
                found = np.array(getattr(row.outcomes, outcome), float)
                rows.setdefault(row.name, {})[task] = found
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


def _estimate(found: np.ndarray, outcome: Metric) -> Estimate:
    interval = (
        wilson(int(found.sum()), len(found)) if outcome == "success" else mean_interval(found)
    )
    return Estimate(float(found.mean()), *interval)


def clocks_of(result: SuiteResult) -> list[str]:
    """The clocks of the sweeps."""
    return list(dict.fromkeys(row.clock for swept in result.tasks.values() for row in swept.rows))


def print_suite(result: SuiteResult, tables: Tables) -> None:
    """Every table and every recommendation on the terminal."""
    for (clock, outcome), table in tables.items():
        print(f"\n{outcome}, {clock}")
        print_table(*cells(table, result.tasks))
    for task, swept in result.tasks.items():
        print(f"{task}: {verdict(swept.recommendation)}")


def cells(table: Table, tasks: Iterable[str]) -> tuple[list[str], list[list[str]]]:
    """Titles and rows of one table."""
    titles = ["budget", *tasks, *OVER_TASKS]
    return titles, [
        [budget, *(str(row.get(column, "–")) for column in titles[1:])]
        for budget, row in table.items()
    ]


def suite_plot(result: SuiteResult, tables: Tables) -> Figure:
    """Score of every task, and their mean, over the budgets, a panel for each clock."""
    clocks = clocks_of(result)
    figure, axes = plt.subplots(
        1, len(clocks), figsize=(5.5 * len(clocks), 4), sharey=True, squeeze=False
    )
    for axis, clock in zip(axes[0], clocks, strict=True):
        table = tables[clock, "score"]
        for column in (*result.tasks, "mean"):
            y = np.array([row[column] for row in table.values() if column in row])
            if not len(y):
                continue
            spread = np.abs(y[:, 1:].T - y[:, 0])
            thick = 2.5 if column == "mean" else 1.2
            budgets = [plain(budget) for budget, row in table.items() if column in row]
            axis.errorbar(
                budgets, y[:, 0], spread, fmt="o-", lw=thick, ms=4, capsize=2, label=plain(column)
            )
        axis.set(title=f"mean score, {plain(clock)}", ylim=(-0.03, 1.05))
        axis.tick_params(axis="x", rotation=40)
        axis.grid(alpha=0.25)
    axes[0][0].legend(fontsize=8)
    figure.tight_layout()
    return figure


def suite_page(result: SuiteResult, tables: Tables, plot: bytes, folder: Path) -> str:
    """The page of a result whose tasks have their folders in `folder`; plot: a PNG."""
    parts = [
        f'<div class="verdict"><b>{html.escape(task)}</b>: '
        f"{html.escape(verdict(swept.recommendation))}.</div>"
        for task, swept in result.tasks.items()
    ]
    parts.append(image(plot, "score over budgets"))
    for (clock, outcome), table in tables.items():
        parts.append(f"<h2>{outcome.capitalize()}, {html.escape(clock)}</h2>")
        parts.append(html_table(*cells(table, result.tasks)))
    parts.append(paragraph(NOTE))
    for task in result.tasks:
        parts += [f"<h2>{html.escape(task)}</h2>", _strip(folder, task)]
    title = f"diffpolicy suite, {result.budget}: how many denoising steps can you afford?"
    return page(title, parts)


def strip_of(folder: Path) -> Path | None:
    """The picture of an episode in a task's folder."""
    return next((folder / name for name in STRIPS if (folder / name).is_file()), None)


def _strip(folder: Path, task: str) -> str:
    path = strip_of(folder / task) or folder / task / STRIPS[0]
    found = picture_in(folder, f"{task}/{path.name}")
    if found is None:
        return paragraph(f"No picture of an episode: {path} is absent or no PNG in this folder.")
    return image(found, f"{task}, one episode")
