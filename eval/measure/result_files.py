"""Files of results: one JSON document each, written and read here.

A file names its format, one of FORMATS, and its `format_version`. Files of version 1 name neither;
their fields tell the format.
"""

import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

from diffpolicy.checked import NOT_EMPTY, Range, read_json, shown, validate
from diffpolicy.config import Place
from diffpolicy.errors import DiffpolicyError
from diffpolicy.files import write_json

from .comparison_results import CompareResult, SuiteComparison
from .computer import Provenance
from .decisions import AgainstDrop, Recommendation
from .offline_results import OfflineResult
from .optimise_results import Candidate
from .replay_results import ReplayResult
from .results import (
    BudgetResult,
    LatencyResult,
    Metric,
    Name,
    Picture,
    Profile,
    Seed,
    Source,
    TrainingCurve,
    Video,
    check_inside,
)
from .simulated import Simulation
from .timelines import Timeline

FORMAT_VERSION = 2
FIELDS = {  # name in JSON, present or past: field
    "header": "provenance",
    "records": "rows",
    "p99.9": "p99_9",
}
JSON_NAMES = {name: written for written, name in FIELDS.items()}
Options = dict[str, Any]  # of an environment, of training: names of others
OMITTED = (  # from JSON, if None
    *("ticks", "tick_late_ms", "missed_ticks", "parameters", "precision", "samples_ms"),
    *("encoder_ms", "head_ms", "evaluations_mean", "training_seeds", "training_seed"),
    *("over_seeds", "cameras", "crop", "policy", "env", "run", "runs", "curves", "videos"),
    *("command", "date", "timelines"),
)
FREE = ("env_kwargs", "training", "evaluation", "cameras")  # objects with names of others


@dataclass(frozen=True, kw_only=True)
class EvalProvenance(Provenance):
    """Provenance, environment and options of an evaluation; defaults are for older files."""

    env: Name
    env_kwargs: Options = field(default_factory=dict)
    run: str | None = None
    runs: list[str] | None = None  # several, instead of one; checkpoint: of the first
    policy: Name | None = None  # module:factory, instead of a run
    checkpoint: Source = field(default_factory=Source)
    seeds: tuple[Seed, Seed]  # the first and the last
    padded_batch: int
    workers: int | None = None
    max_steps: int | None = None
    paired: bool = True
    seeds_repeat: bool = True
    seeds_evidence: str | None = None
    control_dt_s: Annotated[float, Range(1e-9, 1e9)]
    envs: int
    batch: int
    cold_start: bool
    success_from: str | None = None
    neutral: str
    success: str = "at-any-tick"
    score_from: str | None = None
    on_env_error: str = "stop"
    step_timeout: float | None = None
    limit: int | None = None


@dataclass(frozen=True, kw_only=True)
class SweepProvenance(EvalProvenance):
    """Provenance of a sweep; outcome is the metric that its budgets are compared by."""

    outcome: Metric
    margin: float
    floor: float
    on: Place = "local"


@dataclass(frozen=True, kw_only=True)
class LatencyProvenance(Provenance):
    """Provenance of latencies."""

    run: str | None = None
    net: Name | None = None
    policy: Name | None = None  # module:factory, which observed `env`
    env: Name | None = None
    stress: bool = False
    deadline_ms: float | None = None


@dataclass(frozen=True, kw_only=True)
class EvalResult:
    """Result of `diffpolicy eval`."""

    provenance: EvalProvenance
    rows: Annotated[list[BudgetResult], NOT_EMPTY]


@dataclass(frozen=True, kw_only=True)
class DelaysResult:
    """Result of `diffpolicy delays`: one row for each pattern of delays and each budget.

    A pattern is the `latency_source` of its rows; `ticks` is None unless it is a constant.
    """

    provenance: EvalProvenance
    rows: Annotated[list[BudgetResult], NOT_EMPTY]
    comparisons: list[AgainstDrop] = field(default_factory=list)

    def against_drop(self, row: BudgetResult) -> AgainstDrop | None:
        """The difference of a row to `--late drop` at the same delays, if that was evaluated."""
        key = row.latency_source, row.name
        return next((c for c in self.comparisons if (c.delays, c.name) == key), None)


@dataclass(frozen=True, kw_only=True)
class SweepResult:
    """Result of `diffpolicy sweep`; recommendation: the one of the last clock."""

    provenance: SweepProvenance
    rows: Annotated[list[BudgetResult], NOT_EMPTY]
    profiles: list[Profile] = field(default_factory=list)
    recommendations: Annotated[list[Recommendation], NOT_EMPTY]
    recommendation: Recommendation
    pictures: list[Picture] = field(default_factory=list)
    videos: list[Video] | None = None
    curves: list[TrainingCurve] | None = None
    timelines: list[Timeline] | None = None


