"""Denoising as a strip of pictures and as the images of a film.

Shapes: K steps, B chunks, m ticks, D_a action dimensions.
"""

import io
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from ..measure.denoising import Denoising, Trajectory
from .figure import png

COLUMNS, LAST = 6, 2  # equal columns, and the width of the last picture in them
SIDE = 1.9  # inches of a column
DPI = 80
CHUNK, NOISY, DEMONSTRATED = "#2f6fde", "#e08a1e", "0.5"
WIDER = 0.15  # of the range of actions, at each end


def strip(found: Denoising) -> Figure:
    """A row for each budget: states from noise on, and the actions in the end, enlarged."""
    rows, drawn = len(found.trajectories), [moments(len(t.times)) for t in found.trajectories]
    columns = max(map(len, drawn))
    size = (SIDE * (columns + LAST), SIDE * LAST * rows + 0.5)
    figure = plt.figure(figsize=size, constrained_layout=True)
    figure.suptitle(_title(found), fontsize=9)
    grid = figure.add_gridspec(rows, columns + LAST)
    for row, (trajectory, ks) in enumerate(zip(found.trajectories, drawn, strict=True)):
        for column, k in enumerate(ks, columns - len(ks)):
            axis = figure.add_subplot(grid[row, column])
            _draw(axis, found, trajectory.x0s[k], trajectory.xs[k])
            axis.set_title(label(trajectory, k), fontsize=8)
        axis = figure.add_subplot(grid[row, columns:])
        _draw(axis, found, trajectory.xs[-1])
        axis.set_title(f"{trajectory.name}: actions", fontsize=9, fontweight="bold")
    return figure


def moments(steps: int) -> list[int]:
    """Numbers of steps after which states are drawn before the last one: of 0 to K - 1."""
    return np.unique(np.arange(COLUMNS) * steps // COLUMNS).tolist()


def label(trajectory: Trajectory, k: int) -> str:
    """The state after k steps."""
    if k == len(trajectory.times):
        return f"after {k} step{'s' * (k != 1)}: actions"
    return f"{'noise' if k == 0 else f'after {k}'}, t = {trajectory.times[k]}"


def images(found: Denoising) -> list[Image.Image]:
    """One image for each step of the longest budget; others advance at the same share."""
    count = max(len(t.times) for t in found.trajectories)
    return [_image(found, k / count) for k in range(count + 1)]


def _image(found: Denoising, progress: float) -> Image.Image:
    """x_t and x̂0 of every budget at a progress of 0 to 1."""
    rows = len(found.trajectories)
    figure, axes = plt.subplots(
        rows, 2, figsize=(7, 3.4 * rows), squeeze=False, constrained_layout=True
    )
    for (left, right), trajectory in zip(axes, found.trajectories, strict=True):
        k, x_t = round(progress * len(trajectory.times)), trajectory.xs
        ended = k == len(trajectory.times)
        _draw(left, found, x_t[k] if ended else None, None if ended else x_t[k])
        left.set_title(f"{trajectory.name}: x_t, {label(trajectory, k)}", fontsize=8)
        _draw(right, found, trajectory.x0s[k - 1] if k else None)
        right.set_title("x̂0, predicted" if k else "x̂0: none yet", fontsize=8)
    return Image.open(io.BytesIO(png(figure, DPI))).convert("RGB")


def _title(found: Denoising) -> str:
    count = len(found.trajectories[0].xs[0])
    text = f"{count} chunks of actions for one observation\norange: x_t; blue: x̂0, the prediction"
    text += " from it, and the actions in the end"
    return text + "; grey: the nearest demonstrations" * bool(found.demonstrated)


def _draw(
    axis: Any, found: Denoising, chunks: np.ndarray | None, noisy: np.ndarray | None = None
) -> None:
    """Draw chunks [B, m, D_a] over the demonstrations: in the scene, in a plane, or over ticks.

    noisy: chunks that they were predicted from.
    """
    layers = ((found.demonstrated, DEMONSTRATED, 0.7), (noisy, NOISY, 0.25), (chunks, CHUNK, 0.7))
    for drawn, colour, alpha in layers:
        for actions in () if drawn is None else drawn:
            _line(axis, found, actions, colour, alpha)
    axis.tick_params(labelsize=6)
    if found.scene is not None:
        axis.imshow(found.scene.picture, extent=(0, 1, 1, 0), aspect="equal")
        axis.set(xlim=(0, 1), ylim=(1, 0), xticks=[], yticks=[])
        return
    low, high = _limits(found)
    if len(low) == 2:
        axis.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]), xlabel="action 0")
        axis.set_ylabel("action 1", fontsize=7)
        axis.set_aspect("equal", adjustable="box")
    else:
        axis.set(ylim=(low.min(), high.max()), xlabel="tick")
        axis.set_ylabel("action", fontsize=7)
    axis.xaxis.label.set_size(7)


def _line(axis: Any, found: Denoising, actions: np.ndarray, colour: str, alpha: float) -> None:
    """Draw actions [ticks, D_a] as a path with its end, or over ticks, predictions by dimension."""
    style = {"lw": 0.9, "alpha": alpha}
    if actions.shape[-1] != 2:
        for dimension, values in enumerate(actions.T):
            own = f"C{dimension % 10}" if colour == CHUNK and actions.shape[-1] > 1 else colour
            axis.plot(values, color=own, **style)
        return
    path = found.scene.place(actions) if found.scene else actions
    axis.plot(*path.T, color=colour, **style)
    axis.plot(*path[-1], ".", ms=3, color=colour, alpha=alpha)


def _limits(found: Denoising) -> tuple[np.ndarray, np.ndarray]:
    """Limits [D_a] of all pictures: those of x̂0 and of the demonstrations, a little wider."""
    size = found.trajectories[0].xs.shape[-1]
    values = [t.x0s.reshape(-1, size) for t in found.trajectories] + found.demonstrated
    low, high = (f(np.concatenate(values), axis=0) for f in (np.min, np.max))
    margin = WIDER * (high - low) + 1e-6
    return low - margin, high + margin
