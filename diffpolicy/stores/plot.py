"""Picture of a store for a person: lengths, courses, idle times, ranges, jumps, nearest episodes.

It draws a survey and the pictures of one episode, and computes nothing but histograms.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from textwrap import wrap
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure

from diffpolicy.data import facts
from diffpolicy.errors import DiffpolicyError
from diffpolicy.files import write_atomically
from diffpolicy.stores.survey import Survey, lines

SUFFIXES = (".png", ".pdf", ".svg")
BLUE, RED, GREY = "#3b6fb6", "#d1495b", "0.55"
MOST_HISTOGRAMS, MOST_STRIPES, MOST_COURSES = 6, 24, 60
BINS = 40
WIDTH, ROW, STRIP = 13.0, 3.1, 1.75  # inches
TITLE = 10  # points
Strips = Sequence[tuple[str, np.ndarray, Sequence[int]]]  # (array, pictures [n, H, W, C], steps)


def check_suffix(path: Path) -> None:
    """Raise DiffpolicyError unless the figure can be written in the format of this name."""
    if path.suffix.lower() not in SUFFIXES:
        raise DiffpolicyError(f"--plot must end in {', '.join(SUFFIXES)}; got {path}")


def write_plot(path: Path, title: str, found: Survey, strips: Strips, strips_of: str) -> None:
    """Draw the survey and write it as PNG, PDF or SVG, by the suffix."""
    figure = draw(title, found, strips, strips_of)
    kind = path.suffix.lower().removeprefix(".")
    write_atomically(path, lambda temporary: figure.savefig(temporary, format=kind, dpi=110))
    plt.close(figure)


def draw(title: str, found: Survey, strips: Strips = (), strips_of: str = "") -> Figure:
    """The figure: three rows of plots, and a strip for each array of pictures."""
    heights = [ROW] * 3 + [STRIP] * len(strips)
    figure = plt.figure(figsize=(WIDTH, sum(heights) + 0.6))
    figure.suptitle(_plain(title), fontsize=11, x=0.02, ha="left")
    figure.set_layout_engine("constrained", w_pad=0.12, h_pad=0.1)
    parts: Any = figure.subfigures(len(heights), 1, height_ratios=heights)
    lengths, courses, idle = parts[0].subplots(1, 3)
    _lengths(lengths, found)
    _courses(courses, found)
    _idle(idle, found)
    actions, text = parts[1].subfigures(1, 2, width_ratios=(2, 1))
    _actions(actions, found)
    _text(text, found)
    ranges, jumps, nearest = parts[2].subplots(1, 3)
    _ranges(ranges, found)
    _changes(jumps, found)
    _nearest(nearest, found)
    for axis in (lengths, courses, idle, ranges, jumps, nearest):
        axis.title.set_fontsize(TITLE)
    for part, (name, pictures, steps) in zip(parts[3:], strips, strict=True):
        _strip(part, f"{name}, {strips_of}", pictures, steps)
    return figure


def _plain(text: str) -> str:
    return text.replace("$", r"\$")


def _lengths(axis: Axes, found: Survey) -> None:
    lengths, dt = found.lengths, found.control_dt_s
    equal = np.ptp(lengths) == 0
    axis.hist(lengths, bins=1 if equal else min(BINS, int(np.ptp(lengths)) + 1), color=BLUE)
    if equal:
        axis.set_xlim(lengths[0] - 5, lengths[0] + 5)
    name = "steps"
    if dt:
        name = f"steps of {1000 * dt:.4g} ms; mean {lengths.mean() * dt:.3g} s"
    axis.set(title="lengths of the episodes", xlabel=name, ylabel="episodes")
    axis.locator_params(integer=True)


def _courses(axis: Axes, found: Survey) -> None:
    """Paths of the first two numbers that vary: targets of the actions, else observed ones."""
    vary = np.flatnonzero(found.span > 0)
    observed, commanded = vary[vary >= found.action_dim], vary[vary < found.action_dim]
    targets = found.position_targets and len(commanded) > 1
    chosen = commanded if targets else observed if len(observed) > 1 else vary
    places = np.unique(np.linspace(0, len(found.ends) - 1, MOST_COURSES).round().astype(int))
    for place in places if len(chosen) else ():
        course = found.values[found.rows_of(int(place))]
        x = course[:, chosen[0]] if len(chosen) > 1 else np.arange(len(course))
        y = course[:, chosen[min(1, len(chosen) - 1)]]
        axis.plot(x, y, color=BLUE, lw=0.6, alpha=0.45)
        axis.plot(x[:1], y[:1], "o", color=RED, ms=2.5)
    names = [_plain(found.label(int(i))) for i in chosen[:2]] or ["nothing varies", ""]
    axis.set(
        title=f"courses of {len(places)} episodes from their starts (red)",
        xlabel=names[0] if len(chosen) > 1 else "step",
        ylabel=names[-1],
    )


def _idle(axis: Axes, found: Survey) -> None:
    """Share of the episodes that are idle at each part of their time."""
    parts, shares = np.linspace(0, 1, 101), []
    for place in range(len(found.ends)):
        idle = found.idle[found.rows_of(place)]
        shares.append(idle[np.minimum((parts * len(idle)).astype(int), len(idle) - 1)])
    mean = np.mean(shares, axis=0)
    axis.fill_between(100 * parts, 100 * mean, color=BLUE, alpha=0.5, lw=0)
    axis.set(
        title=f"idle steps: {found.idle.mean():.1%}",
        xlabel="part of the episode (%)",
        ylabel="episodes that are idle then (%)",
        xlim=(0, 100),
        ylim=(0, max(5.0, 110 * float(mean.max()))),
    )


def _actions(part: SubFigure, found: Survey) -> None:
    """A histogram of each number of the action, with the limits of the space."""
    count = min(found.action_dim, MOST_HISTOGRAMS)
    more = f", the first {count} of {found.action_dim}" if found.action_dim > count else ""
    space = f"limits of {found.limits.env_id} dashed" if found.limits else "space unknown"
    part.suptitle(_plain(f"actions{more} ({space})"), fontsize=TITLE)
    columns = min(count, 3)
    axes = np.ravel(part.subplots(-(-count // columns), columns))
    for axis in axes[count:]:
        axis.axis("off")
    for i, axis in enumerate(axes[:count]):
        axis.hist(found.values[:, i], bins=BINS, color=BLUE)
        if found.limits:
            for limit in (found.limits.low[i], found.limits.high[i]):
                if math.isfinite(limit):
                    axis.axvline(limit, color=RED, ls="--", lw=1)
        where = "at a limit" if found.limits else "at an extreme"
        axis.set_title(f"{_plain(found.label(i))}: {found.at_limit[i]:.1%} {where}", fontsize=8)
        axis.tick_params(labelsize=7)
        axis.set_yticks([])


def _text(part: SubFigure, found: Survey) -> None:
    """The facts in words."""
    paragraphs = ["\n".join(wrap(_plain(line), 50)) for line in lines(found)]
    part.text(0.03, 0.9, "\n\n".join(paragraphs), fontsize=8.5, va="top", linespacing=1.3)


def _ranges(axis: Axes, found: Survey) -> None:
    """Distribution of each number over its own range, one stripe each."""
    numbers = np.arange(len(found.labels))
    shown = numbers[:MOST_STRIPES]
    stripes = [np.histogram(found.values[:, i], bins=BINS)[0] for i in shown]
    heat = np.array([stripe / max(1, stripe.max()) for stripe in stripes])
    axis.imshow(heat, aspect="auto", cmap="Blues", extent=(0, 1, len(shown) - 0.5, -0.5))
    size = 7 if len(shown) <= 14 else 5.5
    labels = [
        f"{_plain(found.label(int(i)))}  {found.low[i]:.4g}"
        if found.span[i]
        else f"{_plain(found.label(int(i)))}  constant"
        for i in shown
    ]
    axis.set_yticks(range(len(shown)), labels, fontsize=size)
    for place, i in enumerate(shown):
        axis.text(1.02, place, f"{found.high[i]:.4g}", fontsize=size, va="center")
    more = f", {len(shown)} of {len(numbers)}" if len(shown) < len(numbers) else ""
    axis.set(title=f"distributions from lowest to highest{more}", xticks=[])


def _changes(axis: Axes, found: Survey) -> None:
    """Largest change of each episode, of its actions and of the other vectors, without switches."""
    jumps = found.jumps
    groups = [("actions", slice(0, found.action_dim), GREY, "x")]
    if len(found.labels) > found.action_dim:
        groups.append(("observations", slice(found.action_dim, None), BLUE, "."))
    for name, part, colour, mark in groups:
        largest = found.gradual[:, part].max(axis=1)
        axis.plot(found.episodes, 100 * largest, mark, color=colour, ms=4, label=name)
    for place in np.flatnonzero(jumps.any(axis=1))[:8]:
        number = int(np.where(jumps[place], found.largest[place], 0).argmax())
        spot = (found.episodes[place], 100 * found.largest[place, number])
        axis.plot(*spot, "o", mfc="none", color=RED, ms=7)
        axis.annotate(
            _plain(found.label(number)),
            spot,
            (4, 4),
            fontsize=6,
            color=RED,
            textcoords="offset points",
        )
    axis.legend(fontsize=7, loc="best")
    axis.set(
        title=f"largest change in a step; episodes with jumps: {int(jumps.any(axis=1).sum())}",
        xlabel="episode",
        ylabel="share of the range (%)",
    )
    axis.set_ylim(bottom=0)
    axis.locator_params("x", integer=True)


def _nearest(axis: Axes, found: Survey) -> None:
    """Distances of all episodes to their nearest ones."""
    finite = found.distances[np.isfinite(found.distances)]
    pairs = facts.near_pairs(found.distances, found.others)
    axis.set(
        title=f"nearest episodes: {len(pairs)} near-duplicate pairs",
        xlabel="distance (% of the ranges)",
        ylabel="episodes",
    )
    if not len(finite):
        axis.text(0.5, 0.5, "one episode, or nothing varies", ha="center", transform=axis.transAxes)
        return
    axis.hist(100 * finite, bins=BINS, color=BLUE)
    axis.axvline(100 * facts.NEAR, color=RED, ls="--", lw=1)
    axis.set_xlim(left=0)
    names = [f"{found.episodes[i]} and {found.episodes[j]}" for i, j, _ in pairs[:6]]
    if names:
        axis.text(
            0.98,
            0.95,
            "\n".join([*names, "…"] if len(pairs) > 6 else names),
            fontsize=7,
            color=RED,
            ha="right",
            va="top",
            transform=axis.transAxes,
        )


def _strip(part: SubFigure, title: str, pictures: np.ndarray, steps: Sequence[int]) -> None:
    part.suptitle(_plain(title), fontsize=TITLE)
    for axis, picture, step in zip(
        np.atleast_1d(part.subplots(1, len(pictures))), pictures, steps, strict=True
    ):
        grey = picture.shape[2] == 1
        axis.imshow(
            picture[..., 0] if grey else picture, cmap="gray" if grey else None, vmin=0, vmax=255
        )
        axis.set_title(f"step {step}", fontsize=7, pad=2)
        axis.axis("off")