@dataclass(frozen=True, kw_only=True)
class OptimiseResult:
    """Result of `diffpolicy optimise`; outcome is the metric that decided."""

    provenance: EvalProvenance
    rows: Annotated[list[BudgetResult], NOT_EMPTY]
    outcome: Metric
    candidates: Annotated[list[Candidate], NOT_EMPTY]


@dataclass(frozen=True, kw_only=True)
class SuiteResult:
    """Result of `diffpolicy suite`: the sweep of every task under one protocol."""

    budget: Name
    protocol: Options
    tasks: Annotated[dict[str, SweepResult], NOT_EMPTY]

    def __post_init__(self):
        for task in self.tasks:
            check_inside(task)


@dataclass(frozen=True, kw_only=True)
class LatencyFile:
    """Result of `diffpolicy latency`."""

    provenance: LatencyProvenance
    rows: Annotated[list[LatencyResult], NOT_EMPTY]


Result = (
    EvalResult
    | DelaysResult
    | SweepResult
    | SuiteResult
    | LatencyFile
    | Simulation
    | OfflineResult
    | ReplayResult
    | OptimiseResult
    | CompareResult
    | SuiteComparison
)
FORMATS: dict[str, type[Result]] = {
    "eval": EvalResult,
    "delays": DelaysResult,
    "sweep": SweepResult,
    "suite": SuiteResult,
    "latency": LatencyFile,
    "simulation": Simulation,
    "offline": OfflineResult,
    "replay": ReplayResult,
    "optimise": OptimiseResult,
    "compare": CompareResult,
    "compare-suite": SuiteComparison,
}


def write_result(path: Path, result: Result) -> None:
    """Write a result, whole or not at all."""
    write_json(path, document_of(result))


def document_of(result: Result) -> Options:
    """A result as its file holds it, with the name of its format."""
    [name] = [name for name, kind in FORMATS.items() if type(result) is kind]
    return {"format": name, "format_version": FORMAT_VERSION, **json_of(result)}


def json_of(result: Result | BudgetResult | Provenance) -> Options:
    """A result, or a part of it, as it stands in JSON."""
    return _renamed(asdict(result), JSON_NAMES)


def read_result(path: Path) -> Result:
    """Read a result file of any format and version. Raises DiffpolicyError if it is not one."""
    return result_of(document(path), path)


def result_of(data: Any, path: Path) -> Result:
    """The result that the document of a file holds; see `read_result`."""
    data = {"rows": data} if isinstance(data, list) and data else data  # scenarios of a benchmark
    kind = FORMATS[_format_of(data, path)]
    return validated(kind, data, path)


def read_sweep(path: Path) -> SweepResult:
    """Read a sweep.json. Raises DiffpolicyError if it is not one."""
    return validated(SweepResult, document(path), path)


def document(path: Path) -> Any:
    """The JSON document of a file, its fields under their present names."""
    data = read_json(path)
    version = data.get("format_version", 1) if isinstance(data, dict) else 1
    if version not in range(1, FORMAT_VERSION + 1):
        raise DiffpolicyError(
            f"{path} has result format {shown(version)}; expected at most {FORMAT_VERSION}; try a "
            "newer diffpolicy"
        )
    return _renamed(data, FIELDS)


def validated(kind: Any, data: Any, path: Path) -> Any:
    """`validate`, with fields in its messages named as in JSON."""
    try:
        return validate(kind, data, str(path), others=True)
    except DiffpolicyError as error:
        told = str(error).removeprefix(str(path))
        place, lacks, names = told.partition(" lacks ")
        place = re.sub(r"\.(\w+)", lambda m: "." + JSON_NAMES.get(m[1], m[1]), place)
        names = ", ".join(JSON_NAMES.get(name, name) for name in names.split(", "))
        told = place + lacks + names
        raise DiffpolicyError(f"{path}{told}") from error


def _renamed(data: Any, names: dict[str, str]) -> Any:
    """The document with fields renamed at every depth."""
    if isinstance(data, dict):
        return {
            names.get(name, name): value if name in FREE else _renamed(value, names)
            for name, value in data.items()
            if value is not None or name not in OMITTED
        }
    return [_renamed(item, names) for item in data] if isinstance(data, list | tuple) else data


def _format_of(data: Any, path: Path) -> str:
    """The format that a document names, else the one that its fields fit."""
    known = data if isinstance(data, dict) else {}
    rows = known.get("rows")
    row = rows[0] if isinstance(rows, list) and rows and isinstance(rows[0], dict) else {}
    if known.get("format") in list(FORMATS):
        return known["format"]
    fits = {
        "suite": "tasks" in known,
        "sweep": "recommendations" in known,
        "simulation": "rules" in row,
        "delays": "ticks" in row,
        "eval": "clock" in row,
        "latency": "latency_ms" in row,
    }
    found = next((name for name, fit in fits.items() if fit), None)
    if found is None:
        raise DiffpolicyError(
            f"{path} is not a result; expected what {', '.join(FORMATS)} wrote; got {shown(data)}"
        )
    return found
