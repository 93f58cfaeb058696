"""Layout of the plot of latency against success: the facts of a sweep, as places in px."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

from ..measure.result_files import SweepResult
from ..measure.results import BudgetResult, Metric
from .axes import Axis, Tick, around
from .labels import Box, free_place
from .sentences import clock_label, episodes_label, figures, short_name

WIDTH, HEIGHT = 460, 350
LEFT, RIGHT, TOP, BOTTOM = 46, 448, 44, 304  # px of the axes
MARKS = {"DDPM": 1, "regression": 2}  # shape of a kind; others have one each
SHAPES = (
    "M-5 0a5 5 0 1 0 10 0a5 5 0 1 0-10 0",  # circle
    "M0-6.5L6.5 0L0 6.5L-6.5 0Z",  # diamond
    "M-4.5-4.5H4.5V4.5H-4.5Z",  # square
    "M0-6L5.5 4.5H-5.5Z",  # triangle
    "M0 6L5.5-4.5H-5.5Z",
    "M-2-6H2V-2H6V2H2V6H-2V2H-6V-2H-2Z",  # cross
    "M-6 0L-2-2L0-6L2-2L6 0L2 2L0 6L-2 2Z",  # star
)
MEANS: dict[Metric, tuple[str, str]] = {
    "success": ("success_rate", "success_ci"),
    "score": ("score_mean", "score_ci"),
}


class Mark(NamedTuple):
    """A budget: its place, the ends of its interval in y, and its figures."""

    clock: int
    kind: int
    x: float
    y: float
    low: float
    high: float
    label: str
    label_x: float
    label_y: float
    figures: list[str]
    recommended: bool


class Line(NamedTuple):
    """Budgets of one kind on one clock, joined."""

    clock: int
    kind: int
    points: str


class Band(NamedTuple):
    """The margin below the best mean of a clock."""

    clock: int
    top: float
    height: float


@dataclass(frozen=True)
class Panel:
    """One outcome on one kind of axis."""

    metric: Metric
    log: bool
    marks: list[Mark]
    lines: list[Line]
    bands: list[Band]
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    control_tick: float | None


@dataclass(frozen=True)
class Kind:
    """A method, run or strategy, and the path of its mark."""

    name: str
    path: str


@dataclass(frozen=True)
class Trade:
    """The plot: its title, the switches, and a panel for each outcome and axis."""

    title: str
    clocks: list[str]
    kinds: list[Kind]
    panels: list[Panel]
    control_tick_ms: float


def trade_of(result: SweepResult) -> Trade:
    """The layout of a sweep; the score has a panel if it says more than success."""
    clocks = list(dict.fromkeys(map(clock_label, result.rows)))
    kinds = kinds_of(result.rows)
    metrics: list[Metric] = ["success"]
    if any(row.success_rate != row.score_mean for row in result.rows):
        metrics.append("score")
    tick_ms = 1000 * result.provenance.control_dt_s
    return Trade(
        title=f"{short_name(result.provenance.env)}, {episodes_label(result.rows)}",
        clocks=clocks,
        kinds=[Kind(name, SHAPES[i]) for name, i in kinds.items()],
        panels=[_panel(result, m, log, clocks, kinds) for m in metrics for log in (True, False)],
        control_tick_ms=tick_ms,
    )


def kind_of(row: BudgetResult) -> str:
    """The run, the method and the strategy of a budget, as far as they differ from the usual."""
    return ", ".join(filter(None, [row.run, row.variant])) or "default sampler"


def kinds_of(rows: Sequence[BudgetResult]) -> dict[str, int]:
    """{kind: number of its shape}, comparators last; shapes repeat if there are many."""
    variants = {kind_of(row): row.variant for row in rows}
    others = [kind for kind, variant in variants.items() if variant not in MARKS]
    free = [0, *range(3, len(SHAPES))]
    found = {kind: free[i % len(free)] for i, kind in enumerate(others)}
    return found | {kind: MARKS[v] for kind, v in variants.items() if v in MARKS}


def _panel(
    result: SweepResult, metric: Metric, log: bool, clocks: list[str], kinds: dict[str, int]
) -> Panel:
    rows, (mean, interval) = result.rows, MEANS[metric]
    tick_ms = 1000 * result.provenance.control_dt_s
    times = [max(row.latency_ms.p50, 1e-3) for row in rows]
    low, high = around(times, log)
    x = Axis(low if log else 0.0, high, LEFT, RIGHT, log)
    ends = [end for row in rows for end in getattr(row, interval)]
    rate = metric == "success" or (min(ends) >= 0 and max(ends) <= 1)
    y = Axis(*((-0.03, 1.05) if rate else around(ends)), BOTTOM, TOP)
    names = list(kinds)
    marks = []
    for row in rows:
        at = x(max(row.latency_ms.p50, 1e-3)), y(getattr(row, mean))
        low, high = (y(end) for end in getattr(row, interval))
        label = "" if row.variant in MARKS else str(row.ddim_steps)
        marks.append(
            Mark(
                clock=clocks.index(clock_label(row)),
                kind=names.index(kind_of(row)),
                x=at[0],
                y=at[1],
                low=low,
                high=high,
                label=label,
                label_x=0,
                label_y=0,
                figures=figures(row),
                recommended=recommended_on(result, clock_label(row)) == row.name,
            )
        )
    lines = _lines(marks)
    taken = [*_taken(marks, lines)]
    return Panel(
        metric=metric,
        log=log,
        marks=[_labelled(mark, taken) for mark in marks],
        lines=lines,
        bands=_bands(result, metric, mean, clocks, y),
        x_ticks=x.ticks(),
        y_ticks=y.ticks(6),
        control_tick=x(tick_ms) if x.low <= tick_ms <= x.high else None,
    )


def recommended_on(result: SweepResult, clock: str) -> str | None:
    """The budget that is recommended on the clock of a label."""
    return next((r.name for r in result.recommendations if clock_label(r) == clock), None)


def _labelled(mark: Mark, taken: list[Box]) -> Mark:
    """The mark with a place for its label [px from it], away from all that is taken."""
    found = free_place((mark.x, mark.y), 7 * len(mark.label), taken)
    taken.append(found)
    return mark._replace(label_x=round(found.x - mark.x, 1), label_y=round(found.y - mark.y, 1))


def _taken(marks: Sequence[Mark], lines: Sequence[Line]) -> Iterator[Box]:
    """The space of the axes, the marks, their intervals and the lines."""
    yield Box(LEFT / 2, HEIGHT / 2, LEFT / 2, HEIGHT / 2)
    yield Box(WIDTH / 2, BOTTOM + 20, WIDTH / 2, 20)
    yield Box(WIDTH / 2, 18, WIDTH / 2, 18)  # the titles
    for mark in marks:
        yield Box(mark.x, mark.y, 7, 7)
        yield Box(mark.x, (mark.low + mark.high) / 2, 2, abs(mark.low - mark.high) / 2)
    for line in lines:
        places = [tuple(map(float, point.split(","))) for point in line.points.split()]
        for (x0, y0), (x1, y1) in pairwise(places):
            count = 1 + int(max(abs(x1 - x0), abs(y1 - y0)) / 6)
            shares = (i / count for i in range(count))
            yield from (Box(x0 + s * (x1 - x0), y0 + s * (y1 - y0), 2, 2) for s in shares)


def _lines(marks: Sequence[Mark]) -> list[Line]:
    """A line for each kind with several budgets on a clock; comparators have no number."""
    groups = dict.fromkeys((mark.clock, mark.kind) for mark in marks)
    found = []
    for clock, kind in groups:
        points = [(m.x, m.y) for m in marks if (m.clock, m.kind) == (clock, kind) and m.label]
        if len(points) > 1:
            found.append(Line(clock, kind, " ".join(f"{px},{py}" for px, py in sorted(points))))
    return found


def _bands(
    result: SweepResult, metric: Metric, mean: str, clocks: list[str], y: Axis
) -> list[Band]:
    """[best - margin, best] on each clock, of the compared outcome alone."""
    if metric != result.provenance.outcome:
        return []
    found = []
    for number, clock in enumerate(clocks):
        best = max(getattr(row, mean) for row in result.rows if clock_label(row) == clock)
        top = y(best)
        found.append(Band(number, top, round(y(best - result.provenance.margin) - top, 1)))
    return found
