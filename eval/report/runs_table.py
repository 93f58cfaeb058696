"""The table of runs on the terminal."""

from collections.abc import Mapping, Sequence
from typing import Any

from ..measure.run_facts import RunFacts
from .table import print_table

TITLES = ("run", "state", "step", "minutes", "network", "predicts", "precision", "episodes")
FIGURES = ("validation loss", "curve", "success", "budget", "at step")  # curve: its last success


def print_runs(runs: Sequence[RunFacts], skipped: Mapping[str, str]) -> None:
    """A line for each run, and the reasons why others and their results are left out."""
    if runs:
        print_table([*TITLES, *FIGURES], [_cells(run) for run in runs])
    for reason in skipped.values():
        print(f"warning: skipped: {' '.join(reason.split())}")


def _cells(run: RunFacts) -> list[Any]:
    best = run.best
    about = (f"{best.success:.2f}", f"{best.budget}, {best.clock}", best.step) if best else ()
    return [
        run.name,
        run.state,
        _of(run.step, run.target_steps, ",d"),
        _of(run.minutes, run.target_minutes, ".1f"),
        run.network,
        predicts(run),
        run.precision,
        run.episodes,
        None if run.validation_loss is None else f"{run.validation_loss:.4g}",
        None if run.success is None else f"{run.success:.2f}",
        *(about or (None, None, None)),
    ]


def predicts(run: RunFacts) -> str | None:
    """The objective, with the prediction where there is diffusion."""
    if run.objective == "denoising":
        return run.prediction
    return ", ".join(filter(None, [run.objective, run.prediction])) or None


def _of(value: float | None, target: float | None, form: str) -> str | None:
    if value is None:
        return None
    return format(value, form) + ("" if target is None else f" of {target:,g}")
