"""Plain DDIM against the best combination, on declared robots: `python eval/bench/bench_robots.py`.

--plain RUN names the run whose DDIM budgets are the reference, --runs RUN … those of one task that
may be combined with samplers, grids and strategies for late chunks (heads, prefixes) they have. For
each robot (milliseconds per network evaluation) both winners are chosen on episodes of their own;
then they run the same other episodes. It continues where it stopped, writes OUT/robots.json, and
draws OUT/robots.png from it and from the files of --beside.
"""

# diffpolicy.eval is known to Python, not to pyright.
# pyright: reportMissingImports=false

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import tyro
from matplotlib.figure import Figure

from diffpolicy.checkpoint import load_policy
from diffpolicy.device import choose_device
from diffpolicy.eval.config import SweepConfig
from diffpolicy.eval.measure.provenance import provenance, set_threads
from diffpolicy.eval.measure.result_files import read_sweep
from diffpolicy.eval.measure.results import BudgetResult
from diffpolicy.eval.report.figure import png
from diffpolicy.eval.report.table import print_table
from diffpolicy.eval.significance import difference_interval
from diffpolicy.eval.sweep import cost, sweep
from diffpolicy.files import write_bytes, write_text
from diffpolicy.late.correction import FILE as HEAD
from diffpolicy.sampling.chain import own_budgets

PLAIN, FEW = (1, 2, 4, 8, 16), (1, 2, 4, 8)
CHOOSING, REPORTED = 500_000, 100_000  # first seeds
SIDES = ("plain DDIM", "best combination")
Options = dict[str, Any]  # of a sweep of one budget


@dataclass(frozen=True)
class Config:
    """Compare plain DDIM with the best combination on declared robots."""

    plain: Path
    """Run of the reference."""
    runs: tuple[Path, ...]
    """Runs of the combinations."""
    out: Path
    """Folder to write."""
    robots_ms: tuple[float, ...] = (2.0, 10.0)
    """Milliseconds per network evaluation of each robot."""
    outcome: str = "success"
    """Outcome to compare: success or score."""
    choosing: int = 100
    """Episodes that choose."""
    episodes: int = 400
    """Episodes that are reported."""
    beside: tuple[Path, ...] = ()
    """Results of other tasks to draw as well."""


def main(config: Config) -> None:
    """Choose, evaluate, print and draw."""
    found: list[Options] = []
    for ms in config.robots_ms:
        winners = [
            choose(config, ms, side, options)
            for side, options in zip(SIDES, (plain(config), combined(config)), strict=True)
        ]
        rows = [evaluate(config, ms, o, REPORTED, config.episodes) for o in winners]
        found.append(compared(config, ms, winners, rows))
    titles = ["robot ms", "", "budget", "ms", "delay", "mean", "- plain", "95 % interval"]
    print_table(titles, [line for robot in found for line in lines(robot)])
    task = load_policy(config.plain).specification.task.env_id
    about = {"provenance": asdict(provenance(choose_device("cpu"))), "config": asdict(config)}
    file = config.out / "robots.json"
    write_text(file, json.dumps({"env": task, **about, "robots": found}, default=str, indent=1))
    write_bytes(config.out / "robots.png", png(draw([file, *config.beside]), dpi=100))


def plain(config: Config) -> Iterator[Options]:
    """Budgets of DDIM on the trailing grid."""
    yield from ({"runs": (config.plain,), "ddim_steps": (k,)} for k in PLAIN)


def combined(config: Config) -> Iterator[Options]:
    """Every budget of every run, with the strategies for late chunks that fit it."""
    for run in config.runs:
        specification = load_policy(run).specification
        own, chains = own_budgets(specification), [{}]
        if own is None:
            chains += [{"sampler": ("dpm++",), "grid": ("lambda",)}]
        lates = ["drop", *["correct"] * (run / HEAD).exists()]
        lates += ["prefix"] * bool(specification.model.prefix_max)
        for chain in chains:
            for k in own or (FEW[2:] if chain else FEW):
                yield from (
                    {"runs": (run,), "ddim_steps": (k,), "late": (late,), **chain} for late in lates
                )


