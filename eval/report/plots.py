"""Pictures: success against latency, and film strips of rollouts."""

import base64
import io
from collections.abc import Sequence
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from diffpolicy.control.latency import LatencyProfile
from diffpolicy.control.workers import one_thread
from diffpolicy.policy import Policy

from ..evaluate import World
from ..measure.frames import FRAMES, film

LINES = ("-", "--", ":", "-.")
MARKS = {"DDPM": "D", "regression": "s"}
NUMBERS = ((3, 5), (3, -11))  # points from a mark to its number: above, or below
COLOURS = ("#3b6fb6", "#d1495b", "#3a9a6c", "#8d6cab")


def clock_label(record: dict[str, Any]) -> str:
    """How a legend names a clock."""
    if record["clock"] == "paused":
        return "paused (the world waits)"
    return f"{record['clock']} ({record['latency_source']})"


def success_against_latency(result: dict[str, Any]) -> Figure:
    """Success and score over the latency of each budget, one line a clock, 95 % intervals."""
    figure, axes = plt.subplots(1, 2, figsize=(11, 4.2), sharex=True, constrained_layout=True)
    records = result["records"]
    labels = dict.fromkeys(map(clock_label, records))
    for i, (label, colour) in enumerate(zip(labels, COLOURS * 9, strict=False)):
        rows = [r for r in records if clock_label(r) == label]
        for axis, rate, interval in (
            (axes[0], "success_rate", "success_ci"),
            (axes[1], "score_mean", "score_ci"),
        ):
            _draw_clock(axis, rows, rate, interval, label, colour, NUMBERS[i % 2])
    tick_ms = 1000 * result["header"]["control_dt_s"]
    for axis, title, interval in (
        (axes[0], "success rate", "success_ci"),
        (axes[1], "mean score", "score_ci"),
    ):
        axis.axvline(tick_ms, color="0.6", lw=1, ls=":")
        below = {"transform": axis.get_xaxis_transform(), "color": "0.45", "fontsize": 8}
        axis.text(tick_ms, 0.04, "one control tick ", ha="right", **below)
        axis.set(xscale="log", xlabel="latency of one control step, p50 (ms)", title=title)
        axis.grid(alpha=0.25)
        if all(is_rate(r[interval]) for r in records):
            axis.set_ylim(-0.03, 1.05)
    axes[0].legend(fontsize=8, loc="best")
    return figure


def is_rate(interval: Sequence[float]) -> bool:
    """An interval within [0, 1]: that of success always is, that of a score need not be."""
    return interval[0] >= 0 and interval[1] <= 1


def _draw_clock(
    axis, rows, rate: str, interval: str, label: str, colour: str, numbers: tuple[int, int]
) -> None:
    """Budgets as a line for each variant, with their numbers of steps; the others as a mark."""
    variants = sorted({r["variant"]: None for r in rows}, key=lambda kind: kind in MARKS)
    for kind, line in zip(variants, LINES * len(variants), strict=False):
        mark = MARKS.get(kind)
        group = [r for r in rows if r["variant"] == kind]
        x = [r["latency_ms"]["p50"] for r in group]
        y = np.array([r[rate] for r in group])
        spread = np.abs(np.array([r[interval] for r in group]).T - y)
        style = mark or "o" + line
        name = f"{label}, {kind}" if kind else label
        axis.errorbar(x, y, spread, fmt=style, color=colour, capsize=2, ms=4, lw=1.3, label=name)
        for r, px, py in zip(group, x, y, strict=True):
            text = "" if mark else str(r["ddim_steps"])
            axis.annotate(
                text, (px, py), numbers, textcoords="offset points", fontsize=7, color=colour
            )


def film_strip(world: World, policy: Policy, profile: LatencyProfile, seed: int):
    """(figure, caption) of one rollout; drawn from the observations where nothing can render."""
    with one_thread():
        engine = policy.engine(world.options.batch).name  # as the episodes were run
    arguments = (policy.with_engine(engine), world.make, seed, profile, world.options)
    shown = world.workers.call(film, *arguments, timeout_s=world.options.step_timeout)
    episode, dt = shown.episode, world.options.control_dt_s
    outcome = "success" if episode.success else "failure"
    caption = f"seed {seed}: {outcome}, score {episode.score:.2f}, {episode.ticks} ticks"
    if episode.failure:
        caption += f", {episode.failure}"
    if shown.trouble:
        caption += f"; drawn from the observations, because nothing renders: {shown.trouble}"
        return _traces(np.array(shown.observations), dt), caption
    return _strip(shown.frames, dt), caption


def _strip(frames: dict[int, np.ndarray], dt: float) -> Figure:
    ticks = list(frames)
    chosen = np.linspace(0, len(ticks) - 1, FRAMES).round().astype(int)
    height, width = frames[ticks[0]].shape[:2]
    rows = 2 if width > 2 * height else 1
    columns = FRAMES // rows
    size = (12, rows * (12 / columns * height / width + 0.3))
    figure, axes = plt.subplots(rows, columns, figsize=size, constrained_layout=True)
    for axis, tick in zip(axes.flat, (ticks[i] for i in chosen), strict=True):
        axis.imshow(frames[tick])
        axis.set_title(f"{tick * dt:.1f} s", fontsize=8)
        axis.axis("off")
    return figure


def _traces(observations: np.ndarray, dt: float) -> Figure:
    figure, axis = plt.subplots(figsize=(2 * FRAMES, 2.4), constrained_layout=True)
    axis.plot(np.arange(len(observations)) * dt, observations, lw=0.9)
    axis.set(xlabel="time (s)", ylabel="observation")
    return figure


def png(figure: Figure, dpi: int = 110) -> bytes:
    """The figure's picture; closes the figure."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi)
    plt.close(figure)
    return buffer.getvalue()


def data_uri(picture: bytes) -> str:
    """A picture inside the page, so that the page needs no other file."""
    return "data:image/png;base64," + base64.b64encode(picture).decode()
