"""Budgets of several runs of one task, as candidates of one comparison."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from diffpolicy.checkpoint import Checkpoint, load_policy
from diffpolicy.config import Sampling
from diffpolicy.errors import DiffpolicyError
from diffpolicy.policy import Policy
from diffpolicy.specification import Task

from ..config import SweepConfig
from ..delays_config import DelaysConfig
from .evaluator import policy_of
from .results import TrainingCurve
from .run import Run
from .seeds import check_recipe, runs_in
from .training_log import training_curves

ALIKE = ("env_id", "env_kwargs", "control_dt_s", "camera", "observations", "action_dim")  # of Task


def load_runs(paths: Sequence[Path]) -> Iterator[tuple[str, Checkpoint]]:
    """The runs with the shortest ends of their folders that tell them apart.

    A folder with the runs of several training seeds gives each of them, under its own name.
    Raises DiffpolicyError if a run is given twice, or if tasks differ in what control uses.
    """
    folders = [Run(path).folder.resolve() for path in paths]
    if len(set(folders)) < len(folders):
        raise DiffpolicyError("--runs names a run folder twice; expected different runs")
    first: tuple[str, Task] | None = None
    for label, path in zip(labels(folders), paths, strict=True):
        for checkpoint in _seeds_of(path):
            task = checkpoint.specification.task
            first = first or (label, task)
            _check_task(*first, label, task)
            yield label, checkpoint


def _seeds_of(path: Path) -> list[Checkpoint]:
    """The runs of one recipe in a folder, or the run that it is."""
    found = {run: load_policy(run) for run in runs_in(path) or [path]}
    check_recipe(path, found)
    return [*found.values()]


def labels(folders: Sequence[Path]) -> list[str]:
    """The last part of each path, or as many as it takes to tell the paths apart."""
    longest = max(len(folder.parts) for folder in folders)
    ends = (["/".join(f.parts[-n:]) for f in folders] for n in range(1, longest + 1))
    return next(found for found in ends if len(set(found)) == len(found))


def curves_of(config: SweepConfig) -> list[TrainingCurve]:
    """The training curves of the run or the runs, from their logs; none of other policies."""
    paths = config.runs or ((config.run,) if config.run else ())
    folders = [Run(path).folder.resolve() for path in paths]
    names = labels(folders) if folders else []
    pairs = zip(folders, names, strict=True)
    return [curve for folder, name in pairs for curve in training_curves(folder, name)]


def _check_task(first: str, ours: Task, label: str, theirs: Task) -> None:
    for part in ALIKE:
        a, b = getattr(ours, part), getattr(theirs, part)
        if a != b:
            raise DiffpolicyError(
                f"--runs needs runs of one task; {part} of {label} is {b}, of {first} {a}"
            )


def budgets_of(
    config: SweepConfig | DelaysConfig, label: str, checkpoint: Checkpoint, found: list[Sampling]
) -> Iterator[Policy]:
    """The policies of one run; a strategy that the run does not fit is left out, and told."""
    misfits = {}
    for sampling in found:
        try:
            policy = policy_of(config, checkpoint, sampling)
        except DiffpolicyError as error:
            if sampling.late == "drop":
                raise DiffpolicyError(f"{label}: {error}") from error
            misfits[sampling.late] = error
            continue
        policy.label = label
        yield policy
    for late, error in misfits.items():
        print(f"{label} is left out of --late {late}: {error}")
