"""Layout of the curves of a training: losses, and outcomes in closed loop, as places in px."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ..measure.results import TrainingCurve
from .axes import Axis, Tick, around

LEFT, RIGHT, TOP, BOTTOM = 56, 436, 34, 240  # px of the axes
LOSSES, OUTCOMES = ("loss", "validation_loss"), ("success", "score")


class Curve(NamedTuple):
    """A quantity of a run; second: dashed, the second quantity of its panel; last: its end."""

    points: str
    last: tuple[float, float]
    colour: int
    second: bool
    label: str


@dataclass(frozen=True)
class CurvesPlot:
    """One panel."""

    title: str
    curves: list[Curve]
    x_ticks: list[Tick]
    y_ticks: list[Tick]


def curves_plots(curves: Sequence[TrainingCurve]) -> list[CurvesPlot]:
    """The panel of losses, and that of outcomes if the log has any."""
    titles = {"Loss": LOSSES, "Closed loop, paused clock": OUTCOMES}
    plots = (_panel(title, curves, names) for title, names in titles.items())
    return [plot for plot in plots if plot.curves]


def _panel(title: str, curves: Sequence[TrainingCurve], names: tuple[str, str]) -> CurvesPlot:
    runs = list(dict.fromkeys(curve.run for curve in curves))
    found = [curve for curve in curves if curve.quantity in names]
    values = [v for curve in found for v in curve.values]
    log = names == LOSSES and min(values, default=0) > 0
    last = max((step for curve in curves for step in curve.steps), default=1)
    x = Axis(0, max(last, 1), LEFT, RIGHT)
    y = Axis(*around(values or [0], log), BOTTOM, TOP, log)
    return CurvesPlot(
        title,
        [
            Curve(
                " ".join(f"{x(s)},{y(v)}" for s, v in zip(c.steps, c.values, strict=True)),
                (x(c.steps[-1]), y(c.values[-1])),
                runs.index(c.run),
                c.quantity == names[1],
                f"{c.run}: {c.quantity.replace('_', ' ')}",
            )
            for c in found
        ],
        x.ticks(4),
        y.ticks(),
    )
