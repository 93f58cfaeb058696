"""Rows of results against a reference, on the terminal, and their words for the page too."""

import textwrap
from collections import Counter
from collections.abc import Iterator, Sequence

from diffpolicy.terminal.output import WIDTH, wrapped

from ..measure.comparison_results import (
    Across,
    ComparedFile,
    CompareResult,
    Comparison,
    RowDifference,
    SuiteComparison,
    by_task,
)
from .numbers import rounded
from .table import print_table

LEAST = 10  # width of the column of budgets
VERDICTS = {
    "better": "better",
    "worse": "worse",
    "worse-within-margin": "worse, in margin",
    "non-inferior": "non-inferior",
    "identical": "identical",
    "not-established": "not established",
}
Group = tuple[str, list[RowDifference]]


def print_comparison(result: Comparison) -> None:
    """Each task of suites, or the one of other results."""
    for task, found in by_task(result).items():
        if task:
            print(f"\n{task}")
        _print_task(found)
    if isinstance(result, SuiteComparison):
        print()
        print(wrapped(suite_summary(result)))


def suite_summary(result: SuiteComparison) -> str:
    """Rows with a regression, and tasks that are not compared."""
    count = len(result.regressions)
    text = f"{len(result.tasks)} tasks, {len(result.rows)} rows, {count} with a regression"
    left_out = ", ".join(result.left_out)
    return text + (f"; not in every suite: {left_out}" if left_out else "")


def _print_task(result: CompareResult) -> None:
    """The files, a table for each file, clock and latency, and the remarks."""
    for file in result.files:
        print(wrapped(f"{file.label}  {file_line(file)}"))
    for title, rows in groups(result):
        print()
        print(wrapped(title))
        titles, cells = table(rows, result.across)
        print_table(titles, _fitted(titles, cells))
    print()
    for line in (summary(result), *remarks(result)):
        print(wrapped(line))


def file_line(file: ComparedFile) -> str:
    """A file with its policy, training, seeds and computer."""
    first, last = file.seeds
    step = "" if file.checkpoint.step is None else f" at step {file.checkpoint.step:,}"
    role = " (reference)" if file.label == "A" else ""
    return f"{file.file}{role}: {file.policy}{step}, seeds {first} to {last}, {file.device}"


def groups(result: CompareResult) -> Iterator[Group]:
    """(title, rows) of each file, clock and latency; latencies of one row each share a table."""
    for other, clock in dict.fromkeys((row.other, row.clock) for row in result.rows):
        rows = [row for row in result.rows if (row.other, row.clock) == (other, clock)]
        by_source = {source: [r for r in rows if _source(r) == source] for source in _sources(rows)}
        alone = all(len(found) == 1 for found in by_source.values())
        for found in [rows] if alone else by_source.values():
            yield f"{other} - A, {result.metric}, {_clock(found)}; {_pairing(found)}", found


def _clock(rows: Sequence[RowDifference]) -> str:
    """A clock with the latencies of both files, if they are one for all rows."""
    clock = rows[0].clock
    if clock == "paused":
        return "paused (zero latency)"
    return clock if len(_sources(rows)) > 1 else f"{clock} ({_source(rows[0])})"


def _pairing(rows: Sequence[RowDifference]) -> str:
    if not rows[0].paired:
        return "unpaired: no shared seeds that repeat"
    tested = any(row.p_mcnemar is not None for row in rows)
    return "paired by seed" + ", p by McNemar's test" * tested


def _sources(rows: Sequence[RowDifference]) -> list[str]:
    return list(dict.fromkeys(map(_source, rows)))


def _source(row: RowDifference) -> str:
    """The latencies of a row; one for all on the paused clock, which uses none."""
    theirs, ours = row.reference_source, row.source
    if row.clock == "paused":
        return ""
    return ours if theirs == ours else f"A {theirs}; {row.other} {ours}"


def table(rows: Sequence[RowDifference], across: Across) -> tuple[list[str], list[list[str]]]:
    """Titles and cells; ratios of latencies only where any differs from 1."""
    timed = any(r not in (None, 1.0) for row in rows for r in (row.p50_ratio, row.p95_ratio))
    other, several = rows[0].other, len(_sources(rows)) > 1
    titles = ["budget", "A", other, f"{other} - A", "95 % interval", "p", "episodes"]
    titles += ["p50×", "p95×"] * timed + ["verdict"]
    return titles, [[_name(row, across, several), *_cells(row, timed)] for row in rows]


