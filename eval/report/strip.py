"""Strips of one episode: frames side by side, or traces of its observations."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

FRAMES = 6


def frame_strip(frames: dict[int, np.ndarray], dt_s: float) -> Figure:
    """Frames {tick: image [H, W, 3]} from the first to the last, evenly spaced."""
    ticks = list(frames)
    chosen = np.linspace(0, len(ticks) - 1, FRAMES).round().astype(int)
    height, width = frames[ticks[0]].shape[:2]
    rows = 2 if width > 2 * height else 1
    columns = FRAMES // rows
    size = (12, rows * (12 / columns * height / width + 0.3))
    figure, axes = plt.subplots(rows, columns, figsize=size, constrained_layout=True)
    for axis, tick in zip(axes.flat, (ticks[i] for i in chosen), strict=True):
        axis.imshow(frames[tick])
        axis.set_title(f"{tick * dt_s:.1f} s", fontsize=8)
        axis.axis("off")
    return figure


def traces(observations: np.ndarray, dt_s: float, width: float = 2 * FRAMES) -> Figure:
    """Observations [ticks, D_o] over time; width: in inches."""
    figure, axis = plt.subplots(figsize=(width, 2.4), constrained_layout=True)
    axis.plot(np.arange(len(observations)) * dt_s, observations, lw=0.9)
    axis.set(xlabel="time (s)", ylabel="observation")
    return figure
