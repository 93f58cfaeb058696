"""report.html of a sweep: recommendation, plot, tables, pictures and videos, training."""

import html
import json
from collections.abc import Sequence
from pathlib import Path

from ..measure.decisions import Recommendation
from ..measure.result_files import SweepResult, json_of
from ..measure.results import BudgetResult, Picture, TrainingCurve
from .figure import picture_in, png
from .page import figure, html_table, image, page, paragraph
from .sentences import clock_label, headline, load_of, pairing, remarks
from .training_plot import training_plot


def sweep_page(result: SweepResult, plot: bytes, folder: Path) -> str:
    """The page of a result whose pictures lie in `folder`; plot: a PNG."""
    columns = [*COLUMNS]
    columns += [ENCODER] * any(row.encoder_ms for row in result.rows)
    columns += [FAILED] * any(row.failures for row in result.rows)
    note = "Bars are 95 % intervals; numbers are denoising steps."
    about = json.dumps(json_of(result.provenance), indent=2)
    parts = [
        *map(_verdict, result.recommendations),
        "<h2>Success and score against latency</h2>",
        image(plot, "success and score against latency"),
        paragraph(f"{note} {pairing(result.provenance)}"),
        "<h2>Every budget on every clock</h2>",
        html_table(
            [title for title, _ in columns],
            [[cell(row) for _, cell in columns] for row in result.rows],
        ),
        *(paragraph(remark) for row in result.rows for remark in _remarks(row)),
        f"<h2>{'Paired' if result.provenance.paired else 'Unpaired'} differences</h2>",
        _comparisons(result.recommendations),
        *(["<h2>Episodes</h2>"] if result.pictures else []),
        *(_picture(picture, folder) for picture in result.pictures),
        *(["<h2>Videos</h2>"] if result.videos else []),
        *(_picture(video, folder) for video in result.videos or []),
        *_training(result.curves or []),
        "<h2>Provenance</h2>",
        f"<pre>{html.escape(about)}</pre>",
    ]
    return page(f"How many denoising steps can {result.provenance.env} afford?", parts)


def _training(curves: Sequence[TrainingCurve]) -> list[str]:
    """The curves of the runs' trainings, if their logs had any."""
    if not curves:
        return []
    return ["<h2>Training</h2>", image(png(training_plot(curves)), "curves of the training")]


def _verdict(advice: Recommendation) -> str:
    style = "verdict" if advice.name else "verdict none"
    return (
        f'<div class="{style}"><b>{html.escape(headline(advice))}</b>, '
        f"{html.escape(clock_label(advice))}, "
        f"margin {advice.margin:g}: {html.escape(advice.reason)}.</div>"
    )


def _remarks(row: BudgetResult) -> list[str]:
    return [f"{row.name}, {clock_label(row)}: {remark}." for remark in remarks(row)]


def _comparisons(recommendations: Sequence[Recommendation]) -> str:
    """Differences of the recommended (else the best) budget from every other."""
    titles = ["clock", "budget", "against", "difference", "95 %", "p (non-inferiority)"]
    rows = []
    for advice in recommendations:
        for c in advice.comparisons:
            low_high = "{:+.3f} to {:+.3f}"
            interval = low_high.format(*c.difference_ci) if c.difference_ci else "–"
            cells = [clock_label(advice), c.reference, c.other, f"{c.difference:+.3f}", interval]
            rows.append([*cells, f"{c.p_noninferior:.3g}", _optional(c.p_mcnemar, "{:.3g}")])
    return html_table([*titles, "p, McNemar"], rows)


def _picture(picture: Picture, folder: Path) -> str:
    """The picture of one episode, or the reason of its absence."""
    text = f"{picture.title}; {picture.caption}"
    if picture.file is None:
        return paragraph(f"{picture.title}: no picture: {picture.caption}")
    found = picture_in(folder, picture.file)
    if found is None:
        return paragraph(
            f"{text}; {folder / picture.file} is absent or no PNG or WebP in this folder"
        )
    return figure(found, text)


def _optional(value: float | None, form: str) -> str:
    return "–" if value is None else form.format(value)


COLUMNS = (
    ("budget", lambda r: r.name),
    ("clock", clock_label),
    ("success", lambda r: f"{r.success_rate:.3f}"),
    ("95 %", lambda r: "{:.2f} to {:.2f}".format(*r.success_ci)),
    ("score", lambda r: f"{r.score_mean:.3f}"),
    ("95 %", lambda r: "{:.2f} to {:.2f}".format(*r.score_ci)),
    ("load", lambda r: load_of(r) or "–"),
    ("p50 ms", lambda r: f"{r.latency_ms.p50:.2f}"),
    ("p99 ms", lambda r: _optional(r.latency_ms.p99, "{:.2f}")),
    ("delay, ticks", lambda r: f"{r.delay_ticks:.2f}"),
    ("action age p50, ms", lambda r: _optional(r.action_age_ms_p50, "{:.0f}")),
    ("starved ticks", lambda r: str(r.starved_ticks)),
    ("replans", lambda r: str(r.replans)),
)
ENCODER = ("encoder p50, ms", lambda r: _optional(r.encoder_ms, "{:.2f}"))
FAILED = ("failed", lambda r: str(len(r.failures)))
