"""Flat CSV files beside a result, for a notebook or a spreadsheet.

`NAME_episodes.csv` has one line for each episode: budget, clock, seed, success, score,
success_tick; of offline figures: budget, episode, error. `NAME_budgets.csv` has one line for each
row of the result, with all scalars that any row has; nested names are joined by a dot
(latency_ms.p50), intervals give `_low` and `_high`. `to_drop` is the difference of a strategy for
late chunks to `--late drop`. Left out are lists, except the number of
`failures`, and fields of older files that rows no longer have. A suite puts `task` first; a latency
file and a comparison have no episodes.
"""

import csv
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from functools import partial
from pathlib import Path
from typing import Any

from diffpolicy.files import write_atomically

from ..measure.comparison_results import Comparison, SuiteComparison
from ..measure.decisions import AgainstDrop
from ..measure.offline_results import OfflineResult
from ..measure.replay_results import ReplayedEpisode, ReplayResult
from ..measure.result_files import DelaysResult, LatencyFile, Result, SuiteResult
from ..measure.results import Outcomes
from ..measure.simulated import Simulation

Line = dict[str, Any]
RENAMED = {"name": "budget"}  # as in the file of episodes


def csv_paths(path: Path) -> tuple[Path, Path]:
    """The CSV files of episodes and of budgets beside a result file."""
    return path.with_name(f"{path.stem}_episodes.csv"), path.with_name(f"{path.stem}_budgets.csv")


def write_csv(path: Path, result: Result) -> None:
    """Write the CSV files beside a result file; those without lines are not written."""
    for file, lines in zip(csv_paths(path), (episodes, budgets), strict=True):
        if columns := dict.fromkeys(name for line in lines(result) for name in line):
            write_atomically(file, partial(_write, list(columns), lines(result)))


def episodes(result: Result) -> Iterator[Line]:
    """One line for each episode of each row."""
    if isinstance(result, SuiteResult):
        for task, swept in result.tasks.items():
            yield from ({"task": task, **line} for line in episodes(swept))
    elif isinstance(result, ReplayResult):
        yield from (_replayed(row) for row in result.rows)
    elif isinstance(result, OfflineResult):
        for row in result.rows:
            for number, error in zip(result.provenance.episodes, row.episode_errors, strict=True):
                yield {"budget": row.name, "episode": number, "error": error}
    elif not isinstance(result, Simulation | LatencyFile | Comparison):
        first = result.provenance.seeds[0]
        for row in result.rows:
            found = row.outcomes
            ticks = found.success_tick or [None] * len(found.success)
            about: Line = {
                "budget": row.name,
                "clock": row.clock,
                "latency_source": row.latency_source,
            }
            per_seed = len(found.success) // len(row.training_seeds or [0])
            for i, (success, score, tick) in enumerate(
                zip(found.success, found.score, ticks, strict=True)
            ):
                if row.training_seeds:
                    about["training_seed"] = row.training_seeds[i // per_seed]
                outcome = {"success": success, "score": score, "success_tick": tick}
                yield {**about, "seed": first + i % per_seed, **outcome}


def _replayed(row: ReplayedEpisode) -> Line:
    """The scalars of an episode, and of the difference of each key."""
    line = dict(_scalars(row))
    for difference in row.differences:
        line |= _scalars(difference, f"{difference.key}.")
        del line[f"{difference.key}.key"]
    return line


def budgets(result: Result) -> Iterator[Line]:
    """One line for each row, with its scalars; a replay has no budgets."""
    if isinstance(result, ReplayResult):
        return
    if isinstance(result, SuiteResult | SuiteComparison):
        for task, swept in result.tasks.items():
            yield from ({"task": task, **line} for line in budgets(swept))
    else:
        lines = [dict(_scalars(row)) for row in result.rows]
        if isinstance(result, DelaysResult):
            for line, row in zip(lines, result.rows, strict=True):
                line |= _to_drop(result.against_drop(row))
        names = dict.fromkeys(name for line in lines for name in line)
        columns = [name for name in names if any(line.get(name) is not None for line in lines)]
        yield from ({RENAMED.get(name, name): line.get(name) for name in columns} for line in lines)


def _to_drop(found: AgainstDrop | None) -> Line:
    """The difference of a strategy for late chunks to `--late drop`, its interval and p-value."""
    if found is None:
        return {}
    about = {"to_drop": found.difference, "to_drop_ci": found.difference_ci}
    return dict(_scalars({**about, "to_drop_p_mcnemar": found.p_mcnemar}))


def _scalars(row: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(column, value) of the scalar fields of a dataclass or dict, at any depth."""
    found = row if isinstance(row, dict) else {f.name: getattr(row, f.name) for f in fields(row)}
    for short, value in found.items():
        name = prefix + short
        if isinstance(value, Outcomes):
            continue
        if is_dataclass(value) or isinstance(value, dict):
            yield from _scalars(value, f"{name}.")
        elif isinstance(value, tuple):
            yield from zip((f"{name}_low", f"{name}_high"), value, strict=False)
        elif short == "failures":
            yield name, len(value)
        elif value is None or isinstance(value, bool | int | float | str):
            yield name, value


def _write(columns: list[str], lines: Iterator[Line], path: Path) -> None:
    """Write lines as they come; none is held."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)
