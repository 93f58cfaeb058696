"""Lines of a run's log.jsonl, and the curves that a report draws of them."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from diffpolicy.checked import parse_json, validate
from diffpolicy.errors import DiffpolicyError

from .results import Count, Number, Rate, TrainingCurve

LOG = "log.jsonl"
QUANTITIES = ("loss", "validation_loss", "success", "score")
MOST_POINTS = 200  # of a curve


@dataclass(frozen=True)
class Line:
    """A line of the log; None is absent from it."""

    step: Count
    loss: Number | None = None
    validation_loss: Number | None = None
    success: Rate | None = None
    score: Number | None = None


def last(run: Path, quantity: str) -> float | None:
    """The newest value of a quantity in the log of a run; None without any."""
    named = (line for line in reversed(_lines(run)) if f'"{quantity}"'.encode() in line)
    values = (getattr(line, quantity) for line in _parsed(named))
    return next((value for value in values if value is not None), None)


def training_curves(run: Path, label: str) -> list[TrainingCurve]:
    """The curve of each quantity in the log of a run, by step, thinned to 200 points."""
    lines = sorted(_parsed(iter(_lines(run))), key=lambda line: line.step)
    found = []
    for quantity in QUANTITIES:
        points = [(x.step, v) for x in lines if (v := getattr(x, quantity)) is not None]
        every = -(-len(points) // MOST_POINTS) or 1
        points = points[::-every][::-1]  # with the last one
        if points:
            steps, values = (list(column) for column in zip(*points, strict=True))
            found.append(TrainingCurve(run=label, quantity=quantity, steps=steps, values=values))
    return found


def _lines(run: Path) -> list[bytes]:
    file = run / LOG
    return file.read_bytes().splitlines() if file.is_file() else []


def _parsed(lines: Iterator[bytes]) -> Iterator[Line]:
    """The lines without damaged ones, such as one that is being written."""
    for line in lines:
        try:
            yield validate(Line, parse_json(line, "a line"), "a line", others=True)
        except DiffpolicyError:
            continue
