"""delays.html: strategies for late chunks at every pattern of delays, with what each costs."""

from ..measure.decisions import AgainstDrop
from ..measure.result_files import DelaysResult
from ..measure.results import BudgetResult
from .figure import data_uri
from .numbers import NOTHING, rounded
from .page import Illustration, Links, Table, origin_of, render, text_table
from .sentences import pairing, short_name

UNITS = (
    "Success and score have 95 % intervals. Δ is the paired difference to the same budget with "
    "--late drop at the same delays, with its interval where ten or more episodes differ. "
    "Evaluations and gradients of the network are those of a chunk; ms a replan is the median "
    "latency that the clock used. Seam jump is the step between the last action of a chunk and "
    "the first of the next one, in units of the actions; jerk is in those units / s³. Expected is "
    "the mean of the expected less the true delay in ticks, missed the share of chunks that came "
    "later than expected."
)


def delays_page(result: DelaysResult, plot: bytes, links: Links = ()) -> str:
    """The page of a result; plot: a PNG."""
    patterns = dict.fromkeys(row.latency_source for row in result.rows)
    first, last = result.provenance.seeds
    return render(
        "delays.html",
        title=f"Late chunks in {short_name(result.provenance.env)}, n = {last - first + 1}",
        conclusions=[],
        plot=Illustration(data_uri(plot), "Success and score over the delay"),
        tables=[_table(result, delays) for delays in patterns],
        method=[UNITS, pairing(result.provenance)],
        origin=origin_of(result.provenance, links),
    )


def _table(result: DelaysResult, delays: str) -> Table:
    rows = [row for row in result.rows if row.latency_source == delays]
    return text_table(delays, TITLES, [_cells(row, result.against_drop(row)) for row in rows])


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
        _interval(against.difference, against.difference_ci) if against else NOTHING,
        rounded(against and against.p_mcnemar),
        *map(rounded, (row.delay_ticks, row.delay_error, row.prefix_miss_share)),
        str(row.starved_ticks),
        *map(rounded, (row.action_age_ms_p50, row.seam_jump, row.seam_jerk)),
        *map(rounded, (row.network_evals, row.gradient_evals, row.latency_ms.p50)),
    ]


def _interval(mean: float, ends: tuple[float, float] | None) -> str:
    return f"{mean:.3f}" if ends is None else "{:.3f} [{:.3f}, {:.3f}]".format(mean, *ends)
