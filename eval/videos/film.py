"""Films of episodes: frames above an overlay of tick, action age and success, side by side."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image, ImageDraw, ImageFont

from diffpolicy.control.episode import Episode
from diffpolicy.environment.pictures import to_rgb

from ..measure.frames import Frames
from ..report.strip import traces

HALVED, SMALLEST = 192, 96  # px of the shorter side: frames from here on are halved; at least
LEAST_WIDTH = 192  # px of a panel, for its overlay
LINE, BAR = 14, 4  # px of a line of text and of the bar of the action age
LAST_MS = 1500
DARK, LIGHT, GREEN, RED, ORANGE = "#16181d", "#e8e8e8", "#62c584", "#ff7b72", "#f2a33a"

Panel = dict[int, Image.Image]  # one episode: picture and overlay by tick


class Film(NamedTuple):
    """Images of one size, one after the other, and the time in ms that each is shown."""

    images: list[Image.Image]
    durations_ms: list[int]


class Overlay(NamedTuple):
    """Texts below a frame, the age in ticks of the action applied then, and a colour."""

    lines: tuple[str, str, str]
    age: int | None
    colour: str


def overlay(episode: Episode, tick: int, dt_s: float, over: bool) -> Overlay:
    """The overlay of the state after `tick` actions; over: of the last one."""
    ages = episode.ages_by_tick
    age = ages[tick] if tick < len(ages) else None
    if age is None:
        acted = "no action: starved" if tick < len(ages) else "no action: the end"
    else:
        acted = f"action age {age} tick{'s' * (age != 1)}, {1000 * dt_s * age:.0f} ms"
    reached = episode.success_tick is not None and tick >= episode.success_tick
    outcome = f"success at tick {episode.success_tick}" if reached else "no success yet"
    colour = GREEN if reached else LIGHT
    if over:
        outcome = f"outcome: {'success' if episode.success else 'failure'}"
        colour = GREEN if episode.success else RED
    return Overlay((f"tick {tick}, {tick * dt_s:.2f} s", acted, outcome), age, colour)


def panel(title: str, shot: Frames, dt_s: float, oldest: int) -> Panel:
    """Pictures of an episode with their overlays; traces of the observations without pictures.

    oldest: age in ticks of a whole bar.
    """
    pictures = {tick: scaled(rgb(frame)) for tick, frame in shot.frames.items()}
    pictures = pictures or traced(shot.observations, shot.ticks, dt_s)
    last = max(pictures)
    return {
        tick: _below(picture, title, overlay(shot.episode, tick, dt_s, tick == last), oldest)
        for tick, picture in pictures.items()
    }


def film(panels: Sequence[Panel], dt_s: float) -> Film:
    """Panels beside each other, wide ones below each other, in real time; the ended ones stand."""
    ticks = sorted(set().union(*panels))
    images = [_joined([_newest(each, tick) for each in panels]) for tick in ticks]
    times_ms = [round(1000 * dt_s * tick) for tick in ticks]
    return Film(images, [*np.diff(times_ms).tolist(), LAST_MS])


def rgb(frame: np.ndarray) -> Image.Image:
    """A picture [H, W, C]: grey, RGB or RGBA, in bytes or as floats in [0, 1]."""
    return Image.fromarray(to_rgb(frame))


def scaled(picture: Image.Image) -> Image.Image:
    """A picture at half its size, a small one as it is, a tiny one in larger pixels."""
    side = min(picture.size)
    if side >= HALVED:
        return picture.reduce(2)
    factor = max(1, SMALLEST // side)
    width, height = picture.size
    return picture.resize((factor * width, factor * height), Image.Resampling.NEAREST)


def traced(observations: Sequence[np.ndarray], ticks: Sequence[int], dt_s: float) -> Panel:
    """Traces of the observations over time, with a line at each of the ticks."""
    figure = traces(np.array(observations), dt_s, width=4.8)
    [axis] = figure.axes
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    drawn = Image.fromarray(np.asarray(canvas.buffer_rgba())[:, :, :3].copy())
    bottom, top = drawn.height - axis.bbox.y0, drawn.height - axis.bbox.y1
    found = {}
    for tick in ticks:
        x = axis.transData.transform((tick * dt_s, 0))[0]
        found[tick] = drawn.copy()
        ImageDraw.Draw(found[tick]).line((x, top, x, bottom), RED, 2)
    plt.close(figure)
    return found


def _below(picture: Image.Image, title: str, under: Overlay, oldest: int) -> Image.Image:
    """The title above a picture, and the overlay below it."""
    width, height = max(LEAST_WIDTH, picture.width), picture.height
    whole = Image.new("RGB", (width, height + 4 * LINE + BAR + 6), DARK)
    whole.paste(picture, ((width - picture.width) // 2, LINE + 2))
    draw, top = ImageDraw.Draw(whole), LINE + height + 2
    draw.text((3, 0), title, LIGHT, _font())
    if under.age:
        draw.rectangle((0, top, width * min(under.age / oldest, 1), top + BAR - 1), ORANGE)
    for line, text in enumerate(under.lines):
        colour = under.colour if line == 2 else LIGHT
        draw.text((3, top + BAR + line * LINE), text, colour, _font())
    return whole


@cache
def _font() -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which comes with matplotlib and has Greek letters."""
    path = Path(mpl.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")
    return ImageFont.truetype(str(path), 11)


def _newest(of_panel: Panel, tick: int) -> Image.Image:
    """The picture of a tick, else the one before it; ticks of a panel begin with 0."""
    return of_panel[max((t for t in of_panel if t <= tick), default=min(of_panel))]


def _joined(pictures: Sequence[Image.Image]) -> Image.Image:
    """Pictures in a row, or wide ones in a column."""
    widths, heights = zip(*(picture.size for picture in pictures), strict=True)
    column = max(widths) > 1.5 * max(heights)
    size = (max(widths), sum(heights)) if column else (sum(widths), max(heights))
    whole = Image.new("RGB", size, DARK)
    for i, picture in enumerate(pictures):
        whole.paste(picture, (0, sum(heights[:i])) if column else (sum(widths[:i]), 0))
    return whole
