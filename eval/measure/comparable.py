"""Results that can be compared: reading them, and the checks that they belong together."""

from collections.abc import Sequence
from pathlib import Path

from diffpolicy.checked import shown
from diffpolicy.errors import DiffpolicyError

from .result_files import (
    FORMATS,
    DelaysResult,
    EvalProvenance,
    EvalResult,
    SuiteResult,
    SweepResult,
    read_result,
)

Comparable = EvalResult | SweepResult | DelaysResult
SWEPT, OF_SUITE = Path("sweep") / "sweep.json", "suite.json"  # in a folder
TASK = ("env", "env_kwargs", "control_dt_s")
RULES = ("limit", "success", "success_from", "score_from")  # absent in files of version 1
NAMES = {"limit": "the longest episode in ticks (--max-steps)", "env": "the environment"}
NAMES |= {"success": "--success", "success_from": "--success-from", "score_from": "--score-from"}
NAMES |= {"env_kwargs": "--env-kwargs", "control_dt_s": "the control period in seconds"}


def read_together(paths: Sequence[Path]) -> tuple[dict[str, list[Comparable]], list[str]]:
    """Results of all files by task, those of suites by theirs, others under an empty name.

    Also the tasks that some suites lack. Raises DiffpolicyError for files without episodes, a suite
    beside other results, and suites without a common task.
    """
    read = [_read(path) for path in paths]
    for path, tasks in zip(paths[1:], read[1:], strict=True):
        if ("" in tasks) != ("" in read[0]):
            raise DiffpolicyError(
                f"{path} and {paths[0]} do not belong together: one is a suite; expected suites "
                "only, or try TASK/sweep.json of one of its tasks"
            )
    every = list(dict.fromkeys(task for tasks in read for task in tasks))
    common = [task for task in every if all(task in tasks for tasks in read)]
    if not common:
        raise DiffpolicyError(f"no task is in every suite; they hold: {', '.join(every)}")
    together = {task: [tasks[task] for tasks in read] for task in common}
    return together, [task for task in every if task not in common]


def _read(path: Path) -> dict[str, Comparable]:
    """The results in a file or a folder by task. Raises DiffpolicyError without episodes."""
    file = file_of(path)
    result = read_result(file)
    if not isinstance(result, Comparable | SuiteResult):
        [name] = [name for name, kind in FORMATS.items() if type(result) is kind]
        raise DiffpolicyError(
            f"{file} is a result of {name}; expected one of eval, sweep, delays or suite"
        )
    found: dict[str, Comparable] = {}
    found |= result.tasks if isinstance(result, SuiteResult) else {"": result}
    for each in found.values():
        _check_outcomes(file, each)
    return found


def file_of(path: Path) -> Path:
    """The file of a result, in a folder that of its sweep or suite. Raises DiffpolicyError."""
    if not path.is_dir():
        return path
    for file in (path / SWEPT, path / OF_SUITE):
        if file.exists():
            return file
    raise DiffpolicyError(
        f"{path} holds no {SWEPT} and no {OF_SUITE}; expected a result file, a suite, or a run "
        f"with a sweep; try diffpolicy sweep --run {path}"
    )


def _check_outcomes(file: Path, result: Comparable) -> None:
    """Refuse a row that has not one outcome for each seed of the header."""
    first, last = result.provenance.seeds
    for row in result.rows:
        expected = (last - first + 1) * len(row.training_seeds or [0])
        found = len(row.outcomes.success)
        if found != expected:
            raise DiffpolicyError(
                f"{file} is damaged: {row.name} has {found} outcomes; expected {expected} for "
                f"the seeds {first} to {last}"
            )


def says_rules(provenance: EvalProvenance) -> bool:
    """False for files of format version 1, which lack the rules of an episode."""
    return provenance.limit is not None


def check_together(paths: Sequence[Path], results: Sequence[Comparable]) -> None:
    """Raise DiffpolicyError if results are of different tasks, with the first difference."""
    reference = results[0].provenance
    for path, result in zip(paths[1:], results[1:], strict=True):
        both = says_rules(reference) and says_rules(result.provenance)
        for name in (*TASK, *(RULES if both else ())):
            theirs, ours = getattr(reference, name), getattr(result.provenance, name)
            if ours != theirs:
                raise DiffpolicyError(
                    f"{path} and {paths[0]} do not belong together: {NAMES[name]} is "
                    f"{shown(ours)}, of the reference {shown(theirs)}; expected one task"
                )


def shared_seeds(reference: EvalProvenance, other: EvalProvenance) -> range | None:
    """The seeds that both ran, if their episodes repeat by their seed and there are any."""
    if not all(p.paired and p.seeds_repeat for p in (reference, other)):
        return None
    first = max(reference.seeds[0], other.seeds[0])
    return range(first, min(reference.seeds[1], other.seeds[1]) + 1) or None
