"""Outcomes of each episode by method, kept in one file for each training seed, and their table.

A file holds {"provenance", "config", "rows": {method: {"network_evals", "success", "score"}}}.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np

from diffpolicy.checked import NOT_EMPTY, read_json, validate
from diffpolicy.checkpoint import TRAINING_FILE, load_training
from diffpolicy.device import choose_device
from diffpolicy.errors import DiffpolicyError
from diffpolicy.files import write_text

from ..config import SweepConfig
from ..measure.provenance import provenance
from ..measure.result_files import read_sweep
from ..measure.results import BudgetResult, Metric
from ..report.table import print_table
from ..significance import crossed_interval
from ..sweep import sweep


@dataclass(frozen=True)
class SeedsConfig:
    """Options of a bench that trains several seeds and evaluates them over the same episodes."""

    out: Path
    """Folder to write."""
    data: Path | None = None
    """Demonstrations; not needed where the files of all training seeds exist."""
    env: str | None = None
    """Gymnasium id; by default the one in the store."""
    steps: int = 20_000
    """Updates of the longest trainings."""
    seeds: tuple[int, ...] = (0, 1)
    """Training seeds."""
    episodes: int = 400
    """Episodes for each method and training seed."""
    threads: int = 1
    """CPU threads of a training."""
    workers: int | None = None
    """Worker processes of the episodes; by default one for each core."""
    outcome: Metric = "success"
    """Outcome of the table."""


@dataclass(frozen=True)
class Played:
    """Outcomes [E] of a method, and its evaluations of a chunk."""

    network_evals: int
    success: Annotated[list[float], NOT_EMPTY]
    score: Annotated[list[float], NOT_EMPTY]


@dataclass(frozen=True)
class OfSeed:
    """The part of a file that is read. config: options of its training and its episodes."""

    config: dict[str, Any]
    rows: dict[str, Played]


def compare_methods(
    config: SeedsConfig, played: Callable[[Any, int], Iterable[BudgetResult]]
) -> None:
    """Print the table of all training seeds; played(config, seed) makes rows that no file has."""
    about = {"env": config.env, "steps": config.steps, "episodes": config.episodes}
    files = []
    for seed in config.seeds:
        make = partial(played, config, seed) if config.data else None
        files.append(kept(config.out / f"seed-{seed}.json", about, make))
    print_methods(files, config.outcome)
    print_grid(files, config.outcome)


def kept(
    path: Path,
    config: Mapping[str, Any],
    make: Callable[[], Iterable[BudgetResult]] | None,
) -> OfSeed:
    """Contents of a file; where there is none yet, it is written with the rows of `make`.

    Raises SystemExit for a file of other options than `config`, unless `make` is None: then nothing
    is made, and any options do. Also for a file that is damaged or absent.
    """
    if make and not path.exists():
        found = {
            "provenance": asdict(provenance(choose_device("cpu"))),
            "config": dict(config),
            "rows": {row.name: _outcomes(row) for row in make()},
        }
        write_text(path, json.dumps(found))
    if not path.exists():
        raise SystemExit(f"{path.parent} lacks {path.name}; give --data STORE to make it")
    try:
        of_seed: OfSeed = validate(OfSeed, read_json(path), str(path), others=True)
    except DiffpolicyError as error:
        raise SystemExit(str(error)) from error
    if make and of_seed.config != dict(config):
        raise SystemExit(
            f"{path} was made with {of_seed.config}, not {dict(config)}; try another --out"
        )
    return of_seed


def resumes(out: Path) -> bool:
    """True for a run folder with a checkpoint."""
    return (out / TRAINING_FILE).exists()


def is_trained(out: Path, steps: int) -> bool:
    """True for a finished run of so many updates. Raises SystemExit for one with another target."""
    if not resumes(out):
        return False
    state = load_training(out / TRAINING_FILE)[1]
    if state.steps != steps:
        raise SystemExit(f"{out} has a training of {state.steps} steps, not {steps}")
    return state.step >= steps


def swept(config: SweepConfig) -> list[BudgetResult]:
    """Rows of a sweep with --out: those of its file if that has as many episodes."""
    assert config.out is not None
    file = config.out / "sweep.json"
    if not file.exists() or _episodes(file) != config.episodes:
        sweep(config)
    return read_sweep(file).rows


def _episodes(file: Path) -> int:
    first, last = read_sweep(file).provenance.seeds
    return last - first + 1


def print_methods(seeds: Sequence[OfSeed], outcome: Metric) -> None:
    """Print each method's mean over the training seeds, and its paired difference to the best.

    Raises SystemExit for files of different options, whose episodes are not the same.
    """
    first = seeds[0]
    if any(of_seed.config != first.config for of_seed in seeds):
        raise SystemExit("the files of the training seeds were made with different options")
    print(", ".join(f"{name} {value}" for name, value in first.config.items() if value is not None))
    values = {
        name: np.array([getattr(of_seed.rows[name], outcome) for of_seed in seeds], np.float64)
        for name in first.rows
        if all(name in of_seed.rows for of_seed in seeds)
    }
    best = max(values, key=lambda name: values[name].mean())
    evaluations = {name: first.rows[name].network_evals for name in values}
    order = sorted(values, key=lambda name: (evaluations[name], name))
    table = [[name, evaluations[name], *_figures(values[name], values[best])] for name in order]
    print_table(["method", "evaluations", outcome, "by seed", f"less {best}, 95 %"], table)
    names = {name for of_seed in seeds for name in of_seed.rows}
    if absent := sorted(names - values.keys()):
        print(f"not in the files of all seeds: {', '.join(absent)}")


def print_grid(seeds: Sequence[OfSeed], outcome: Metric) -> None:
    """Print the means over the training seeds: a row for a method, a column for a cost."""
    found: dict[str, dict[int, str]] = {}
    for name, played in seeds[0].rows.items():
        if all(name in of_seed.rows for of_seed in seeds):
            mean = np.mean([getattr(of_seed.rows[name], outcome) for of_seed in seeds])
            found.setdefault(_method(name), {})[played.network_evals] = f"{mean:.3f}"
    costs = sorted({cost for of_method in found.values() for cost in of_method})
    rows = [[name, *(of.get(cost, "") for cost in costs)] for name, of in sorted(found.items())]
    print_table([f"{outcome} at evaluations", *map(str, costs)], rows)


def _method(name: str) -> str:
    """The name of a row without its number of steps."""
    run, _, budget = name.partition(": ")
    rest = re.sub(r"^\d+ steps?(, )?", "", budget)
    return f"{run}: {rest or 'DDIM'}" if rest != run else run


def _outcomes(row: BudgetResult) -> dict[str, Any]:
    score = [round(value, 4) for value in row.outcomes.score]
    return {"network_evals": row.network_evals, "success": row.outcomes.success, "score": score}


def _figures(values: np.ndarray, best: np.ndarray) -> tuple[str, str, str]:
    """Mean, mean of each training seed, and paired difference to the best; values [S, E]."""
    each = " ".join(f"{mean:.3f}" for mean in values.mean(1))
    low, high = crossed_interval(values - best)
    difference = f"{(values - best).mean():+.3f} ({low:+.3f} to {high:+.3f})"
    return f"{values.mean():.3f}", each, difference
