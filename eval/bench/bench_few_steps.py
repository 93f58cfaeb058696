"""Success at few evaluations: `python eval/bench/bench_few_steps.py --out DIR --data STORE`.

For each training seed it trains ε, x0, v, flow matching, regression and MIP for the same number of
updates, distils the first three for as many more, and optimises their timesteps on other episodes.
All are evaluated over the same episodes, paused: DDIM, DPM-Solver++ 2M on the lambda grid, the
optimised grid, DDPM.
A second call continues where the first one stopped. It writes DIR/seed-S.json, the outcomes of each
episode, and prints the table. Where those files exist, the table needs nothing else.
"""

# diffpolicy.eval is known to Python, not to pyright.
# pyright: reportMissingImports=false

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from diffpolicy.eval.bench.outcome_files import (
    SeedsConfig,
    compare_methods,
    is_trained,
    resumes,
    swept,
)
from diffpolicy.eval.config import SweepConfig
from diffpolicy.eval.experiment_config import OptimiseConfig
from diffpolicy.eval.measure.provenance import set_threads
from diffpolicy.eval.measure.results import BudgetResult
from diffpolicy.eval.optimise import optimise
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
class Config(SeedsConfig):
    """Compare methods of few network evaluations on one task."""

    steps: int = 20_000
    """Updates of every training and of every distillation."""


def played(config: Config, seed: int) -> Iterator[BudgetResult]:
    """Rows of every method with a training seed."""
    folder = config.out / f"seed-{seed}"
    make_runs(config, folder, seed)
    return evaluate(config, folder)


def make_runs(config: Config, folder: Path, seed: int) -> None:
    """Train the networks, distil the teachers, and optimise their timesteps."""
    for name, options in TRAINED.items():
        out = folder / name
        common = {"data": config.data, "env": config.env, "steps": config.steps, "seed": seed}
        about = {**common, "out": out, "threads": config.threads, "resume": resumes(out)}
        about |= {"compile": "off"}
        if not is_trained(out, config.steps):
            train(TrainConfig(**about, **options))
    for name in TEACHERS:
        student = folder / f"{name}-distilled"
        about = {"out": student, "threads": config.threads, "resume": resumes(student)}
        if not is_trained(student, config.steps):
            distill(DistillConfig(run=folder / name, **about))
        if not (folder / name / "optimise" / "optimise.json").exists():
            optimise(OptimiseConfig(run=folder / name, env=config.env, workers=config.workers))


def evaluate(config: Config, folder: Path) -> Iterator[BudgetResult]:
    """Rows of every method, paused, over the same episodes."""
    runs = [folder / name for name in (*TRAINED, *(f"{name}-distilled" for name in TEACHERS))]
    methods = {"DDIM": {"runs": tuple(runs), "ddim_steps": FEW}} | {
        name: {"runs": tuple(folder / teacher for teacher in TEACHERS), **options}
        for name, options in METHODS.items()
    }
    for name, options in methods.items():
        about = {"env": config.env, "episodes": config.episodes, "clocks": ("paused",)}
        about |= {"latency_ms": 0.0, "pictures": False, "workers": config.workers}
        yield from swept(SweepConfig(**about, out=folder / "sweeps" / name, **options))


if __name__ == "__main__":
    set_threads(1)
    compare_methods(tyro.cli(Config), played)
