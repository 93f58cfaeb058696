"""Outcomes of each episode by method, kept in one file for each training seed, and their table.

A file holds {"provenance", "config", "rows": {method: {"network_evals", "success", "score"}}}.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from diffpolicy.device import choose_device
from diffpolicy.files import write_text

from ..measure.provenance import provenance
from ..measure.results import BudgetResult, Metric
from ..report.table import print_table
from ..significance import crossed_interval

Rows = dict[str, dict[str, Any]]


def kept(path: Path, config: Mapping[str, Any], make: Callable[[], Iterable[BudgetResult]]) -> Rows:
    """Rows of a file; where it does not exist yet, those of `make`, which are written to it."""
    if not path.exists():
        found = {
            "provenance": asdict(provenance(choose_device("cpu"))),
            "config": dict(config),
            "rows": {row.name: _outcomes(row) for row in make()},
        }
        write_text(path, json.dumps(found))
    return json.loads(path.read_text())["rows"]


def print_methods(seeds: Sequence[Rows], outcome: Metric) -> None:
    """Print each method's mean over the training seeds, and its paired difference to the best."""
    values = {
        name: np.array([rows[name][outcome] for rows in seeds], np.float64)
        for name in seeds[0]
        if all(name in rows for rows in seeds)
    }
    best = max(values, key=lambda name: values[name].mean())
    order = sorted(values, key=lambda name: (seeds[0][name]["network_evals"], name))
    table = [
        [name, seeds[0][name]["network_evals"], *_figures(values[name], values[best])]
        for name in order
    ]
    print_table(["method", "evaluations", outcome, "by seed", f"less {best}, 95 %"], table)


def _outcomes(row: BudgetResult) -> dict[str, Any]:
    score = [round(value, 4) for value in row.outcomes.score]
    return {"network_evals": row.network_evals, "success": row.outcomes.success, "score": score}


def _figures(values: np.ndarray, best: np.ndarray) -> tuple[str, str, str]:
    """Mean, mean of each training seed, and paired difference to the best; values [S, E]."""
    each = " ".join(f"{mean:.3f}" for mean in values.mean(1))
    low, high = crossed_interval(values - best)
    difference = f"{(values - best).mean():+.3f} ({low:+.3f} to {high:+.3f})"
    return f"{values.mean():.3f}", each, difference
