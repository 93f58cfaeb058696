"""Success after few updates: `python eval/bench/bench_updates.py --out DIR --data STORE`.

For each training seed it trains its networks for all updates and for a quarter of them,
each with its own learning-rate cosine, and evaluates 1, 2 and 8 steps of DDIM over the same
episodes, paused. A second call continues where the first one stopped. It writes DIR/seed-S.json,
the outcomes of each episode, and prints the table; where those files exist, it needs nothing else.
"""

# diffpolicy.eval is known to Python, not to pyright.
# pyright: reportMissingImports=false

from dataclasses import dataclass
from typing import Any, Literal

import tyro

from diffpolicy.eval.bench.outcome_files import (
    SeedsConfig,
    compare_methods,
    is_trained,
    resumes,
    swept,
)
from diffpolicy.eval.config import SweepConfig
from diffpolicy.eval.measure.provenance import set_threads
from diffpolicy.eval.measure.results import BudgetResult
from diffpolicy.training.config import TrainConfig
from diffpolicy.training.train import train

Method = Literal["epsilon", "x0", "v", "regression"]
TRAINED: dict[Method, dict[str, Any]] = {
    "epsilon": {"prediction": "epsilon"},
    "x0": {"prediction": "x0"},
    "v": {"prediction": "v"},
    "regression": {"objective": "regression"},
}
PARTS = (4, 1)  # a training makes 1/part of the updates


@dataclass(frozen=True)
class Config(SeedsConfig):
    """Compare a quarter of the updates with all of them on one task."""

    steps: int = 12_000
    """Updates of the longer trainings."""
    episodes: int = 200
    """Episodes for each method and training seed."""
    methods: tuple[Method, ...] = tuple(TRAINED)
    """Networks to train."""
    lr: float = TrainConfig.lr
    """Peak learning rate of AdamW."""
    beta2: float = TrainConfig.beta2
    """Decay of AdamW's mean of squared gradients."""
    weight_decay: float = TrainConfig.weight_decay
    """Weight decay of AdamW; other settings need another --out."""
    mirror: Literal["auto", "off"] = TrainConfig.mirror
    """Mirror images of the demonstrations, as `train` has them; off: none."""


def played(config: Config, seed: int) -> list[BudgetResult]:
    """Rows of every training with a training seed."""
    folder = config.out / f"seed-{seed}"
    runs = []
    for name in config.methods:
        for part in PARTS:
            steps = config.steps // part
            runs.append(folder / f"{name}-{steps}")
            about = {"data": config.data, "env": config.env, "out": runs[-1], "seed": seed}
            about |= {"compile": "off", "resume": resumes(runs[-1]), "lr": config.lr}
            about |= {"beta2": config.beta2, "weight_decay": config.weight_decay}
            about |= {"mirror": config.mirror}
            if not is_trained(runs[-1], steps):
                train(TrainConfig(**about, steps=steps, threads=config.threads, **TRAINED[name]))
    about = {"env": config.env, "episodes": config.episodes, "clocks": ("paused",)}
    about |= {"latency_ms": 0.0, "pictures": False, "workers": config.workers}
    out = folder / "sweep"
    return swept(SweepConfig(**about, runs=tuple(runs), ddim_steps=(1, 2, 8), out=out))


if __name__ == "__main__":
    set_threads(1)
    compare_methods(tyro.cli(Config), played)
