"""Columns of the table of budgets."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from ..measure.results import BudgetResult
from .numbers import NOTHING, rounded
from .page import Cell, Head, Table
from .sentences import clock_label, load_of


class Column(NamedTuple):
    """Title, text of a row, number to sort by, and if it is hidden until asked for."""

    title: str
    text: Callable[[BudgetResult], str]
    value: Callable[[BudgetResult], float | None] = lambda row: None
    more: bool = False


def budgets_table(rows: Sequence[BudgetResult], caption: str) -> Table:
    """The table of budgets; columns without any value are left out."""
    columns = [*COLUMNS]
    columns += [ENCODER] * any(row.encoder_ms for row in rows)
    columns += [FAILED] * any(row.failures for row in rows)
    shown = [c for c in columns if any(c.text(row) != NOTHING for row in rows)]
    cells = [[Cell(c.text(row), c.value(row)) for c in shown] for row in rows]
    return Table(caption, [Head(c.title, c.more) for c in shown], cells)


def _optional(value: float | None, form: str) -> str:
    return NOTHING if value is None else form.format(value)


def _interval(ends: tuple[float, float]) -> str:
    return "{:.2f} to {:.2f}".format(*ends)


COLUMNS = (
    Column("budget", lambda r: r.name, lambda r: r.ddim_steps),
    Column("succeeded", lambda r: f"{r.successes} of {r.episodes}", lambda r: r.success_rate),
    Column("success", lambda r: f"{r.success_rate:.3f}", lambda r: r.success_rate),
    Column("95 %", lambda r: _interval(r.success_ci), lambda r: r.success_ci[0]),
    Column("clock", clock_label),
    Column("score", lambda r: f"{r.score_mean:.3f}", lambda r: r.score_mean),
    Column("95 % of score", lambda r: _interval(r.score_ci), lambda r: r.score_ci[0], True),
    Column("load", lambda r: load_of(r) or NOTHING),
    Column("p50 ms", lambda r: f"{r.latency_ms.p50:.2f}", lambda r: r.latency_ms.p50),
    Column(
        "p99 ms", lambda r: _optional(r.latency_ms.p99, "{:.2f}"), lambda r: r.latency_ms.p99, True
    ),
    Column("delay, ticks", lambda r: f"{r.delay_ticks:.2f}", lambda r: r.delay_ticks),
    Column(
        "action age, ms",
        lambda r: _optional(r.action_age_ms_p50, "{:.0f}"),
        lambda r: r.action_age_ms_p50,
    ),
    Column("starved ticks", lambda r: f"{r.starved_ticks:,}", lambda r: r.starved_ticks),
    Column(
        "deadline misses",
        lambda r: _optional(r.deadline_misses, "{:,}"),
        lambda r: r.deadline_misses,
        True,
    ),
    Column("replans", lambda r: f"{r.replans:,}", lambda r: r.replans, True),
    Column("seam jump", lambda r: rounded(r.seam_jump), lambda r: r.seam_jump, True),
    Column("seam jerk", lambda r: rounded(r.seam_jerk), lambda r: r.seam_jerk, True),
)
ENCODER = Column(
    "encoder p50, ms", lambda r: _optional(r.encoder_ms, "{:.2f}"), lambda r: r.encoder_ms
)
FAILED = Column("failed", lambda r: str(len(r.failures)), lambda r: len(r.failures))
