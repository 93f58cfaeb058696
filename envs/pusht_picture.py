"""Pictures of Push-T, drawn as those of the human demonstrations, without OpenGL.

The originals are drawn in 512 × 512 pixels, with corners and centres rounded to whole pixels, and
reduced to 96 × 96 by bilinear interpolation without filter: pixel i of a side mixes the two pixels
of the drawing around 512/96 · (i + 1/2) − 1/2. Only those 192 × 192 pixels are drawn here.
"""

import math

import numpy as np
from numpy.typing import ArrayLike

from .planar import Pose, corners, transform
from .pusht_block import Block

SIDE_PX, DRAWING_PX = 96, 512  # of the picture and of the drawing; PushT-v0 is measured in these

# Places in the drawing, in sixths of its pixels: their pixels before and after, and the weights.
_SIXTHS = 32 * np.arange(SIDE_PX) + 13
SAMPLED = np.stack([_SIXTHS // 6, _SIXTHS // 6 + 1], axis=1).ravel()
_SHARE = np.stack([6 - _SIXTHS % 6, _SIXTHS % 6], axis=1).ravel().astype(np.uint16)
WEIGHTS = np.multiply.outer(_SHARE, _SHARE)[..., None]  # [192, 192, 1]; four make 36

TABLE, GOAL, BLOCK, BLOCK_EDGE, AGENT, AGENT_EDGE, WALL = range(7)
COLOURS = np.array(  # RGB
    [
        (255, 255, 255),
        (144, 238, 144),
        (143, 163, 184),
        (119, 136, 153),
        (78, 126, 255),
        (65, 105, 225),
        (211, 211, 211),
    ],
    np.uint16,
)
EDGE_PX = 2  # the edge of the block reaches this far to both sides of its outline
WALLS_PX = (248, 253)  # they lie between two squares around the middle, of these half sides
AGENT_PX2, AGENT_INSIDE_PX2 = 217, 113  # squared radii, 15 and 11 px as the original rounds them
AGENT_REACH_PX = 15

Window = tuple[slice, slice]  # rows and columns of pixels of the picture
WHOLE: Window = (slice(0, SIDE_PX), slice(0, SIDE_PX))


class Painter:
    """Pictures of one block and goal pose, whose background is drawn once."""

    def __init__(self, block: Block, goal_pose: Pose):
        self.block = block
        self._walls = _walls()
        self._plane = np.full(self._walls.shape, TABLE, np.uint8)
        self._plane[(distances(block, goal_pose, WHOLE) >= 0).any(axis=0)] = GOAL
        self._plane[self._walls] = WALL
        self._picture = shrunk(self._plane, WHOLE)

    def __call__(self, state: np.ndarray) -> np.ndarray:
        """Picture [96, 96, 3] uint8 of a state [5]: agent x, y, block x, y in px, angle in rad."""
        plane, picture = self._plane.copy(), self._picture.copy()
        agent_x, agent_y, x, y, angle = state.tolist()
        windows = self._draw_block(plane, (x, y, angle)), self._draw_agent(plane, agent_x, agent_y)
        for window in windows:
            picture[window] = shrunk(plane, window)
        return picture

    def _draw_block(self, plane: np.ndarray, pose: Pose) -> Window:
        """Draw bar and stem, each with its edge, and return where."""
        outline = [transform(corners(box), pose) for box in self.block.boxes]
        points = np.array(outline).reshape(-1, 2)
        window = around(points.min(axis=0) - EDGE_PX, points.max(axis=0) + EDGE_PX)
        part = plane[doubled(window)]
        for inside in distances(self.block, pose, window):
            part[inside >= -EDGE_PX] = BLOCK_EDGE
            part[inside > EDGE_PX] = BLOCK
        part[self._walls[doubled(window)]] = WALL
        return window

    def _draw_agent(self, plane: np.ndarray, x: float, y: float) -> Window:
        """Draw the agent, which covers the block, and return where."""
        centre = np.rint([x, y])
        window = around(centre - AGENT_REACH_PX, centre + AGENT_REACH_PX)
        rows, columns = doubled(window)
        dx, dy = SAMPLED[columns] - centre[0] + 0.5, SAMPLED[rows] - centre[1] + 0.5
        squared = dx**2 + (dy**2)[:, None]
        part = plane[rows, columns]
        part[squared <= AGENT_PX2] = AGENT_EDGE
        part[squared <= AGENT_INSIDE_PX2] = AGENT
        part[self._walls[rows, columns]] = WALL
        return window


def distances(block: Block, pose: Pose, window: Window) -> np.ndarray:
    """Distance of each sampled pixel from the nearest side of bar and stem, positive inside.

    Corners are rounded to whole pixels. Returns [2, 2 · rows, 2 · columns] in px.
    """
    rows, columns = doubled(window)
    outline = np.rint([transform(corners(box), pose) for box in block.boxes]).astype(np.float32)
    side = np.roll(outline, -1, axis=1) - outline
    dx, dy = np.moveaxis(side / np.linalg.norm(side, axis=2, keepdims=True), 2, 0)[..., None]
    x, y = np.moveaxis(outline, 2, 0)[..., None]
    along_x = dy * (SAMPLED[columns].astype(np.float32) - x)
    along_y = dx * (SAMPLED[rows].astype(np.float32) - y)
    return (along_y[..., None] - along_x[..., None, :]).min(axis=1)


def shrunk(plane: np.ndarray, window: Window) -> np.ndarray:
    """Pixels of the picture in a window [rows, columns, 3] uint8, of the sampled plane."""
    mixed = COLOURS.take(plane[doubled(window)], axis=0) * WEIGHTS[doubled(window)]
    rows = mixed[::2] + mixed[1::2]
    return ((rows[:, ::2] + rows[:, 1::2] + 18) // 36).astype(np.uint8)


def around(low: ArrayLike, high: ArrayLike) -> Window:
    """Pixels of the picture that show the rectangle from `low` [2] to `high` [2], x, y in px."""
    (left, top), (right, bottom) = (
        np.asarray(corner) * (SIDE_PX / DRAWING_PX) for corner in (low, high)
    )
    return _span(top, bottom), _span(left, right)


def doubled(window: Window) -> Window:
    """The same window in the sampled plane."""
    rows, columns = window
    return slice(2 * rows.start, 2 * rows.stop), slice(2 * columns.start, 2 * columns.stop)


def _span(low: float, high: float) -> slice:
    """Pixels of one side from one before `low` to one after `high`."""
    first, last = (min(max(math.floor(end), -1), SIDE_PX) for end in (low - 1, high + 2))
    return slice(max(first, 0), max(last, 0))


def _walls() -> np.ndarray:
    """Mask [192, 192] of the pixels of the walls."""
    from_middle = np.abs(SAMPLED - (DRAWING_PX - 1) / 2)
    reach = np.maximum.outer(from_middle, from_middle)
    inner, outer = WALLS_PX
    return (inner < reach) & (reach < outer)
