"""Recipe of a run: demonstrations, a diffusion policy, and a regression policy."""

from dataclasses import dataclass
from pathlib import Path

from diffpolicy.checkpoint import TRAINING_FILE
from diffpolicy.config import RecordConfig, TrainConfig
from diffpolicy.record import record
from diffpolicy.training.train import train

from .result_files import Options
from .run import Run


@dataclass(frozen=True)
class Recipe:
    """Number of demonstrations by the expert of an environment, and options of training."""

    env: str
    demonstrations: int
    training: Options  # options of TrainConfig


def make_run(recipe: Recipe, out: Path, seed: int) -> Path:
    """Make OUT/demonstrations.zarr, OUT/run and OUT/run/regression; return OUT/run.

    A second call continues a stopped one.
    """
    store, run = out / "demonstrations.zarr", out / "run"
    record(RecordConfig(recipe.env, recipe.demonstrations, store, seed=seed))
    for folder, regression in ((run, False), (Run(run).regression, True)):
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
