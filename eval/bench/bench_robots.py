"""Plain DDIM against the best combination, on declared robots: `python eval/bench/bench_robots.py`.

--reference RUN names an ε run, --runs RUN … others of its task. For each robot (milliseconds per
network evaluation) three budgets are chosen on episodes of their own: the best of the ε run under
plain DDIM, the best of all runs under plain DDIM, and the best combination of run, sampler, grid
and strategy for late chunks. Then the three run the same other episodes. It continues where it
stopped, writes OUT/robots.json, and draws OUT/robots.png from it and from the files of --beside.
"""

# diffpolicy.eval is known to Python, not to pyright.
# pyright: reportMissingImports=false

import hashlib
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

DDIM = (1, 2, 4, 8, 16)
SECOND_ORDER: dict[str, Any] = {"sampler": ("dpm++",), "grid": ("lambda",)}
CHOOSING, REPORTED = 500_000, 100_000  # first seeds
SIDES = ("DDIM, ε", "DDIM, best network", "best combination")
COLOURS, MARKS = ("#8a8a8a", "#3b6fb6", "#3a9a6c"), "sDo"
Options = dict[str, Any]  # of a sweep of one budget


@dataclass(frozen=True)
class Config:
    """Compare plain DDIM with the best combination on declared robots."""

    reference: Path
    """Run of an ε network."""
    runs: tuple[Path, ...]
    """Other runs of the task: of other predictions, students, MIP, heads, prefixes."""
    out: Path
    """Folder to write."""
    robots_ms: tuple[float, ...] = (2.0, 10.0)
    """Milliseconds per network evaluation of each robot."""
    outcome: str = "success"
    """Outcome to compare: success or score."""
    choosing: int = 200
    """Episodes that choose."""
    episodes: int = 400
    """Episodes that are reported."""
    beside: tuple[Path, ...] = ()
    """Results of other tasks to draw as well."""


def main(config: Config) -> None:
    """Choose, evaluate, print and draw."""
    found: list[Options] = []
    for ms in config.robots_ms:
        rows = [row for options in candidates(config) for row in sweep_of(config, ms, options)]
        winners = [choose(config, of_side(config, side, rows)) for side in SIDES]
        for side, winner in zip(SIDES, winners, strict=True):
            print(f"{ms:g} ms, {side}: {winner.name}")
        found.append(compared(config, ms, [reported(config, ms, winner) for winner in winners]))
    titles = ["robot ms", "", "budget", "ms", "delay", "mean", "- DDIM, ε", "95 % interval"]
    print_table(titles, [line for robot in found for line in lines(robot)])
    task = load_policy(config.reference).specification.task.env_id
    options = {k: v for k, v in asdict(config).items() if k not in ("out", "beside")}
    about = {"provenance": asdict(provenance(choose_device("cpu"))), "config": options}
    file = config.out / "robots.json"
    whole = {"env": task, **about, "robots": found}
    write_text(file, json.dumps(whole, default=str, indent=1))
    write_bytes(config.out / "robots.png", png(draw([file, *config.beside]), dpi=100))


def candidates(config: Config) -> Iterator[Options]:
    """Options of the sweeps that choose; strategies are left out of runs that do not fit them."""
    runs = (config.reference, *config.runs)
    yield {"runs": runs, "ddim_steps": DDIM, "late": ("drop", "correct", "prefix")}
    with_chain = {"runs": tuple(denoising(config)), "ddim_steps": (4, 8)}
    yield {**with_chain, "late": ("drop", "correct"), **SECOND_ORDER}


def denoising(config: Config) -> Iterator[Path]:
    """The runs of plain DDIM: diffusion that is not conditioned on a plan."""
    for run in (config.reference, *config.runs):
        model = load_policy(run).specification.model
        if model.objective == "denoising" and not model.prefix_max:
            yield run


def of_side(config: Config, side: str, rows: Sequence[BudgetResult]) -> list[BudgetResult]:
    """The rows among which a side is chosen."""
    if side == SIDES[2]:
        return list(rows)
    runs = {config.reference} if side == SIDES[0] else {*denoising(config)}
    return [row for row in rows if row.run in {run.name for run in runs} and not row.variant]


def choose(config: Config, rows: Sequence[BudgetResult]) -> BudgetResult:
    """The best mean; of equals the cheapest."""
    return max(rows, key=lambda row: (mean(config, row), -cost(row)))


