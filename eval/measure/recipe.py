"""Recipe of a run: demonstrations, a diffusion policy, and a regression policy."""

from dataclasses import dataclass
from pathlib import Path

from diffpolicy.checkpoint import TRAINING_FILE, policy_path
from diffpolicy.config import Objective, RecordConfig
from diffpolicy.data.demonstrations import contents
from diffpolicy.errors import DiffpolicyError
from diffpolicy.record import record
from diffpolicy.training.config import TrainConfig
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
    _check_store(store, run, recipe.demonstrations)
    record(RecordConfig(recipe.env, recipe.demonstrations, store, seed=seed))
    objectives: dict[Path, Objective] = {run: "denoising", Run(run).regression: "regression"}
    for folder, objective in objectives.items():
        train(
            TrainConfig(
                data=store,
                out=folder,
                seed=seed,
                objective=objective,
                resume=(folder / TRAINING_FILE).exists(),
                **recipe.training,
            )
        )
    return run


def _check_store(store: Path, run: Path, wanted: int) -> None:
    """Refuse another number of demonstrations than a policy was trained on, before recording."""
    if store.parent.exists() and not store.parent.is_dir():
        raise DiffpolicyError(f"--out {store.parent} is a file; expected a folder")
    if not store.exists() or not any(p.exists() for p in (run / TRAINING_FILE, policy_path(run))):
        return
    held = len(contents(store).ends)
    if held != wanted:
        raise DiffpolicyError(
            f"{store.parent} holds {held} demonstrations and a policy trained on them; got "
            f"--demonstrations {wanted}; give the same number, delete {store.parent} or choose "
            "another --out"
        )
