"""Grid of seeds × budgets: success and failure of each episode, the hardest seeds first."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from diffpolicy.terminal.output import counted

from ..measure.result_files import SweepResult
from ..measure.results import BudgetResult
from .sentences import clock_label

MOST_SEEDS = 150  # columns; seeds on which all budgets agree are left out first
SUCCESS, FAILURE, SOME = "ynp"  # some: of several training seeds


class GridRow(NamedTuple):
    """A budget: its kind of outcome for each seed, and the figures of each episode."""

    name: str
    cells: list[str]
    scores: str
    successes: str


@dataclass(frozen=True)
class Grid:
    """One clock; films: {row: {column: identifier of the film}}."""

    clock: str
    seeds: list[int]
    rows: list[GridRow]
    films: dict[int, dict[int, str]]
    note: str
    spoken: str


def film_id(seed: int) -> str:
    """Identifier of the film of a seed on the page."""
    return f"film-{seed}"


def grids_of(result: SweepResult) -> list[Grid]:
    """A grid for each clock, the last one first; rows of other episodes are left out."""
    first, last = result.provenance.seeds
    rows: dict[str, list[BudgetResult]] = {}
    for row in reversed(result.rows):
        if len(row.outcomes.success) == (last - first + 1) * len(row.training_seeds or [0]):
            rows.setdefault(clock_label(row), []).insert(0, row)
    return [_grid(result, clock, found) for clock, found in rows.items()]


def _grid(result: SweepResult, clock: str, rows: Sequence[BudgetResult]) -> Grid:
    first = result.provenance.seeds[0]
    success = np.array([_of_seeds(row, row.outcomes.success) for row in rows])
    score = np.array([_of_seeds(row, row.outcomes.score) for row in rows])
    order = np.lexsort((score.mean(axis=0), success.mean(axis=0)))
    shown = _chosen(success, order)
    seeds = (first + shown).tolist()
    return Grid(
        clock=clock,
        seeds=seeds,
        rows=[
            GridRow(
                row.name,
                [_kind(value) for value in success[i, shown].tolist()],
                " ".join(f"{value:.3g}" for value in score[i, shown].tolist()),
                f"{row.successes} of {row.episodes}",
            )
            for i, row in enumerate(rows)
        ],
        films=_films(result, clock, rows, seeds),
        note=_note(success, len(shown)),
        spoken=_spoken(clock, success),
    )


def _of_seeds(row: BudgetResult, values: Sequence[float]) -> np.ndarray:
    """Outcomes [E], of several training seeds their means."""
    return np.array(values, float).reshape(len(row.training_seeds or [0]), -1).mean(axis=0)


def _kind(share: float) -> str:
    return SUCCESS if share == 1 else FAILURE if share == 0 else SOME


def _chosen(success: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Columns in this order, at most MOST_SEEDS, those first on which budgets differ."""
    if len(order) <= MOST_SEEDS:
        return order
    differ = np.ptp(success, axis=0) > 0
    kept = [i for i in order if differ[i]][:MOST_SEEDS]
    kept += [i for i in order if not differ[i]][: MOST_SEEDS - len(kept)]
    wanted = set(kept)
    return np.array([i for i in order if i in wanted])


def _films(
    result: SweepResult, clock: str, rows: Sequence[BudgetResult], seeds: Sequence[int]
) -> dict[int, dict[int, str]]:
    """Films by row and column, as far as the result has any on this clock."""
    found: dict[int, dict[int, str]] = {}
    if clock_label(result.recommendation) != clock:
        return found
    for video in result.videos or []:
        if video.seed is None or video.seed not in seeds or video.file is None:
            continue
        for i, row in enumerate(rows):
            if row.name in video.budgets:
                found.setdefault(i, {})[seeds.index(video.seed)] = film_id(video.seed)
    return found


def _counts(success: np.ndarray) -> tuple[int, int, int]:
    """Seeds on which all budgets succeed, some do, none does."""
    worst, best = success.min(axis=0), success.max(axis=0)
    every, none = int((worst == 1).sum()), int((best == 0).sum())
    return every, success.shape[1] - every - none, none


def _note(success: np.ndarray, shown: int) -> str:
    every, some, none = _counts(success)
    text = f"All budgets succeed on {counted(every, 'seed')}, some on {some:,}, none on {none:,}."
    if shown < success.shape[1]:
        text += f" {shown} of {success.shape[1]:,} seeds are shown, those that differ first."
    return text


def _spoken(clock: str, success: np.ndarray) -> str:
    return f"Outcome of each seed and budget on the clock {clock}. {_note(success, 10**9)}"