def sweep_of(config: Config, ms: float, options: Options) -> list[BudgetResult]:
    """Rows of a sweep on a robot; those of an earlier call if there is one."""
    about = {"seed": CHOOSING, "episodes": config.choosing, **options}
    key = hashlib.sha256(json.dumps(about, default=str).encode()).hexdigest()[:12]
    out = config.out / f"robot-{ms:g}" / key
    if (out / "sweep.json").exists():
        return read_sweep(out / "sweep.json").rows
    about |= {"clocks": ("simulated",), "pictures": False, "ms_per_step": ms, "out": out}
    return sweep(SweepConfig(**about)).rows


def reported(config: Config, ms: float, winner: BudgetResult) -> BudgetResult:
    """The row of a chosen budget over the reported episodes."""
    [run] = [r for r in (config.reference, *config.runs) if r.name == winner.run]
    options = {"runs": (run,), "ddim_steps": (winner.ddim_steps,), "late": (winner.late,)}
    if "dpm++" in winner.variant:
        options |= SECOND_ORDER
    about = {"seed": REPORTED, "episodes": config.episodes, **options}
    [row] = sweep_of(config, ms, about)
    return row


def mean(config: Config, row: BudgetResult) -> float:
    """Mean success or score."""
    return row.success_rate if config.outcome == "success" else row.score_mean


def compared(config: Config, ms: float, rows: Sequence[BudgetResult]) -> Options:
    """The rows of a robot by side, and their paired differences to the first one."""
    outcomes = [np.array(getattr(row.outcomes, config.outcome), float) for row in rows]
    ends = "success_ci" if config.outcome == "success" else "score_ci"
    sides = {
        side: {
            "row": asdict(row),
            "mean": mean(config, row),
            "ci": getattr(row, ends),
            "difference": float((ours - outcomes[0]).mean()),
            "interval": difference_interval(ours, outcomes[0], paired=True),
        }
        for side, row, ours in zip(SIDES, rows, outcomes, strict=True)
    }
    return {"ms": ms, **sides}


def lines(robot: Options) -> Iterator[list[Any]]:
    """Table lines of a robot."""
    for side in SIDES:
        about, row = robot[side], robot[side]["row"]
        ends = about["interval"]
        interval = "{:+.3f} to {:+.3f}".format(*ends) if ends else None
        timing = [row["latency_ms"]["p50"], row["delay_ticks"]]
        figures = [f"{about['mean']:.3f}", f"{about['difference']:+.3f}", interval]
        yield [robot["ms"], side, row["name"], *timing, *figures]


def draw(files: Sequence[Path]) -> Figure:
    """A line for each task and robot, from DDIM to the best combination, with 95 % intervals."""
    found = [json.loads(file.read_text(encoding="utf-8")) for file in files]
    pairs = [(result["env"], robot) for result in found for robot in result["robots"]][::-1]
    figure, axis = plt.subplots(figsize=(10, 0.62 * len(pairs) + 1), constrained_layout=True)
    for y, (_, robot) in enumerate(pairs):
        axis.plot([robot[side]["mean"] for side in SIDES], [y] * 3, color="0.75", lw=2, zorder=1)
        for side, colour, mark, up in zip(SIDES, COLOURS, MARKS, (0.2, -0.05, -0.3), strict=True):
            about, row = robot[side], robot[side]["row"]
            spread = [[about["mean"] - about["ci"][0]], [about["ci"][1] - about["mean"]]]
            style = {"fmt": mark, "color": colour, "capsize": 2, "ms": 7}
            axis.errorbar(about["mean"], y, xerr=spread, label=None if y else side, **style)
            text = f"{row['name']}: {row['latency_ms']['p50']:g} ms"
            beside = axis.get_yaxis_transform()  # x in parts of the axis
            axis.text(1.02, y + up, text, color=colour, fontsize=8, transform=beside)
    lowest = min(robot[side]["ci"][0] for _, robot in pairs for side in SIDES)
    labels = [f"{name(env)}, {robot['ms']:g} ms a step" for env, robot in pairs]
    axis.set(yticks=range(len(pairs)), yticklabels=labels, xlim=(lowest - 0.02, 1.01))
    axis.set(xlabel="success (Push-T: score) where chunks are late by their computing time")
    axis.grid(alpha=0.25, axis="x")
    figure.legend(loc="outside upper center", ncols=3, frameon=False)
    return figure


def name(env: str) -> str:
    """The name of an environment without module and version."""
    return env.rpartition(":")[2].rpartition("-v")[0]


if __name__ == "__main__":
    set_threads(1)
    main(tyro.cli(Config))
