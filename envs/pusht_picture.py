"""Pictures of Push-T, drawn as those of the human demonstrations, without OpenGL.

The originals are drawn in 512 × 512 pixels, with corners and centres rounded to whole pixels, and
reduced to 96 × 96 by bilinear interpolation without filter: pixel i of a side mixes the two pixels
of the drawing around 512/96 · (i + 1/2) − 1/2. Only those 192 × 192 pixels are drawn here.
"""

import numpy as np
from numpy.typing import ArrayLike

from .planar import Pose, corners, transform
from .pusht_block import Block

SIDE_PX, DRAWING_PX = 96, 512  # of the picture, and of the drawing and the table

# Places of the pixels of the picture in the drawing, in sixths of its pixels; the sampled pixels,
# before and after each place; and their weights, [192, 192, 1], of which four add up to 36.
_SIXTHS = 32 * np.arange(SIDE_PX) + 13
SAMPLED = np.stack([_SIXTHS // 6, _SIXTHS // 6 + 1], axis=1).ravel().astype(np.float32)
_SHARE = np.stack([6 - _SIXTHS % 6, _SIXTHS % 6], axis=1).ravel().astype(np.uint16)
WEIGHTS = np.multiply.outer(_SHARE, _SHARE)[..., None]

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
        inside = distances(outline(block, goal_pose), WHOLE)
        self._plane[(inside >= 0).any(axis=0)] = GOAL
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
        points = outline(self.block, pose)
        window = around(points.min(axis=(0, 1)) - EDGE_PX, points.max(axis=(0, 1)) + EDGE_PX)
        part = plane[doubled(window)]
        for inside in distances(points, window):
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


def outline(block: Block, pose: Pose) -> np.ndarray:
    """Corners [2, 4, 2] of bar and stem in whole pixels of the drawing, in order."""
    return np.rint([transform(corners(box), pose) for box in block.boxes]).astype(np.float32)


def distances(points: np.ndarray, window: Window) -> np.ndarray:
    """Distances of sampled pixels from the nearest side of each of M boxes, positive inside.

    points [M, 4, 2]: corners in px. Returns [M, 2 · rows, 2 · columns] in px.
    """
    rows, columns = doubled(window)
    side = np.roll(points, -1, axis=1) - points
    dx, dy = np.moveaxis(side / np.linalg.norm(side, axis=2, keepdims=True), 2, 0)[..., None]
    x, y = np.moveaxis(points, 2, 0)[..., None]
    of_rows, of_columns = dx * (SAMPLED[rows] - y), dy * (SAMPLED[columns] - x)
    return (of_rows[..., None] - of_columns[..., None, :]).min(axis=1)


def shrunk(plane: np.ndarray, window: Window) -> np.ndarray:
    """Pixels of the picture in a window [rows, columns, 3] uint8, of the sampled plane."""
    mixed = COLOURS.take(plane[doubled(window)], axis=0) * WEIGHTS[doubled(window)]
    rows = mixed[::2] + mixed[1::2]
    return ((rows[:, ::2] + rows[:, 1::2] + 18) // 36).astype(np.uint8)


def around(low: ArrayLike, high: ArrayLike) -> Window:
    """Pixels of the picture that show the rectangle from `low` [2] to `high` [2], x, y in px."""
    ends = np.add(np.floor(np.array([low, high]) * (SIDE_PX / DRAWING_PX)), [[-1], [2]])
    (left, top), (right, bottom) = ends.clip(0, SIDE_PX).astype(int).tolist()
    return slice(top, bottom), slice(left, right)


def doubled(window: Window) -> Window:
    """The same window in the sampled plane."""
    rows, columns = window
    return slice(2 * rows.start, 2 * rows.stop), slice(2 * columns.start, 2 * columns.stop)


def _walls() -> np.ndarray:
    """Mask [192, 192] of the pixels of the walls."""
    from_middle = np.abs(SAMPLED - (DRAWING_PX - 1) / 2)
    reach = np.maximum.outer(from_middle, from_middle)
    inner, outer = WALLS_PX
    return (inner < reach) & (reach < outer)
