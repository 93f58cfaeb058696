"""Layout of the timeline of one episode, as places in px."""

from dataclasses import dataclass
from typing import NamedTuple

from diffpolicy.terminal.output import counted

from ..measure.timelines import Timeline
from .axes import Axis, Tick, around

LEFT, RIGHT = 70, 990  # px of the axes
ACTIONS, AGES, CHUNKS = (26, 176), (206, 276), (304, 344)  # px from top to bottom
LEAST_AGE = 4  # ticks of the axis of ages, at least


class Chunk(NamedTuple):
    """A chunk: from its observation to its arrival; late: by more than one tick."""

    start: float
    width: float
    late: bool
    label: str


@dataclass(frozen=True)
class TimelinePlot:
    """Lines of the actions, bars of their ages, chunks, and the ticks without an action."""

    title: str
    lines: list[str]
    ages: list[tuple[float, float]]
    width: float
    chunks: list[Chunk]
    arrivals: list[float]
    starved: list[float]
    success: float | None
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    age_ticks: list[Tick]
    spoken: str


def timeline_plot(found: Timeline, dt_s: float) -> TimelinePlot:
    """The layout; dt_s: control period."""
    count = len(found.actions)
    x = Axis(0, count * dt_s, LEFT, RIGHT)
    y = Axis(*around(v for row in found.actions for v in row), ACTIONS[1], ACTIONS[0])
    oldest = max([LEAST_AGE, *(age for age in found.ages if age is not None)])
    age = Axis(0, oldest, AGES[1], AGES[0])
    starved = [x(t * dt_s) for t, each in enumerate(found.ages) if each is None]
    ages = [(x(t * dt_s), age(each)) for t, each in enumerate(found.ages) if each is not None]
    reached = found.success_tick
    return TimelinePlot(
        title=_title(found),
        lines=[
            _steps([v[i] for v in found.actions], x, y, dt_s) for i in range(len(found.actions[0]))
        ],
        ages=ages,
        width=round((RIGHT - LEFT) / count, 2),
        chunks=[_chunk(*each, x, dt_s) for each in found.chunks],
        arrivals=[x(arrived * dt_s) for _, arrived in found.chunks],
        starved=starved,
        success=x(reached * dt_s) if reached is not None and reached <= count else None,
        x_ticks=x.ticks(10),
        y_ticks=y.ticks(4),
        age_ticks=age.ticks(3),
        spoken=_spoken(found, len(starved)),
    )


def _chunk(observed: int, arrived: int, x: Axis, dt_s: float) -> Chunk:
    start, delay = x(observed * dt_s), arrived - observed
    label = f"observed at tick {observed}, arrived at tick {arrived}: {counted(delay, 'tick')}"
    return Chunk(start, max(round(x(arrived * dt_s) - start, 1), 1.5), delay > 1, label)


def _steps(values: list[float], x: Axis, y: Axis, dt_s: float) -> str:
    """A path that holds each action for its tick."""
    parts = [f"H{x(t * dt_s)}V{y(value)}" for t, value in enumerate(values)]
    return f"M{x(0)} {y(values[0])}{''.join(parts[1:])}H{x(len(values) * dt_s)}"


def _title(found: Timeline) -> str:
    shown = len(found.actions)
    part = f", first {shown} of {found.ticks} ticks" if shown < found.ticks else ""
    outcome = "success" if found.success else "failure"
    return f"{found.budget}, {found.clock}, seed {found.seed}: {outcome}{part}"


def _spoken(found: Timeline, starved: int) -> str:
    """The text of the picture for a screen reader."""
    late = sum(arrived - observed > 1 for observed, arrived in found.chunks)
    known = [age for age in found.ages if age is not None]
    oldest = f"; the oldest action is {counted(max(known), 'tick')} old" if known else ""
    return (
        f"{_title(found)}. {counted(len(found.chunks), 'chunk')}, {late} later than one tick; "
        f"{counted(starved, 'starved tick')}{oldest}."
    )
