"""Geometry of the plane: poses (x, y, angle), transformed points, and the overlap of two shapes.

It uses lists of floats, because plain Python is several times faster than NumPy on four corners.
"""

import math
from collections.abc import Iterable, Sequence

Pose = tuple[float, float, float]
Point = tuple[float, float]
Box = tuple[float, float, float, float]  # x_min, y_min, x_max, y_max


def transform(points: Iterable[Point], pose: Pose) -> list[Point]:
    """Transform points from the frame of `pose` to the frame in which `pose` is given."""
    x, y, angle = pose
    cos, sin = math.cos(angle), math.sin(angle)
    return [(x + cos * u - sin * v, y + sin * u + cos * v) for u, v in points]


def relative_pose(pose: Pose, frame: Pose) -> Pose:
    """Pose relative to `frame`."""
    dx, dy = pose[0] - frame[0], pose[1] - frame[1]
    [(x, y)] = transform([(dx, dy)], (0.0, 0.0, -frame[2]))
    return x, y, pose[2] - frame[2]


def corners(box: Box) -> list[Point]:
    """Corners of a box, in order."""
    x_min, y_min, x_max, y_max = box
    return [(x_min, y_min), (x_max, y_min), (x_max, y_max), (x_min, y_max)]


def polygon_area(polygon: Sequence[Point]) -> float:
    """Area of a polygon, by the shoelace formula."""
    twice_area = 0.0
    x, y = polygon[-1]
    for u, v in polygon:
        twice_area += x * v - u * y
        x, y = u, v
    return abs(twice_area) / 2


def cut(polygon: Sequence[Point], axis: int, sign: float, bound: float) -> list[Point]:
    """Part of a convex polygon with sign · coordinate ≤ bound (Sutherland–Hodgman)."""
    kept = []
    p = polygon[-1]
    p_room = bound - sign * p[axis]
    for q in polygon:
        q_room = bound - sign * q[axis]
        if p_room * q_room < 0:
            t = p_room / (p_room - q_room)
            kept.append((p[0] + t * (q[0] - p[0]), p[1] + t * (q[1] - p[1])))
        if q_room >= 0:
            kept.append(q)
        p, p_room = q, q_room
    return kept


def area_in_box(polygon: Sequence[Point], box: Box) -> float:
    """Area of the part of a convex polygon inside an axis-aligned box."""
    x_min, y_min, x_max, y_max = box
    for axis, sign, bound in ((0, 1, x_max), (0, -1, -x_min), (1, 1, y_max), (1, -1, -y_min)):
        polygon = cut(polygon, axis, sign, bound)
        if not polygon:
            return 0.0
    return polygon_area(polygon)


def shared_area(boxes: Sequence[Box], pose: Pose, frame: Pose) -> float:
    """Overlap of two copies, at `pose` and at `frame`, of a shape made of disjoint boxes."""
    relative = relative_pose(pose, frame)
    placed = [transform(corners(box), relative) for box in boxes]
    return sum(area_in_box(polygon, box) for polygon in placed for box in boxes)
