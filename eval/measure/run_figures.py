"""Best closed-loop figures of runs, from the results of `eval` and `sweep` that name them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from diffpolicy.checkpoint import policy_path
from diffpolicy.errors import DiffpolicyError

from .result_files import EvalProvenance, EvalResult, SweepResult, document, result_of
from .results import BudgetResult
from .run_facts import Best, RunFacts
from .run_folders import walk

REGRESSION = "regression"  # objective; the variant of rows that another run has in a sweep


Known = Mapping[Path, RunFacts]  # by resolved folder


def with_figures(folder: Path, runs: Sequence[RunFacts]) -> tuple[list[RunFacts], dict[str, str]]:
    """The runs with the best success that results below the folder, or beside a run, tell.

    The second: {file: reason} of results that cannot be read.
    """
    known = {(folder / run.name).resolve(): run for run in runs}
    best: dict[str, Best] = {}
    damaged: dict[str, str] = {}
    for file in _files(folder, folder.resolve() in known):
        try:
            found = [(run.name, _best(row, file)) for run, row in _rows(file, known)]
        except (DiffpolicyError, OSError) as error:
            damaged[str(file)] = str(error)
            continue
        for name, new in found:
            best[name] = max(best.get(name, new), new, key=_rank)
    return [replace(run, best=best.get(run.name)) for run in runs], damaged


def _files(folder: Path, beside: bool) -> list[Path]:
    """JSON files below a folder, and beside it if it is a run itself."""
    below = (path / name for path, files in walk(folder) for name in files)
    found = sorted(path for path in below if path.suffix == ".json")
    return found + (sorted(folder.resolve().parent.glob("*.json")) if beside else [])


def _rows(file: Path, known: Known) -> Iterator[tuple[RunFacts, BudgetResult]]:
    """Rows of a result with their runs; nothing of other documents and of unknown runs."""
    data = document(file)
    if not isinstance(data, dict) or not {"provenance", "rows"} <= data.keys():
        return
    result = result_of(data, file)
    if not isinstance(result, EvalResult | SweepResult):
        return
    for row in result.rows:
        given = _named(result.provenance, row)
        run = _run_of(Path(given), file.resolve(), known) if given else None
        if run and (row.variant != REGRESSION or run.objective == REGRESSION):
            yield run, row


def _named(provenance: EvalProvenance, row: BudgetResult) -> str | None:
    """The path of a row's run, as the command was given it."""
    if row.run is None:
        return provenance.run
    paths = ((given, policy_path(given).parent.as_posix()) for given in provenance.runs or ())
    return next((given for given, path in paths if f"/{path}".endswith(f"/{row.run}")), None)


def _run_of(given: Path, file: Path, known: Known) -> RunFacts | None:
    """The run that a path means: one around the file with its name, else where the path leads.

    A relative path is followed from the folders above the file, the nearest first.
    """
    wanted = policy_path(given).parent
    for above in file.parents:
        if above in known and wanted.name in ("", above.name):
            return known[above]
    places = ((above / wanted).resolve() for above in file.parents)
    return next((known[place] for place in places if place in known), None)


def _best(row: BudgetResult, file: Path) -> Best:
    return Best(
        success=row.success_rate,
        score=row.score_mean,
        episodes=row.episodes,
        budget=row.name,
        clock=row.clock,
        step=row.trained.step,
        file=str(file),
    )


def _rank(found: Best) -> tuple[float, float, int]:
    return found.success, found.score, found.episodes