def _name(row: RowDifference, across: Across, several: bool) -> str:
    """The budgets of a row, with its latency where those of a table differ."""
    theirs, ours = row.reference_budget, row.budget
    adds = across == "strategies" and ours.startswith(f"{theirs}, ")  # to the budget with drop
    name = ours if adds or ours == theirs else f"{theirs} → {ours}"
    return f"{name}; {_source(row).removeprefix('constant, ')}" if several else name


def _cells(row: RowDifference, timed: bool) -> list[str]:
    ratios = [_number(row.p50_ratio), _number(row.p95_ratio)] * timed
    return [
        number(row.reference_mean),
        number(row.mean),
        number(row.difference, "+"),
        interval(row),
        _p(row.p_mcnemar),
        f"{row.episodes} pairs" if row.paired else f"{row.reference_episodes} + {row.episodes}",
        *ratios,
        VERDICTS[row.verdict],
    ]


def number(value: float, sign: str = "") -> str:
    """A rate or a score: three decimals, or four digits of large ones."""
    return format(value, f"{sign}.3f" if abs(value) < 10 else f"{sign}.4g")


def interval(row: RowDifference) -> str:
    """The 95 % interval, or a dash."""
    if row.interval is None:
        return "-"
    return " to ".join(number(end, "+") for end in row.interval)


def _p(value: float | None) -> str:
    return "<0.001" if value is not None and value < 0.001 else _number(value)


def _number(value: float | None) -> str:
    return "-" if value is None else rounded(value, 2)


def _fitted(titles: Sequence[str], cells: Sequence[Sequence[str]]) -> list[list[str]]:
    """The cells with long budgets on several lines, so that the table is no wider than WIDTH."""
    others = [max(map(len, column)) + 2 for column in zip(titles, *cells, strict=True)][1:]
    width = max(WIDTH - sum(others), LEAST)
    found = []
    for name, *rest in cells:
        first, *more = textwrap.wrap(name, width) or [""]
        found += [[first, *rest], *([line, *[""] * len(rest)] for line in more)]
    return found


def summary(result: CompareResult) -> str:
    """Number of rows by verdict."""
    counts = Counter(VERDICTS[row.verdict] for row in result.rows)
    parts = ", ".join(f"{counts[name]} {name}" for name in VERDICTS.values() if counts[name])
    within = "" if result.margin is None else f" (margin {result.margin:g})"
    return f"{len(result.rows)} row{'s' * (len(result.rows) != 1)}{within}: {parts}"


def remarks(result: CompareResult) -> list[str]:
    """Facts that limit the comparison."""
    found = []
    if silent := [file.label for file in result.files if not file.says_rules]:
        found.append(
            f"{', '.join(silent)}: of an older version, without the rule of success and the "
            "longest episode; they are taken to be those of the others"
        )
    if result.across == "best":
        found.append(
            "the budgets were chosen on the same episodes, so their means are somewhat too good"
        )
    if disturbed := [row.budget for row in result.rows if row.disturbed]:
        found.append(f"disturbed latencies: {', '.join(dict.fromkeys(disturbed))}")
    return [*found, *_unmatched(result)]


def _unmatched(result: CompareResult) -> Iterator[str]:
    """A sentence for each file and clock with rows that have no partner."""
    for place in dict.fromkeys((row.label, row.clock) for row in result.unmatched):
        rows = [row for row in result.unmatched if (row.label, row.clock) == place]
        sources = {row.source for row in rows}
        where = sources.pop() if len(sources) == 1 else f"{len(sources)} latencies"
        clock = place[1] if place[1] == "paused" else f"{place[1]} ({where})"
        names = "; ".join(dict.fromkeys(row.budget for row in rows))
        yield f"without a partner in {place[0]}, {clock}: {names}"


def regression_line(result: Comparison) -> str:
    """The outcome of --fail-on-regression."""
    tasks = by_task(result)
    strict = any(of_task.margin is not None for of_task in tasks.values())
    if not result.regressions:
        return "every row is shown to lose less than the margin" if strict else "no regression"
    found = "a loss of less than the margin is not shown" if strict else "regression"
    names = [
        f"{task} {row.other} {row.budget} ({row.clock})".lstrip()
        for task, of_task in tasks.items()
        for row in of_task.regressions
    ]
    return f"{found} in {len(names)} of {len(result.rows)} rows: {', '.join(names)}"
