"""Success after few updates: `python eval/bench/bench_updates.py --out DIR --data STORE`.

For each training seed it trains ε, x0, v and regression for all updates and for a quarter of them,
each with its own learning-rate cosine, and evaluates 1, 2 and 8 steps of DDIM over the same
episodes, paused. A second call continues where the first one stopped. It writes DIR/seed-S.json,
the outcomes of each episode, and prints the table; where those files exist, it needs nothing else.
"""

# diffpolicy.eval is known to Python, not to pyright.
# pyright: reportMissingImports=false

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import tyro

from diffpolicy.checkpoint import TRAINING_FILE, load_training
from diffpolicy.eval.bench.outcome_files import kept, print_methods
from diffpolicy.eval.config import SweepConfig
from diffpolicy.eval.measure.provenance import set_threads
from diffpolicy.eval.measure.result_files import read_sweep
from diffpolicy.eval.measure.results import BudgetResult, Metric
from diffpolicy.eval.sweep import sweep
from diffpolicy.training.config import TrainConfig
from diffpolicy.training.train import train

TRAINED: dict[str, dict[str, Any]] = {
    "epsilon": {"prediction": "epsilon"},
    "x0": {"prediction": "x0"},
    "v": {"prediction": "v"},
    "regression": {"objective": "regression"},
}
PARTS = (4, 1)  # a training makes 1/part of the updates


@dataclass(frozen=True)
class Config:
    """Compare a quarter of the updates with all of them on one task."""

    out: Path
    """Folder to write."""
    data: Path | None = None
    """Demonstrations; not needed where the files of all training seeds exist."""
    env: str | None = None
    """Gymnasium id; by default the one in the store."""
    steps: int = 12_000
    """Updates of the longer trainings."""
    seeds: tuple[int, ...] = (0, 1)
    """Training seeds."""
    episodes: int = 200
    """Episodes for each method and training seed."""
    threads: int = 1
    """CPU threads of a training."""
    workers: int | None = None
    """Worker processes of the episodes; by default one for each core."""
    outcome: Metric = "success"
    """Outcome of the table."""


def main(config: Config) -> None:
    """Train, evaluate, and print each training, with its paired difference to the best."""
    about = {"env": config.env, "steps": config.steps, "episodes": config.episodes}
    print_methods(
        [
            kept(config.out / f"seed-{seed}.json", about, partial(played, config, seed))
            for seed in config.seeds
        ],
        config.outcome,
    )


def played(config: Config, seed: int) -> Iterator[BudgetResult]:
    """Rows of every training with a training seed."""
    if config.data is None:
        raise SystemExit(f"{config.out} lacks seed-{seed}.json; give --data STORE to make it")
    folder = config.out / f"seed-{seed}"
    runs = []
    for name, options in TRAINED.items():
        for part in PARTS:
            steps = config.steps // part
            runs.append(folder / f"{name}-{steps}")
            about = {"data": config.data, "env": config.env, "out": runs[-1], "seed": seed}
            about |= {"compile": "off"}
            if not (runs[-1] / TRAINING_FILE).exists() or step_of(runs[-1]) < steps:
                train(TrainConfig(**about, steps=steps, threads=config.threads, **options))
    about = {"env": config.env, "episodes": config.episodes, "clocks": ("paused",)}
    about |= {"latency_ms": 0.0, "pictures": False, "workers": config.workers}
    if not (folder / "sweep" / "sweep.json").exists():
        sweep(SweepConfig(**about, runs=tuple(runs), ddim_steps=(1, 2, 8), out=folder / "sweep"))
    yield from read_sweep(folder / "sweep" / "sweep.json").rows


def step_of(out: Path) -> int:
    """Updates of the last checkpoint in a run folder."""
    return load_training(out / TRAINING_FILE)[1].step


if __name__ == "__main__":
    set_threads(1)
    main(tyro.cli(Config))
