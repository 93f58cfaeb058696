"""Table, plot and report.html of offline figures, with the sentences on what they cannot say."""

from collections.abc import Iterator

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from diffpolicy.terminal.output import wrapped

from ..measure.offline_results import Estimate, OfflineResult, OfflineRow
from .conclusions import plain_conclusion
from .figure import data_uri
from .numbers import NOTHING, rounded
from .page import Illustration, Links, origin_of, render, text_table
from .table import print_table

FEWEST = 10  # episodes for an interval that can be trusted
LIMITS = (
    "These figures are no success rate: they compare actions at states that the demonstrator "
    "visited, one chunk at a time, so errors never accumulate and no mistake has to be corrected. "
    "Budgets and policies cannot be ranked by success with them; Mandlekar et al. (2021, arXiv "
    "2108.03298) study the difference of the two objectives.",
    "Where demonstrations differ at the same state, no policy can predict which one was shown. The "
    "spread, the distance of two samples of the policy, is the error that it would have if the "
    "demonstrations were samples of it. A budget whose spread is near 0 gives one action whatever "
    "the noise, often the mean one: its error may be the smallest, and the mean may be the action "
    "that fails.",
    "The distance from the largest budget shows what fewer steps change. The seam is the distance "
    "of two consecutive chunks at the tick where the second takes over, with zero latency, along "
    "the demonstration instead of the states that the policy itself would reach.",
)


def print_offline(result: OfflineResult) -> None:
    """The table of budgets, the references and the limits, on the terminal."""
    print()  # below the lines of the engines
    print_table([title for title, _ in COLUMNS], [_cells(row) for row in result.rows])
    for line in (*facts(result), LIMITS[0]):
        print(wrapped(line))


def facts(result: OfflineResult) -> Iterator[str]:
    """Sentences on units, episodes, references and latency."""
    about, references = result.provenance, result.references
    count = len(about.episodes)
    yield (
        "Errors are mean |a - b| / σ over the dimensions of an action, σ of the demonstrations; "
        f"{count} episode{'s' * (count != 1)}: {about.held_out}; {about.observations:,} "
        f"observations, {about.samples} chunk{'s' * (about.samples != 1)} for each; 95 % intervals "
        "over episodes."
    )
    if count == 1:
        yield "One episode has no interval."
    elif count < FEWEST:
        yield f"With fewer than {FEWEST} episodes the intervals are too narrow."
    yield (
        f"Without a policy: holding the last action has an error of {shown(references.hold)} over "
        f"the executed actions and {shown(references.hold_chunk)} over the chunk, the mean action "
        f"{shown(references.constant)}. Consecutive demonstrated actions differ by "
        f"{rounded(references.change)}."
    )
    yield _in_time(result)


def _in_time(result: OfflineResult) -> str:
    tick_ms = 1000 * result.provenance.control_dt_s
    known = [(row, row.latency_ms.p99) for row in result.rows if row.latency_ms.p99 is not None]
    timely = [row for row, ms in known if ms <= tick_ms]
    largest = max(timely, key=lambda row: row.network_evals).name if timely else "none"
    mark = " (disturbed)" if any(row.load == "disturbed" for row in result.rows) else ""
    text = largest if known else "unknown (too few samples)"
    return f"Largest budget within one control tick of {tick_ms:g} ms at p99: {text}{mark}."


def shown(estimate: Estimate | None) -> str:
    """A mean with its interval."""
    if estimate is None:
        return NOTHING
    if estimate.ci is None:
        return rounded(estimate.mean)
    return "{} [{}, {}]".format(*map(rounded, (estimate.mean, *estimate.ci)))


def _cells(row: OfflineRow) -> list[str]:
    return [cell(row) for _, cell in COLUMNS]


