"""From an environment to a run that can be swept: demonstrations, a policy, its baseline."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffpolicy.checkpoint import TRAINING_FILE
from diffpolicy.config import RecordConfig, TrainConfig
from diffpolicy.record import record
from diffpolicy.training.train import train

from .budgets import REGRESSION


@dataclass(frozen=True)
class Recipe:
    """How many demonstrations of an environment's expert, and how training goes on them."""

    env: str
    demonstrations: int
    training: dict[str, Any]  # options of TrainConfig


def make_run(recipe: Recipe, out: Path, seed: int) -> Path:
    """OUT/demonstrations.zarr, OUT/run and OUT/run/regression; the run's folder.

    A second call goes on where the first one stopped.
    """
    store, run = out / "demonstrations.zarr", out / "run"
    record(RecordConfig(recipe.env, recipe.demonstrations, store, seed=seed))
    for folder, regression in ((run, False), (run / REGRESSION, True)):
        train(
            TrainConfig(
                data=store,
                out=folder,
                seed=seed,
                regression=regression,
                resume=(folder / TRAINING_FILE).exists(),
                **recipe.training,
            )
        )
    return run
