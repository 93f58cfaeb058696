"""report.html: one self-contained page with the recommendation, the trade, the table, rollouts."""

import html
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from diffpolicy.control import latency
from diffpolicy.control.latency import LatencyProfile
from diffpolicy.errors import DiffpolicyError
from diffpolicy.files import write_text
from diffpolicy.policy import Policy

from ..evaluate import World, remarks
from .plots import clock_label, data_uri, film_strip, png

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1080px; margin: 2rem auto; padding: 0 1rem;
       color: #222; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
.verdict { background: #eef4ee; border-left: 4px solid #3a9a6c; padding: .6rem 1rem; }
.verdict { margin: .5rem 0; }
.none { background: #fbf1ee; border-color: #d1495b; }
table { border-collapse: collapse; font-size: 13px; }
th, td { padding: .25rem .6rem; text-align: right; }
th { border-bottom: 2px solid #999; } td { border-bottom: 1px solid #ddd; }
img { max-width: 100%; } figure { margin: .8rem 0; } figcaption { color: #555; font-size: 13px; }
pre { background: #f5f5f5; padding: .8rem; overflow-x: auto; font-size: 12px; }
"""


def write_report(
    path: Path,
    result: dict[str, Any],
    world: World,
    plot: bytes,
    films: Sequence[tuple[Policy, str, LatencyProfile]],
) -> None:
    """plot: a PNG; films: (policy, clock, what the budget costs) of each rollout to be drawn."""
    title = f"How many denoising steps can {result['header']['env']} afford?"
    columns = (*COLUMNS, FAILED) if any(r["failures"] for r in result["records"]) else COLUMNS
    parts = [
        *map(_verdict, result["recommendations"]),
        "<h2>Success and score against latency</h2>",
        f'<img alt="success and score against latency" src="{data_uri(plot)}">',
        f"<p>Bars are 95 % intervals; numbers are denoising steps. {_pairing(result)}</p>",
        "<h2>Every budget on every clock</h2>",
        html_table(
            [title for title, _ in columns],
            [[cell(record) for _, cell in columns] for record in result["records"]],
        ),
        *map(_remarks, result["records"]),
        f"<h2>{'Paired' if result['header']['paired'] else 'Unpaired'} differences</h2>",
        _comparisons(result["recommendations"]),
        *_films(world, films),
        "<h2>How it was measured</h2>",
        f"<pre>{html.escape(json.dumps(result['header'], indent=2))}</pre>",
    ]
    write_text(path, page(title, parts))


def page(title: str, parts: Sequence[str]) -> str:
    """A self-contained page, headed by its title."""
    title = html.escape(title)
    body = "\n".join([f"<h1>{title}</h1>", *parts])
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f"<title>{title}</title><style>{STYLE}</style></head><body>{body}</body></html>\n"
    )


def html_table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A row of titles and the rows under it."""
    head = "".join(f"<th>{html.escape(title)}</th>" for title in titles)
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    return f"<table><tr>{head}</tr>{body}</table>"


def headline(advice: dict[str, Any]) -> str:
    """What a recommendation comes to, in a few words."""
    budget = f"use {advice['name']}" if advice["name"] else "no budget can be recommended"
    if advice["regression_suffices"]:
        return f"regression is sufficient; with denoising, {budget}"
    return budget


def _verdict(advice: dict[str, Any]) -> str:
    kind = "verdict" if advice["name"] else "verdict none"
    return (
        f'<div class="{kind}"><b>{html.escape(headline(advice))}</b>, '
        f"{html.escape(clock_label(advice))}, "
        f"margin {advice['margin']:g}: {html.escape(advice['reason'])}.</div>"
    )


def _pairing(result: dict[str, Any]) -> str:
    if result["header"]["paired"]:
        return "Every budget met the same episodes with the same starting noise."
    evidence = html.escape(result["header"]["seeds_evidence"])
    return f"Episodes cannot be compared in pairs: {evidence}."


def _remarks(record: dict[str, Any]) -> str:
    """Remarks on a record, a paragraph each."""
    name = f"{record['name']}, {clock_label(record)}"
    return "".join(f"<p>{html.escape(f'{name}: {remark}')}.</p>" for remark in remarks(record))


def _comparisons(recommendations: Sequence[dict[str, Any]]) -> str:
    """Differences of the recommended (else the best) budget from every other."""
    titles = ["clock", "budget", "against", "difference", "95 %", "p (non-inferiority)"]
    rows = []
    for advice in recommendations:
        for c in advice["comparisons"]:
            interval = c["difference_ci"]
            cells = [clock_label(advice), c["reference"], c["other"], f"{c['difference']:+.3f}"]
            cells.append("–" if interval is None else "{:+.3f} to {:+.3f}".format(*interval))
            cells += [f"{c['p_noninferior']:.3g}", _optional(c["p_mcnemar"], "{:.3g}")]
            rows.append(cells)
    return html_table([*titles, "p, McNemar"], rows)


COLUMNS = (
    ("budget", lambda r: r["name"]),
    ("clock", clock_label),
    ("success", lambda r: f"{r['success_rate']:.3f}"),
    ("95 %", lambda r: "{:.2f} to {:.2f}".format(*r["success_ci"])),
    ("score", lambda r: f"{r['score_mean']:.3f}"),
    ("95 %", lambda r: "{:.2f} to {:.2f}".format(*r["score_ci"])),
    ("load", lambda r: r["load"] or "–"),
    ("p50 ms", lambda r: f"{r['latency_ms']['p50']:.2f}"),
    ("p99 ms", lambda r: _optional(r["latency_ms"]["p99"], "{:.2f}")),
    ("delay, ticks", lambda r: f"{r['delay_ticks']:.2f}"),
    ("action age p50, ms", lambda r: _optional(r["action_age_ms_p50"], "{:.0f}")),
    ("starved ticks", lambda r: str(r["starved_ticks"])),
    ("replans", lambda r: str(r["replans"])),
)
FAILED = ("failed", lambda r: str(len(r["failures"])))


def _optional(value: float | None, form: str) -> str:
    return "–" if value is None else form.format(value)


def _films(world: World, films: Sequence[tuple[Policy, str, LatencyProfile]]) -> list[str]:
    parts = ["<h2>Rollouts</h2>"] if films else []
    for policy, clock, profile in films:
        felt = latency.PAUSED if clock == "paused" else profile
        told = clock if clock == "paused" else f"simulated ({profile.source})"
        told = f"{policy.chain.name}, {told}"
        try:
            figure, caption = film_strip(world, policy, felt, world.seeds.start)
        except DiffpolicyError as error:  # the result is there
            parts.append(f"<p>{html.escape(f'{told}: not filmed: {error}')}</p>")
            continue
        text = html.escape(f"{told}; {caption}")
        image = f'<img alt="{text}" src="{data_uri(png(figure))}">'
        parts.append(f"<figure>{image}<figcaption>{text}</figcaption></figure>")
    return parts
