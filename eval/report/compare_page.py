"""Page of `diffpolicy compare`: verdicts, differences with intervals, and what they rest on."""

import html
import json
from collections.abc import Sequence

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from ..measure.comparison_results import CompareResult, RowDifference
from ..measure.result_files import json_of
from .compare_table import file_line, groups, remarks, summary, table
from .figure import plain, png
from .page import html_table, image, page, paragraph

COLOURS = {"better": "#3a9a6c", "worse": "#d1495b", "worse-within-margin": "#d1495b"}
NEUTRAL = "#3b6fb6"
GOOD = ("better", "non-inferior", "identical")
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


def compare_page(result: CompareResult) -> str:
    """The page of a comparison."""
    parts = [
        _box(result),
        *(paragraph(f"{file.label}: {file_line(file)}") for file in result.files),
        *map(paragraph, remarks(result)),
    ]
    for title, rows in groups(result):
        titles, cells = table(rows, result.across)
        plot = differences_plot(rows, [name for name, *_ in cells], result.margin)
        parts += [f"<h2>{html.escape(title)}</h2>", html_table(titles, cells)]
        parts.append(image(png(plot), _spoken(title, rows)))
    about = {name: value for name, value in json_of(result).items() if name != "records"}
    parts += ["<h2>Method</h2>", paragraph(METHODS), "<h2>Provenance</h2>"]
    parts.append(f"<pre>{html.escape(json.dumps(about, indent=2))}</pre>")
    return page(f"{result.env}: {len(result.files) - 1} against a reference", parts)


def _box(result: CompareResult) -> str:
    """The summary: green if every row is as good, red with a regression, else without a colour."""
    good = all(row.verdict in GOOD for row in result.rows)
    if not good and not result.regressions:
        return paragraph(summary(result))
    kind = "verdict none" if result.regressions else "verdict"
    return f'<p class="{kind}">{html.escape(summary(result))}</p>'


def differences_plot(
    rows: Sequence[RowDifference], names: Sequence[str], margin: float | None
) -> Figure:
    """Differences with their 95 % intervals, a line for each named row, and the margin."""
    height = 1 + 0.28 * len(rows)
    figure, axis = plt.subplots(figsize=(8, height), constrained_layout=True)
    for place, row in enumerate(rows):
        colour = COLOURS.get(row.verdict, NEUTRAL)
        axis.plot(row.difference, place, "o", color=colour, ms=5)
        if row.interval:
            axis.plot(row.interval, [place, place], color=colour, lw=1.5)
    axis.axvline(0, color="0.4", lw=1)
    if margin is not None:
        axis.axvline(-margin, color="0.6", lw=1, ls=":")
    axis.set_yticks(range(len(rows)), [plain(name) for name in names])
    axis.set_ylim(len(rows) - 0.5, -0.5)
    dotted = "" if margin is None else f"; dotted: a loss of the margin, {margin:g}"
    axis.set_xlabel(f"difference with its 95 % interval{dotted}")
    axis.grid(alpha=0.25, axis="x")
    return figure


def _spoken(title: str, rows: Sequence[RowDifference]) -> str:
    """The alternative text of a plot."""
    return f"{title}; {len(rows)} differences with their 95 % intervals, as in the table"
