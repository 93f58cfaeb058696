"""suite.html and the suite's tables: tasks × budgets with intervals, and means over tasks."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from ..measure.result_files import SuiteResult
from ..measure.results import Metric
from ..significance import mean_interval, over_tasks, wilson
from .conclusions import conclusion_of
from .figure import data_uri, plain
from .page import Illustration, Links, Origin, illustration_in, render, text_table
from .sentences import verdict
from .table import print_table
from .trade import trade_of

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


def suite_page(
    result: SuiteResult, tables: Tables, plot: bytes, folder: Path, links: Links = ()
) -> str:
    """The page of a result whose tasks have their folders in `folder`; plot: a PNG."""
    about = next(iter(result.tasks.values())).provenance
    return render(
        "suite.html",
        title=f"diffpolicy suite, {result.budget}: how many denoising steps can you afford?",
        conclusions=[
            conclusion_of(swept, swept.recommendation, task) for task, swept in result.tasks.items()
        ],
        plot=Illustration(data_uri(plot), "Mean score of each task over the budgets"),
        tables=[
            text_table(f"{outcome.capitalize()}, {clock}", *cells(table, result.tasks))
            for (clock, outcome), table in tables.items()
        ],
        tasks=[
            {"name": task, "trade": trade_of(swept), "strip": _strip(folder, task)}
            for task, swept in result.tasks.items()
        ],
        note=NOTE,
        origin=Origin(about, {"protocol": result.budget, **result.protocol}, [*links]),
    )


def strip_of(folder: Path) -> Path | None:
    """The picture of an episode in a task's folder."""
    return next((folder / name for name in STRIPS if (folder / name).is_file()), None)


def _strip(folder: Path, task: str) -> Illustration:
    path = strip_of(folder / task) or folder / task / STRIPS[0]
    return illustration_in(
        folder, f"{task}/{path.name}", f"{task}, one episode at the largest budget"
    )
