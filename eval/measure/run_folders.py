"""Run folders below a folder: state, training and last validation loss, without their weights."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from diffpolicy.checked import Range, validate
from diffpolicy.checkpoint import (
    POLICY_FILE,
    TRAINING_FILE,
    PolicyHeader,
    TrainingState,
    load_header,
)
from diffpolicy.config import MINUTES, STEPS
from diffpolicy.errors import DiffpolicyError
from diffpolicy.files import is_locked

from .results import Count, Name
from .run_facts import RunFacts, State
from .training_log import LOG, last

STORES = (".zgroup", "zarr.json")  # files of a folder that holds no runs
SNAPSHOTS = "curve"  # in a run


@dataclass(frozen=True)
class Asked:
    """The target among the options of a training; imported policies have none."""

    steps: Annotated[int | None, STEPS] = None
    minutes: Annotated[float | None, MINUTES] = None


@dataclass(frozen=True)
class Trained:
    """The part of a policy's training provenance that is listed."""

    step: Count | None = None
    elapsed_s: Annotated[float | None, Range(0, 1e12)] = None
    precision: Name | None = None
    episodes: Count | None = None
    config: Asked = field(default_factory=Asked)


def find_runs(folder: Path) -> tuple[list[RunFacts], dict[str, str]]:
    """The runs in and below a folder by name, and {name: reason} of those that cannot be read."""
    found, skipped = [], {}
    for path in sorted(run_folders(folder)):
        name = path.relative_to(folder).as_posix()
        try:
            found.append(_facts(name, path))
        except (DiffpolicyError, OSError) as error:
            skipped[name] = str(error)
    return found, skipped


def run_folders(folder: Path) -> Iterator[Path]:
    """Folders with a checkpoint, or with the log of a training before its first one."""
    for path, files in walk(folder):
        if is_run(files) or (LOG in files and is_locked(path)):
            yield path


def walk(folder: Path) -> Iterator[tuple[Path, list[str]]]:
    """(folder, its files) in and below a folder, without hidden ones, stores and snapshots."""
    for path, folders, files in os.walk(folder):
        yield Path(path), files
        inner = [] if set(STORES) & set(files) else folders
        left_out = {SNAPSHOTS} if is_run(files) or LOG in files else set()
        folders[:] = [name for name in inner if name not in left_out and name[0] != "."]


def is_run(files: Sequence[str]) -> bool:
    """True if the files of a folder have a checkpoint among them."""
    return POLICY_FILE in files or TRAINING_FILE in files


def _facts(name: str, path: Path) -> RunFacts:
    about = {"validation_loss": last(path, "validation_loss"), "success": last(path, "success")}
    locked, policy = is_locked(path), _policy(path)
    state = _training(path)
    if state:
        target = _target(state, policy)
        about |= {"step": state.step, "minutes": state.elapsed_s / 60}
        about |= {"target_steps": target.steps, "target_minutes": target.minutes}
        kind: State = "finished" if _complete(state, target) else "interrupted"
    else:
        kind = "policy only"
    return RunFacts(name=name, state="training" if locked else kind, **{**policy, **about})


def _training(path: Path) -> TrainingState | None:
    file = path / TRAINING_FILE
    return validate(TrainingState, load_header(file), str(file)) if file.exists() else None


def _policy(path: Path) -> dict[str, Any]:
    """Facts in the policy's header, as fields of RunFacts; none before the first checkpoint."""
    file = path / POLICY_FILE
    if not file.exists():
        return {}
    specification = validate(PolicyHeader, load_header(file), f"{file}: header").specification
    model, where = specification.model, f"the training provenance of {file}"
    trained: Trained = validate(Trained, specification.training, where, others=True)
    return {
        "step": trained.step,
        "minutes": None if trained.elapsed_s is None else trained.elapsed_s / 60,
        "target_steps": trained.config.steps,
        "target_minutes": trained.config.minutes,
        "network": model.denoiser,
        "objective": model.objective,
        "prediction": model.prediction if model.objective != "regression" else None,
        "precision": trained.precision,
        "episodes": trained.episodes,
    }


def _target(state: TrainingState, policy: dict[str, Any]) -> Asked:
    """The target of a run; format 1 has it in the policy alone."""
    if state.steps or state.minutes:
        return Asked(state.steps, state.minutes)
    return Asked(policy.get("target_steps"), policy.get("target_minutes"))


def _complete(state: TrainingState, target: Asked) -> bool:
    if target.steps is not None:
        return state.step >= target.steps
    return target.minutes is not None and state.elapsed_s >= 60 * target.minutes
