"""Pictures of the state of a game: rendered, observed, or traces of the observations."""

import logging
from collections import deque
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw

from diffpolicy.environment.monitored import Monitored
from diffpolicy.environment.pictures import to_rgb

LOGGER = logging.getLogger("diffpolicy")
WIDTH, HEIGHT = 480, 320  # px of traces
TICKS = 100  # of traces
DARK, COLOURS = "#16181d", ("#6ea8fe", "#f2a33a", "#62c584", "#ff7b72", "#c792ea", "#e8e8e8")


class Pictures:
    """Pictures of one environment; the first failure of its renderer is told and ends rendering."""

    def __init__(self, env: Monitored):
        self.env, self.renders = env, bool(env.env.render_mode)
        self.seen: deque[np.ndarray] = deque(maxlen=TICKS)  # vectors, for traces
        self.tick = 0

    def of(self, observation: Mapping[str, np.ndarray], tick: int) -> np.ndarray:
        """The picture uint8 [H, W, 3] of the state with this observation after so many ticks."""
        if self.renders:
            try:
                return to_rgb(np.asarray(self.env.env.render()))
            except Exception as error:  # drivers fail in many ways
                self.renders = False
                text = "warning: drawn from the observations: rendering failed: %s"
                LOGGER.warning(text, str(error) or type(error).__name__)
        if seen := [value for value in observation.values() if value.ndim == 3]:
            return to_rgb(seen[0])
        if tick < self.tick or not self.seen:
            self.seen.clear()
        if tick > self.tick or not self.seen:
            vectors = [value.ravel() for value in observation.values()]
            self.seen.append(np.concatenate(vectors))
        self.tick = tick
        return traces(self.seen)


def traces(observations: Sequence[np.ndarray]) -> np.ndarray:
    """Lines of the newest observations [n, D_o], scaled together: picture uint8 [H, W, 3]."""
    image = Image.new("RGB", (WIDTH, HEIGHT), DARK)
    draw, values = ImageDraw.Draw(image), np.nan_to_num(np.array(observations, np.float64))
    low, high = values.min(), values.max()
    x = np.arange(len(values)) * (WIDTH / TICKS)
    y = 10 + (HEIGHT - 20) * (high - values) / max(high - low, 1e-9)
    for dimension, column in enumerate(y.T):
        points = list(zip(x.tolist(), column.tolist(), strict=True))
        draw.line([points[0], *points], COLOURS[dimension % len(COLOURS)], 2)
    return np.asarray(image)
