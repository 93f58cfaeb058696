"""Tables on the terminal."""

from collections.abc import Sequence
from itertools import groupby, pairwise
from typing import Any

from diffpolicy.terminal.output import WIDTH, wrapped

from ..measure.decisions import AgainstDrop
from ..measure.result_files import LatencyFile
from ..measure.results import BudgetResult, LatencyResult
from ..measure.simulated import Simulation
from .numbers import rounded
from .sentences import clock_label, deadlines, load_of, remarks


def print_table(titles: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Right-aligned columns under their titles; None is shown as a dash."""
    for line in _lines(titles, rows):
        print(line)


def _lines(titles: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    """Lines of a table; where it has more than WIDTH columns, each row takes several lines.

    The first cells, such as a name, stand above the others, which are in columns within WIDTH.
    """
    cells = [list(titles), *[[_text(cell) for cell in row] for row in rows]]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    if sum(widths) + 2 * len(widths) - 2 <= WIDTH or len(widths) == 1:
        return [_row(row, widths) for row in cells]
    starts = _starts(widths)
    return [
        "  ".join(row[: starts[0]])
        + "".join(f"\n    {_row(row[i:j], widths[i:j])}" for i, j in pairwise(starts))
        for row in cells
    ]


def _starts(widths: Sequence[int]) -> list[int]:
    """First cells of the lines below the first one, from the last line up, and the end."""
    starts, end = [len(widths)], len(widths)
    while end > 1:
        start = end - 1
        while start > 1 and sum(widths[start - 1 : end]) + 2 * (end - start) <= WIDTH - 4:
            start -= 1
        starts.insert(0, start)
        end = start
    return starts


def _row(row: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True))


def _text(cell: Any) -> str:
    if cell is None:
        return "-"
    return rounded(cell) if isinstance(cell, float) else str(cell)


def print_rows(rows: Sequence[BudgetResult]) -> None:
    """The table of budgets under the name of each clock, and the remarks on them."""
    titles = ["budget", "success", "95 % interval", "score", "p50 ms"]
    titles += ["delay ticks", "age ms", "starved"]
    cells = [_cells(row) for row in rows]
    if any(row.encoder_ms for row in rows):
        titles.append("encoder ms")
        cells = [[*c, row.encoder_ms] for c, row in zip(cells, rows, strict=True)]
    if any(row.failures for row in rows):
        titles.append("failed")
        cells = [[*c, len(row.failures)] for c, row in zip(cells, rows, strict=True)]
    print()  # below the lines of the engines
    header, *lines = _lines(titles, cells)
    print(header)
    for clock, group in groupby(zip(rows, lines, strict=True), lambda pair: _clock(pair[0])):
        of_clock = list(group)
        print(f"{clock}{_disturbed([row for row, _ in of_clock])}:")
        for _, line in of_clock:
            print(line)
    for row in rows:
        for remark in remarks(row):
            print(f"warning: {row.name}, {row.clock}: {remark}")


def _clock(row: BudgetResult) -> str:
    return f"{clock_label(row)}, n = {row.episodes}"


def _disturbed(rows: Sequence[BudgetResult]) -> str:
    """The budgets of a clock whose latencies were disturbed, as the end of its name."""
    names = [row.name for row in rows if load_of(row) == "disturbed"]
    some = f" ({'; '.join(names)})" if len(names) < len(rows) else ""
    return f", disturbed{some}" if names else ""


def _cells(row: BudgetResult) -> list[Any]:
    low, high = row.success_ci
    return [
        row.name,
        f"{row.success_rate:.2f}",
        f"{low:.2f} to {high:.2f}",
        f"{row.score_mean:.3f}",
        f"{row.latency_ms.p50:.2f}",
        f"{row.delay_ticks:.1f}",
        row.action_age_ms_p50,
        row.starved_ticks,
    ]


def print_comparisons(comparisons: Sequence[AgainstDrop]) -> None:
    """The table of strategies for late chunks by their paired differences to drop."""
    titles = ["latency", "budget", "compared by", "- drop", "95 % interval", "p"]
    print()
    print_table(titles, [_differences(found) for found in comparisons])


def _differences(found: AgainstDrop) -> list[Any]:
    ends = found.difference_ci
    interval = "{:+.3f} to {:+.3f}".format(*ends) if ends else None
    about = [found.delays, found.name, found.metric, f"{found.difference:+.3f}"]
    return [*about, interval, found.p_mcnemar]


def print_latencies(result: LatencyFile) -> None:
    """The table of latencies in ms, and the largest budget of each engine in time.

    What all rows share stands above the table.
    """
    several = len({row.net for row in result.rows}) > 1
    coded = any(row.encoder_ms for row in result.rows)
    headed = any(row.head_ms for row in result.rows)
    loads = {row.load for row in result.rows}
    titles = ["network"] * several + ["steps", "engine"]
    titles += ["encoder", "loop"] * coded + ["head"] * headed
    titles += ["p50", "p90", "p99", "p99.9", "max", "samples", "× baseline", "GPU alone"]
    titles += ["load"] * (len(loads) > 1)
    cells = []
    for row in result.rows:
        ms, threads = row.latency_ms, f", threads {row.threads}" if row.threads else ""
        cells.append(
            [
                *([row.net] * several),
                *(row.ddim_steps, row.engine + threads),
                *(_parts(row) * coded),
                *([row.head_ms] * headed),
                *(ms.p50, ms.p90, ms.p99, ms.p99_9, ms.max, ms.samples),
                *(row.ratio_to_baseline, row.gpu_ms),
                *([row.load] * (len(loads) > 1)),
            ]
        )
    used = [any(row[i] is not None for row in cells) for i in range(len(titles))]
    cells = [[cell for cell, kept in zip(row, used, strict=True) if kept] for row in cells]
    print(_latency_title(result.rows))
    print_table([title for title, kept in zip(titles, used, strict=True) if kept], cells)
    for line in deadlines(result):
        print(wrapped(line))


def _latency_title(rows: Sequence[LatencyResult]) -> str:
    """The unit, the common load, and the largest difference of an engine from eager."""
    [load, *others] = {row.load for row in rows}
    text = "latency of one control step in ms" + (f", {load}" if load and not others else "")
    differences = [row.max_abs_diff for row in rows if row.max_abs_diff is not None]
    if differences:
        text += f"; largest difference from eager {max(differences):.2g}"
    return f"{text}:"


def _parts(row: LatencyResult) -> tuple[float | None, float]:
    """Median of the encoder, and the rest of the whole median: the loop, at least 0.

    Both are medians of calls of their own, so the encoder's can be the larger one.
    """
    return row.encoder_ms, max(0.0, row.latency_ms.p50 - (row.encoder_ms or 0))


def print_simulation(result: Simulation) -> None:
    """Size and power of each rule in each scenario."""
    titles = ["true losses", "metric", "episodes", "margin", "rule", "size", "power"]
    rows = [
        [row.name, row.outcome, row.episodes, row.margin, rule, found.size, found.power]
        for row in result.rows
        for rule, found in row.rules.items()
    ]
    print_table(titles, rows)
