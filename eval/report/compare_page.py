"""Page of `diffpolicy compare`: verdicts, differences with intervals, and what they rest on."""

from collections.abc import Iterator
from typing import Any

from ..measure.comparison_results import CompareResult, Comparison, SuiteComparison, by_task
from ..measure.result_files import json_of
from .compare_table import file_line, groups, remarks, summary, table
from .conclusions import Conclusion, plain_conclusion
from .differences_plot import differences_plot
from .page import Links, Origin, render, text_table
from .sentences import short_name

GOOD, WITHIN = ("better", "non-inferior", "identical"), "worse-within-margin"
METHODS = (
    "A difference is that of a file less the reference A. Pairs are episodes with the same seed: "
    "their interval is a bootstrap, with ten or more discordant pairs, and p is that of McNemar's "
    "exact test. Without shared seeds the interval is Newcombe's for success and Welch's for "
    "scores. Rows of as many training seeds in both count training seeds as random too; others "
    "count them as fixed. Better and worse: the 95 % interval excludes 0, or without an interval p "
    "is at most 0.05. Non-inferior: a loss of the margin or more is rejected at 5 %, one-sided. "
    "Nothing is adjusted for the number of rows. p50× and p95× are latencies divided by those "
    "of A."
)


def compare_page(result: Comparison, links: Links = ()) -> str:
    """The page of a comparison."""
    tasks = by_task(result)
    first = next(iter(tasks.values()))
    name = "Suites" if isinstance(result, SuiteComparison) else short_name(first.env)
    return render(
        "compare.html",
        title=f"{name}: {len(first.files) - 1} against a reference",
        conclusions=[_conclusion(of_task, task) for task, of_task in tasks.items()],
        groups=[group for task, of_task in tasks.items() for group in _groups(of_task, task)],
        method=METHODS,
        origin=Origin(None, _facts(result), [*links]),
    )


def _facts(result: Comparison) -> dict[str, Any]:
    """Facts of a comparison without its rows; of suites also their tasks."""
    if isinstance(result, SuiteComparison):
        first = _facts(next(iter(result.tasks.values())))
        tasks = {"tasks": [*result.tasks], "left_out": result.left_out}
        return tasks | {name: first[name] for name in ("margin", "across", "files")}
    left_out = ("records", "provenance")
    return {name: value for name, value in json_of(result).items() if name not in left_out}


def _groups(result: CompareResult, task: str) -> Iterator[dict[str, Any]]:
    """Table and plot of each file, clock and latency."""
    for title, rows in groups(result):
        titles, cells = table(rows, result.across)
        caption = f"{task}: {title}" if task else title
        plot = differences_plot(rows, [name for name, *_ in cells], result.margin, caption)
        yield {"table": text_table(caption, titles, cells), "plot": plot}


def _conclusion(result: CompareResult, task: str) -> Conclusion:
    """The summary: green if every row is as good, red with a regression, else without a colour."""
    good = all(row.verdict in GOOD for row in result.rows)
    tone = "none" if result.regressions else "good" if good else "plain"
    label = {"none": "Regression", "good": "No regression", "plain": "Undecided"}[tone]
    if tone == "plain" and all(row.verdict in (*GOOD, WITHIN) for row in result.rows):
        label = "Worse within the margin"
    lines = [f"{file.label}: {file_line(file)}" for file in result.files]
    title = f"{task}: {summary(result)}" if task else summary(result)
    return plain_conclusion(tone, title, [*lines, *remarks(result)], label)
