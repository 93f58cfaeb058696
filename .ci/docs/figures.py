"""Draw the figures of eval/docs/numbers.md from results and the controller itself.

python .ci/docs/figures.py writes eval/docs/figures/*.svg, which are under version control.
"""

import json
from itertools import repeat
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np

from diffpolicy.control.receding_horizon import RecedingHorizon
from diffpolicy.eval.significance import difference_interval

ROOT = Path(__file__).parents[2]
RESULTS, FIGURES = ROOT / "eval" / "results", ROOT / "eval" / "docs" / "figures"
BLUE, RED, GREEN, GREY = "#3b6fb6", "#d1495b", "#3a9a6c", "0.6"
ACTION_HORIZON, USABLE, TICKS = 4, 7, 16
REFERENCE = "16 steps"

mpl.rcParams |= {"svg.hashsalt": "diffpolicy", "svg.fonttype": "none", "font.size": 9}


def ages(delay: int) -> tuple[list[float], list[int]]:
    """Age of the action of each tick, NaN if starved, and the ticks at which chunks took over."""
    control = RecedingHorizon(ACTION_HORIZON, repeat(delay), lambda _: np.zeros(1))
    found: list[float] = []
    for tick in range(TICKS):
        control.deliver(tick)
        if control.wants_observation(tick):
            control.begin(tick)
            control.finish(np.zeros((USABLE, 1)))
            control.deliver(tick)
        starved = len(control.starved)
        control.act(tick)
        found.append(np.nan if len(control.starved) > starved else control.ages[-1])
    return found, control.seams


def draw_ages() -> plt.Figure:
    """Action ages under three constant delays, by the controller that episodes use."""
    figure, axes = plt.subplots(1, 3, figsize=(9, 2.4), sharey=True, constrained_layout=True)
    for axis, delay in zip(axes, (0, 2, 5), strict=True):
        found, seams = ages(delay)
        axis.bar(range(TICKS), np.nan_to_num(found), color=BLUE, width=0.8)
        starved = np.flatnonzero(np.isnan(found))
        axis.plot(starved, np.full(len(starved), 0.25), "x", color=RED, label="starved")
        for tick in seams:
            axis.axvline(tick - 0.5, color=GREY, lw=0.8, ls=":")
        axis.set(title=f"delay of {delay} ticks", xlabel="control tick", xticks=range(0, TICKS, 4))
    axes[0].set_ylabel("age of the action (ticks)")
    axes[-1].legend(loc="upper left")
    return figure


def read(name: str) -> dict[str, Any]:
    """A result file."""
    return json.loads((RESULTS / name).read_text(encoding="utf-8"))


def draw_latencies() -> plt.Figure:
    """Share of the control steps of the quickstart that took at most so long, with percentiles."""
    profiles = read("balance_sweep.json")["profiles"]
    figure, axis = plt.subplots(figsize=(5.5, 3), constrained_layout=True)
    for name, colour in (("1 step", BLUE), ("16 steps", GREEN), ("100 steps", RED)):
        samples = next(
            np.sort(p["samples_ms"])
            for p in profiles
            if p["name"] == name and p["source"] == "measured"
        )
        share = np.arange(1, len(samples) + 1) / len(samples)
        axis.step(samples, share, where="post", color=colour, label=name)
        for percent, mark in ((50, "o"), (95, "s"), (99, "D")):
            axis.plot(np.percentile(samples, percent), percent / 100, mark, color=colour, ms=4)
    axis.axvline(20, color=GREY, ls=":", label="one control tick")
    axis.set(xscale="log", xlabel="latency of one control step (ms)", ylabel="share of the steps")
    title = "circle p50\nsquare p95\ndiamond p99"
    figure.legend(title=title, title_fontsize=8, fontsize=8, loc="outside right upper")
    return figure


def draw_margin() -> plt.Figure:
    """Paired differences of budgets of Push-T to 16 steps, and the margin."""
    rows = [row for row in read("pusht_whole.json")["records"] if row["clock"] == "paused"]
    scores = {row["name"]: np.array(row["outcomes"]["score"], float) for row in rows}
    reference = scores.pop(REFERENCE)
    del scores["1 step"]  # far to the right
    figure, axis = plt.subplots(figsize=(5.5, 2.8), constrained_layout=True)
    for i, score in enumerate(scores.values()):
        low, high = difference_interval(reference, score, paired=True) or (np.nan, np.nan)
        axis.plot([low, high], [i, i], color=BLUE, lw=2)
        axis.plot(reference.mean() - score.mean(), i, "o", color=BLUE, ms=4)
    axis.axvspan(-1, -0.05, color=RED, alpha=0.12, lw=0)
    axis.axvline(0, color=GREY, lw=0.8)
    axis.set(
        yticks=range(len(scores)),
        yticklabels=list(scores),
        xlim=(-0.1, 0.12),
        xlabel=f"score of {REFERENCE} less that of the other, 95 % interval",
    )
    axis.text(-0.098, len(scores) - 0.5, "margin lost", color=RED, fontsize=8)
    axis.set_ylim(-0.6, len(scores))
    return figure


def main() -> None:
    """Write the figures."""
    FIGURES.mkdir(exist_ok=True)
    drawn = {"ages": draw_ages(), "latencies": draw_latencies(), "margin": draw_margin()}
    for name, figure in drawn.items():
        figure.savefig(FIGURES / f"{name}.svg", metadata={"Date": None})


if __name__ == "__main__":
    main()
