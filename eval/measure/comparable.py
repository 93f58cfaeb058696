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
    SweepResult,
    read_result,
)

Comparable = EvalResult | SweepResult | DelaysResult
SWEPT = Path("sweep") / "sweep.json"  # in a run folder
TASK = ("env", "env_kwargs", "control_dt_s")
RULES = ("limit", "success", "success_from", "score_from")  # absent in files of version 1
NAMES = {"limit": "the longest episode in ticks (--max-steps)", "env": "the environment"}
NAMES |= {"success": "--success", "success_from": "--success-from", "score_from": "--score-from"}
NAMES |= {"env_kwargs": "--env-kwargs", "control_dt_s": "the control period in seconds"}


def read_comparable(path: Path) -> Comparable:
    """The result in a file or a run folder. Raises DiffpolicyError if it has no episodes."""
    file = _file_of(path)
    result = read_result(file)
    if not isinstance(result, Comparable):
        [name] = [name for name, kind in FORMATS.items() if type(result) is kind]
        hint = "; try TASK/sweep.json of one of its tasks" if name == "suite" else ""
        raise DiffpolicyError(
            f"{file} is a result of {name}; expected one of eval, sweep or delays{hint}"
        )
    _check_outcomes(file, result)
    return result


def _file_of(path: Path) -> Path:
    if path.is_dir() and not (path / SWEPT).exists():
        raise DiffpolicyError(
            f"{path} holds no {SWEPT}; expected a result file, or a run with one; "
            f"try diffpolicy sweep --run {path}"
        )
    return path / SWEPT if path.is_dir() else path


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
