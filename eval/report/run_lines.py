"""A run in ten lines: task, data, network, training, size and best known result."""

from collections.abc import Iterator, Mapping
from typing import Any

from diffpolicy.checkpoint import Checkpoint

from ..measure.run_facts import RunFacts
from .runs_table import predicts

AMOUNTS = {"episodes": "episodes", "rows": "steps"}  # of the training provenance, by their noun


def run_lines(
    checkpoint: Checkpoint, run: RunFacts | None, loss: float | None, sizes: Mapping[str, int]
) -> Iterator[str]:
    """Lines on a run. loss: the last in its log; sizes: bytes of the files of its folder."""
    about = checkpoint.specification
    task, horizons, training = about.task, about.horizons, about.training
    yield _line(
        "task", task.env_id, f"{1 / task.control_dt_s:.4g} Hz ({1000 * task.control_dt_s:g} ms)"
    )
    seen = (f"{key} {list(spec.shape)}" for key, spec in task.observations.items())
    yield _line("observations", *seen)
    acts = f"{task.action_dim} number{'s' * (task.action_dim != 1)}"
    counts = f"{horizons.observation} observed, {horizons.prediction} predicted"
    yield _line("actions", acts, f"horizons: {counts}, {horizons.action} executed")
    amounts = (_told(training.get(noun), name) for noun, name in AMOUNTS.items())
    images = _option(training, "mirror") == "auto" and "with mirror images"
    yield _line("data", _option(training, "data"), *amounts, images)
    yield _line("network", about.model.denoiser, f"{_parameters(checkpoint):,} parameters")
    yield _line("predicts", run and predicts(run), f"T = {about.model.train_timesteps}", about.grid)
    yield _line("trained", *_trained(run))
    validation = run.validation_loss if run else None
    yield _line("loss", _number(loss), validation is not None and f"validation {validation:.4g}")
    files = (f"{name} {size / 1e6:.1f}" for name, size in _largest(sizes))
    yield _line("size", f"{sum(sizes.values()) / 1e6:.1f} MB: {', '.join(files)}")
    yield _line("best", _best(run))


def _line(title: str, *parts: str | bool | None) -> str:
    told = ", ".join(part for part in parts if isinstance(part, str) and part)
    return f"{title:<14}{told or 'unknown'}"


def _trained(run: RunFacts | None) -> list[str | None]:
    if run is None:
        return ["policy only"]
    target = f" of {run.target_steps:,}" if run.target_steps else ""
    steps = None if run.step is None else f"{run.step:,}{target} steps"
    minutes = None if run.minutes is None else f"{run.minutes:.1f} min"
    return [run.state, steps, minutes, run.precision]


def _best(run: RunFacts | None) -> str:
    if run is None or run.best is None:
        return "no result of eval or sweep names this run"
    best = run.best
    step = "" if best.step is None else f", at step {best.step:,}"
    where = f"{best.budget}, {best.clock}{step}"
    return f"success {best.success:.2f} in {best.episodes:,} episodes, the best of all: {where}"


def _parameters(checkpoint: Checkpoint) -> int:
    return sum(tensor.numel() for tensor in checkpoint.weights.values())


def _option(training: Mapping[str, Any], name: str) -> str | None:
    options = training.get("config")
    return str(options[name]) if isinstance(options, dict) and name in options else None


def _told(count: Any, noun: str) -> str | None:
    return f"{count:,} {noun}" if isinstance(count, int) else None


def _number(value: float | None) -> str | None:
    return None if value is None else f"{value:.4g}"


def _largest(sizes: Mapping[str, int]) -> list[tuple[str, int]]:
    return sorted(sizes.items(), key=lambda pair: -pair[1])[:2]
