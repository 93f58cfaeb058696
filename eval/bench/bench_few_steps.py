"""Success at few evaluations: `python eval/bench/bench_few_steps.py --data STORE --out DIR`.

For each training seed it trains ε, x0, v, flow matching, regression and MIP for the same number of
updates, distils the first three for as many more, and optimises their timesteps on other episodes.
All are evaluated over the same episodes, paused: DDIM, DPM-Solver++ 2M on the lambda grid, the
optimised grid, DDPM.
A second call continues where the first one stopped. It writes DIR/few_steps.json and the table.
"""

# diffpolicy.eval is known to Python, not to pyright.
# pyright: reportMissingImports=false

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import tyro

from diffpolicy.checkpoint import TRAINING_FILE, load_training
from diffpolicy.device import choose_device
from diffpolicy.eval.config import SweepConfig
from diffpolicy.eval.experiment_config import OptimiseConfig
from diffpolicy.eval.measure.provenance import provenance, set_threads
from diffpolicy.eval.measure.result_files import read_sweep
from diffpolicy.eval.measure.results import BudgetResult
from diffpolicy.eval.optimise import optimise
from diffpolicy.eval.report.table import print_table
from diffpolicy.eval.sweep import sweep
from diffpolicy.files import write_text
from diffpolicy.training.config import DistillConfig, TrainConfig
from diffpolicy.training.distill import distill
from diffpolicy.training.train import train

TRAINED: dict[str, dict[str, Any]] = {
    "epsilon": {"prediction": "epsilon"},
    "x0": {"prediction": "x0"},
    "v": {"prediction": "v"},
    "flow": {"schedule": "flow", "prediction": "velocity"},
    "regression": {"objective": "regression"},
    "mip": {"objective": "mip"},
}
TEACHERS = ("epsilon", "x0", "v")
FEW = (1, 2, 4, 8)
METHODS: dict[str, dict[str, Any]] = {  # options of a sweep over the teachers
    "2M": {"sampler": ("dpm++",), "grid": ("lambda",), "ddim_steps": FEW},
    "optimised": {"grid": ("optimised",), "ddim_steps": FEW[1:]},
    "DDPM": {"eta": (1.0,), "ddim_steps": (100,)},
}


@dataclass(frozen=True)
class Config:
    """Compare methods of few network evaluations on one task."""

    data: Path
    """Demonstrations."""
    out: Path
    """Folder to write."""
    env: str | None = None
    """Gymnasium id; by default the one in the store."""
    steps: int = 20_000
    """Updates of every training and of every distillation."""
    seeds: tuple[int, ...] = (0, 1)
    """Training seeds."""
    episodes: int = 400
    """Episodes for each method and training seed."""
    threads: int = 1
    """CPU threads of a training."""
    workers: int | None = None
    """Worker processes of the episodes; by default one for each core."""


def main(config: Config) -> None:
    """Train, evaluate, and print mean success and score of each method over the training seeds."""
    rows: dict[str, list[BudgetResult]] = {}
    for seed in config.seeds:
        folder = config.out / f"seed-{seed}"
        make_runs(config, folder, seed)
        for row in evaluate(config, folder):
            rows.setdefault(row.name, []).append(row)
    table = [
        [name, of_name[0].network_evals, *means(of_name)]
        for name, of_name in sorted(rows.items(), key=lambda kv: (kv[1][0].network_evals, kv[0]))
    ]
    print_table(["method", "evaluations", "success", "score", "success by seed"], table)
    found = {
        "provenance": asdict(provenance(choose_device("cpu"))),
        "config": asdict(config),
        "rows": {name: [asdict(row) for row in of_name] for name, of_name in rows.items()},
    }
    write_text(config.out / "few_steps.json", json.dumps(found, default=str))


def means(rows: list[BudgetResult]) -> tuple[str, str, str]:
    """Mean success and score over training seeds, and the success of each."""
    success = [row.success_rate for row in rows]
    score = sum(row.score_mean for row in rows) / len(rows)
    each = " ".join(f"{rate:.2f}" for rate in success)
    return f"{sum(success) / len(success):.3f}", f"{score:.3f}", each


def make_runs(config: Config, folder: Path, seed: int) -> None:
    """Train the networks, distil the teachers, and optimise their timesteps."""
    for name, options in TRAINED.items():
        out = folder / name
        common = {"data": config.data, "env": config.env, "steps": config.steps, "seed": seed}
        about = {**common, "out": out, "threads": config.threads, "resume": step_of(out) > 0}
        if step_of(out) < config.steps:
            train(TrainConfig(**about, **options))
    for name in TEACHERS:
        student = folder / f"{name}-distilled"
        about = {"out": student, "threads": config.threads, "resume": step_of(student) > 0}
        if step_of(student) < config.steps:
            distill(DistillConfig(run=folder / name, **about))
        if not (folder / name / "optimise" / "optimise.json").exists():
            optimise(OptimiseConfig(run=folder / name, env=config.env, workers=config.workers))


def step_of(out: Path) -> int:
    """Updates of the last checkpoint in a run folder; 0 without one."""
    path = out / TRAINING_FILE
    return load_training(path)[1].step if path.exists() else 0


def evaluate(config: Config, folder: Path) -> Iterator[BudgetResult]:
    """Rows of every method, paused, over the same episodes."""
    runs = [folder / name for name in (*TRAINED, *(f"{name}-distilled" for name in TEACHERS))]
    methods = {"DDIM": {"runs": tuple(runs), "ddim_steps": FEW}} | {
        name: {"runs": tuple(folder / teacher for teacher in TEACHERS), **options}
        for name, options in METHODS.items()
    }
    for name, options in methods.items():
        about = {"env": config.env, "episodes": config.episodes, "clocks": ("paused",)}
        out = folder / "sweeps" / name
        about |= {"latency_ms": 0.0, "pictures": False, "workers": config.workers, "out": out}
        if not (out / "sweep.json").exists():
            sweep(SweepConfig(**about, **options))
        yield from read_sweep(out / "sweep.json").rows


if __name__ == "__main__":
    set_threads(1)
    main(tyro.cli(Config))