def offline_page(result: OfflineResult, plot: bytes, links: Links = ()) -> str:
    """The page of a result; plot: a PNG."""
    titles = ["budget", *(f"dimension {i}" for i in range(len(result.rows[0].by_dimension)))]
    by_dimension = [[r.name, *(f"{x:.4g}" for x in r.by_dimension)] for r in result.rows]
    distances = f"Distances are from {result.reference}, with the same noise"
    return render(
        "offline.html",
        title=f"Actions of {result.provenance.run} on demonstrations",
        conclusions=[plain_conclusion("none", LIMITS[0], [*LIMITS[1:]], "No success rate")],
        plot=Illustration(data_uri(plot), "Errors over the steps"),
        facts=facts(result),
        budgets=text_table(
            distances, [title for title, _ in COLUMNS], [_cells(row) for row in result.rows]
        ),
        dimensions=text_table(
            "Mean absolute error of the executed actions, in units of the data",
            titles,
            by_dimension,
        ),
        origin=origin_of(result.provenance, links),
    )


def offline_plot(result: OfflineResult) -> Figure:
    """Errors with their references, and distances between chunks, over the denoising steps."""
    figure, axes = plt.subplots(1, 2, figsize=(11, 4.2), constrained_layout=True)
    of_error = {
        "executed actions": "error",
        "whole chunk": "error_chunk",
        "mean of the samples": "error_of_mean",
        "spread of the samples": "spread",
    }
    of_chunks = {f"distance from {result.reference}": "distance", "seam": "seam"}
    for axis, lines in zip(axes, (of_error, of_chunks), strict=True):
        for i, (label, name) in enumerate(lines.items()):
            _draw(axis, result.rows, name, label, f"C{i}")
        axis.set(xlabel="denoising steps", ylabel="standard deviations of the actions")
        axis.set_xscale("symlog", linthresh=1)
        axis.set_xticks([row.ddim_steps for row in result.rows])
        axis.set_xticklabels([str(row.ddim_steps) for row in result.rows])
        axis.minorticks_off()
        axis.grid(alpha=0.25)
    references = result.references
    for label, value, style in (
        ("hold the last action", references.hold.mean, "--"),
        ("mean action", references.constant.mean, ":"),
    ):
        axes[0].axhline(value, color="0.5", lw=1, ls=style, label=label)
    axes[1].axhline(references.change, color="0.5", lw=1, ls="--", label="demonstrated change")
    axes[0].set_title("error of actions")
    axes[1].set_title("between chunks")
    for axis in axes:
        axis.set_ylim(bottom=0)
        axis.legend(fontsize=8)
    return figure


def _draw(axis, rows: list[OfflineRow], name: str, label: str, colour: str) -> None:
    """A line over the budgets that have this estimate, with its 95 % intervals."""
    found = [(r.ddim_steps, e) for r in rows if (e := getattr(r, name)) is not None]
    if not found:
        return
    x, estimates = zip(*found, strict=True)
    means = [e.mean for e in estimates]
    ends = [e.ci or (e.mean, e.mean) for e in estimates]
    below = [max(0, m - low) for m, (low, _) in zip(means, ends, strict=True)]
    above = [max(0, high - m) for m, (_, high) in zip(means, ends, strict=True)]
    options = {"fmt": "o-", "capsize": 2, "ms": 4, "lw": 1.3, "color": colour, "label": label}
    axis.errorbar(x, means, [below, above], **options)


COLUMNS = (
    ("budget", lambda r: r.name),
    ("error", lambda r: shown(r.error)),
    ("of whole chunk", lambda r: shown(r.error_chunk)),
    ("of mean sample", lambda r: shown(r.error_of_mean)),
    ("spread", lambda r: shown(r.spread)),
    ("distance", lambda r: shown(r.distance)),
    ("seam", lambda r: shown(r.seam)),
    ("× change", lambda r: rounded(r.seam_ratio)),
    ("p50 ms", lambda r: f"{r.latency_ms.p50:.2f}"),
    ("p99 ms", lambda r: rounded(r.latency_ms.p99)),
)
