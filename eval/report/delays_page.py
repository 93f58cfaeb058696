"""delays.html: strategies for late chunks at every pattern of delays, with what each costs."""

import html
import json
from dataclasses import asdict

from ..measure.decisions import AgainstDrop
from ..measure.result_files import DelaysResult
from ..measure.results import BudgetResult
from .page import html_table, image, page, paragraph
from .sentences import pairing

UNITS = (
    "Success and score have 95 % intervals. Δ is the paired difference to the same budget with "
    "--late drop at the same delays, with its interval where ten or more episodes differ. "
    "Evaluations and gradients of the network are those of a chunk; ms a replan is the median "
    "latency that the clock used. Seam jump is the step between the last action of a chunk and "
    "the first of the next one, in units of the actions; jerk is in those units / s³. Expected is "
    "the mean of the expected less the true delay in ticks, missed the share of chunks that came "
    "later than expected."
)


def delays_page(result: DelaysResult, plot: bytes) -> str:
    """The page of a result; plot: a PNG."""
    parts = [
        image(plot, "success and score over the delay, a line for each strategy"),
        paragraph(UNITS),
        paragraph(pairing(result.provenance)),
    ]
    for delays in dict.fromkeys(row.latency_source for row in result.rows):
        rows = [row for row in result.rows if row.latency_source == delays]
        cells = [_cells(row, result.against_drop(row)) for row in rows]
        parts += [f"<h2>{html.escape(delays)}</h2>", html_table(TITLES, cells)]
    about = json.dumps(asdict(result.provenance), indent=2)
    parts += ["<h2>Provenance</h2>", f"<pre>{html.escape(about)}</pre>"]
    return page(f"Late chunks in {result.provenance.env}", parts)


TITLES = (
    "budget",
    "success",
    "score",
    "Δ to drop",
    "p",
    "delay",
    "expected",
    "missed",
    "starved",
    "age ms",
    "seam jump",
    "seam jerk",
    "evaluations",
    "gradients",
    "ms a replan",
)


def _cells(row: BudgetResult, against: AgainstDrop | None) -> list[str]:
    """The cells of TITLES."""
    return [
        row.name,
        _interval(row.success_rate, row.success_ci),
        _interval(row.score_mean, row.score_ci),
        _interval(against.difference, against.difference_ci) if against else "–",
        _number(against and against.p_mcnemar),
        *map(_number, (row.delay_ticks, row.delay_error, row.prefix_miss_share)),
        str(row.starved_ticks),
        *map(_number, (row.action_age_ms_p50, row.seam_jump, row.seam_jerk)),
        *map(_number, (row.network_evals, row.gradient_evals, row.latency_ms.p50)),
    ]


def _interval(mean: float, ends: tuple[float, float] | None) -> str:
    return f"{mean:.3f}" if ends is None else "{:.3f} [{:.3f}, {:.3f}]".format(mean, *ends)


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}"
