"""report.html of a sweep: verdict, plot, one episode, films, outcomes, tables, training."""

from collections.abc import Iterator
from pathlib import Path

from ..measure.result_files import SweepResult
from ..measure.results import Video
from ..measure.timelines import Timeline
from .columns import budgets_table
from .conclusions import conclusions_of
from .curves_plot import curves_plots
from .method import method_of
from .outcome_grid import film_id, grids_of
from .page import Cell, Head, Illustration, Links, Table, illustration_in, origin_of, render
from .sentences import clock_label, pairing, remarks, short_name
from .timeline_plot import timeline_plot
from .trade import trade_of


def sweep_page(result: SweepResult, folder: Path, links: Links = ()) -> str:
    """The page of a result whose pictures lie in `folder`; links: names and addresses of files."""
    about = result.provenance
    return render(
        "sweep.html",
        title=f"How many denoising steps can {short_name(about.env)} afford?",
        conclusions=conclusions_of(result),
        trade=trade_of(result),
        pairing=pairing(about),
        timelines=[timeline_plot(each, about.control_dt_s) for each in _timelines(result)],
        films=[_film(video, folder) for video in result.videos or []],
        pictures=[
            illustration_in(folder, p.file, f"{p.title}; {p.caption}")
            if p.file
            else Illustration(None, f"{p.title}: no picture: {p.caption}")
            for p in result.pictures
        ],
        grids=grids_of(result),
        budgets=budgets_table(result.rows, "Success, latency and lateness of each budget"),
        remarks=[*_remarks(result)],
        differences=_differences(result),
        curves=curves_plots(result.curves or []),
        method=method_of(result),
        origin=origin_of(about, links),
    )


def _remarks(result: SweepResult) -> Iterator[str]:
    for row in result.rows:
        yield from (f"{row.name}, {clock_label(row)}: {text}." for text in remarks(row))


def _timelines(result: SweepResult) -> list[Timeline]:
    """The timelines, that of the recommended budget first."""
    found, name = result.timelines or [], result.recommendation.name
    return sorted(found, key=lambda each: each.budget != name)


def _film(video: Video, folder: Path) -> Illustration:
    """The video of one seed, or the reason of its absence."""
    if video.file is None:
        return Illustration(None, f"{video.title}: no picture: {video.caption}")
    name = "" if video.seed is None else film_id(video.seed)
    return illustration_in(folder, video.file, f"{video.title}; {video.caption}", name)


def _differences(result: SweepResult) -> Table:
    """Differences of the recommended (else the best) budget from every other."""
    kind = "Paired" if result.provenance.paired else "Unpaired"
    rows = [
        [
            Cell(c.reference),
            Cell(clock_label(advice)),
            Cell(c.other),
            Cell(f"{c.difference:+.3f}", c.difference),
            Cell("{:+.3f} to {:+.3f}".format(*c.difference_ci) if c.difference_ci else "–"),
            Cell(f"{c.p_noninferior:.3g}", c.p_noninferior),
            Cell("–" if c.p_mcnemar is None else f"{c.p_mcnemar:.3g}", c.p_mcnemar),
        ]
        for advice in result.recommendations
        for c in advice.comparisons
    ]
    return Table(f"{kind} differences", [Head(title) for title in DIFFERENCES], rows)


DIFFERENCES = (
    *("budget", "clock", "against", "difference", "95 %", "p (non-inferiority)", "p (McNemar)"),
)
