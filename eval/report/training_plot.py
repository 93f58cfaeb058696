"""Plot of trainings: loss, and success in closed loop, over the optimiser steps."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from ..measure.results import TrainingCurve
from .figure import plain

LOSSES = {"loss": "-", "validation_loss": "--"}  # line of each quantity
OUTCOMES = {"success": "o-", "score": "s:"}


def training_plot(curves: Sequence[TrainingCurve]) -> Figure:
    """Losses, and beside them the closed-loop curve if there is one; a colour for each run."""
    panels = [LOSSES] + [OUTCOMES] * any(curve.quantity in OUTCOMES for curve in curves)
    size = 4.5 * len(panels), 3
    figure, axes = plt.subplots(
        1, len(panels), figsize=size, sharex=True, squeeze=False, constrained_layout=True
    )
    runs = list(dict.fromkeys(curve.run for curve in curves))
    for axis, styles in zip(axes[0], panels, strict=True):
        for curve in curves:
            if curve.quantity in styles:
                name = curve.quantity.replace("_", " ")
                label = plain(f"{curve.run}: {name}" if len(runs) > 1 else name)
                style, colour = styles[curve.quantity], f"C{runs.index(curve.run)}"
                axis.plot(curve.steps, curve.values, style, c=colour, ms=3, lw=1.1, label=label)
        axis.set(xlabel="optimiser steps")
        axis.grid(alpha=0.25)
        if axis.lines:
            axis.legend(fontsize=7)
    axes[0][0].set(yscale="log", title="loss")
    if len(panels) > 1:
        axes[0][1].set(title="closed loop, paused clock")
    return figure