def choose(config: Config, ms: float, side: str, options: Iterator[Options]) -> Options:
    """The options of the best mean over the choosing episodes; of equals the cheapest."""
    found = list(options)
    rows = [evaluate(config, ms, o, CHOOSING, config.choosing) for o in found]
    best = max(range(len(found)), key=lambda i: (mean(config, rows[i]), -cost(rows[i])))
    print(f"{ms:g} ms, {side}: {rows[best].name}")
    return found[best]


def evaluate(config: Config, ms: float, options: Options, seed: int, episodes: int) -> BudgetResult:
    """The row of one budget on a robot; that of an earlier call if there is one."""
    parts = [options["runs"][0].name, *(options.get(k, ("",))[0] for k in ("sampler", "late"))]
    name = "-".join(filter(None, [*parts, str(options["ddim_steps"][0])]))
    out = config.out / f"robot-{ms:g}" / f"seed-{seed}-{episodes}" / name
    if (out / "sweep.json").exists():
        return read_sweep(out / "sweep.json").rows[0]
    about = {"seed": seed, "episodes": episodes, "clocks": ("simulated",), "pictures": False}
    return sweep(SweepConfig(ms_per_step=ms, out=out, **about, **options)).rows[0]


def mean(config: Config, row: BudgetResult) -> float:
    """Mean success or score."""
    return row.success_rate if config.outcome == "success" else row.score_mean


def compared(
    config: Config, ms: float, options: Sequence[Options], rows: Sequence[BudgetResult]
) -> Options:
    """The two rows of a robot, and their paired difference."""
    usual, ours = (np.array(getattr(row.outcomes, config.outcome), float) for row in rows)
    sides = [
        {
            "options": o,
            "row": asdict(row),
            "mean": mean(config, row),
            "ci": row.success_ci if config.outcome == "success" else row.score_ci,
        }
        for o, row in zip(options, rows, strict=True)
    ]
    difference = {"difference": float((ours - usual).mean())}
    interval = difference_interval(ours, usual, paired=True)
    return {"ms": ms, **dict(zip(SIDES, sides, strict=True)), **difference, "interval": interval}


def lines(robot: Options) -> Iterator[list[Any]]:
    """Table lines of a robot."""
    for side in SIDES:
        row, difference = robot[side]["row"], [None, None]
        if side != SIDES[0]:
            ends = robot["interval"]
            interval = "{:+.3f} to {:+.3f}".format(*ends) if ends else None
            difference = [f"{robot['difference']:+.3f}", interval]
        timing = [row["latency_ms"]["p50"], row["delay_ticks"]]
        yield [robot["ms"], side, row["name"], *timing, f"{robot[side]['mean']:.3f}", *difference]


def draw(files: Sequence[Path]) -> Figure:
    """A line for each task and robot: from plain DDIM to the best combination, 95 % intervals."""
    found = [json.loads(file.read_text(encoding="utf-8")) for file in files]
    pairs = [(result, robot) for result in found for robot in result["robots"]]
    figure, axis = plt.subplots(figsize=(9, 0.62 * len(pairs) + 1), constrained_layout=True)
    for y, (_, robot) in enumerate(reversed(pairs)):
        ends = [robot[side]["mean"] for side in SIDES]
        axis.plot(ends, [y, y], color="0.75", lw=2, zorder=1)
        for side, colour, mark in zip(SIDES, ("#8a8a8a", "#3a9a6c"), "os", strict=True):
            about, row = robot[side], robot[side]["row"]
            spread = [[about["mean"] - about["ci"][0]], [about["ci"][1] - about["mean"]]]
            place = {"xerr": spread, "fmt": mark, "color": colour, "capsize": 2, "ms": 7}
            axis.errorbar(about["mean"], y, **place, label=None if y else side)
            text = f"{row['name']}, {row['latency_ms']['p50']:g} ms"
            axis.text(1.04, y + (0.16, -0.2)[side == SIDES[1]], text, color=colour, fontsize=8)
    names = [
        f"{result['env'].partition(':')[2].removesuffix('-v0')}, {robot['ms']:g} ms a step"
        for result, robot in pairs
    ]
    axis.set(yticks=range(len(pairs)), yticklabels=names[::-1], xlim=(0, 1.02))
    axis.set(xlabel="success (Push-T: score), late chunks included")
    axis.grid(alpha=0.25, axis="x")
    figure.legend(loc="outside upper center", ncols=2, frameon=False)
    return figure


if __name__ == "__main__":
    set_threads(1)
    main(tyro.cli(Config))
