"""`diffpolicy train`: one run, or one for each training seed."""

from collections.abc import Iterator
from dataclasses import replace

from diffpolicy.errors import DiffpolicyError
from diffpolicy.training.config import TrainConfig
from diffpolicy.training.start import check_options
from diffpolicy.training.train import train


def command(config: TrainConfig) -> None:
    """Train the run, or a run OUT/seed-K for each of --seeds. Raises as `train` does."""
    runs = [*of_seeds(config)] if config.seeds else [config]
    for run in runs:
        check_options(run)
    for run in runs:
        train(run)


def of_seeds(config: TrainConfig) -> Iterator[TrainConfig]:
    """The options of each seed's run. Raises DiffpolicyError for a seed that is given twice."""
    if len(set(config.seeds)) < len(config.seeds):
        raise DiffpolicyError(f"--seeds expects different seeds; got {list(config.seeds)}")
    for seed in config.seeds:
        yield replace(config, seed=seed, seeds=(), out=config.out / f"seed-{seed}")
