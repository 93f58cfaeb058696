"""Expert of Push-T: straight pushes, planned two ahead over many random candidates.

Friction is strong, so the block moves only as far as the agent displaces it: the outcome of a push
depends on its geometry, not on its speed, and is the same for every pose in the frame of the block.
Lengths are in px.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse.csgraph import dijkstra
from scipy.spatial import KDTree

from .planar import Box, Pose
from .pusht_block import Block
from .pusht_geometry import (
    STILL,
    TABLE,
    Points,
    Poses,
    clearance,
    corner_points,
    nearest,
    on_table,
)

AGENT_RADIUS = 15.0
BERTH = 25.0  # distance of the agent's centre from the block on the way to a push

PUSHES, LEAN_RAD = 600, 0.6  # lines drawn for a plan, and their greatest angle to the normal
LONGEST, STEP, STEPS_PER_END = 200, 1.0, 4
SHORTLIST = 40  # first pushes for which the path to the second is computed

# Model of the time: per px of path and of push, and per push. A plan that does not reach the goal
# takes more: per px for a small distance, another push with its path for a large one.
GO_TICKS_PER_PX, PUSH_TICKS_PER_PX, PUSH_TICKS = 1 / 16.5, 1 / 12.0, 7.0
LITTLE_TICKS_PER_PX, MORE_TICKS, MORE_TICKS_PER_PX = 8.0, 25.0, 1.5

# Distance of the target ahead of the agent (0.2 s of its velocity), distance from the end that
# counts as arrived, and the longest time to arrive after the target has.
GO_AHEAD, GO_ARRIVED = 40, 3.0
PUSH_AHEAD, PUSH_ARRIVED = 30, 0.7
PATIENCE_TICKS = 15

# Pushes


@dataclass(frozen=True)
class Pushes:
    """Straight lines of the agent from beside the block into it, in the frame of the block."""

    starts: Points  # [L]
    line: NDArray[np.int64]  # [N], index of the start
    end: Points  # [N]
    outcome: Poses  # [N], of the block

    def __getitem__(self, index: Any) -> "Pushes":
        return Pushes(self.starts, self.line[index], self.end[index], self.outcome[index])

    @property
    def start(self) -> Points:
        """Start [N] of each push."""
        return self.starts[self.line]

    def ticks(self, way: np.ndarray) -> np.ndarray:
        """Duration: a path of length `way` to the start, then the push, until the agent rests."""
        length = abs(self.end - self.start)
        return GO_TICKS_PER_PX * way + PUSH_TICKS_PER_PX * length + PUSH_TICKS

    def possible(self, now: Poses, block: Block) -> np.ndarray:
        """Mask of the pushes that move the block and keep it and the agent on the table."""
        outline = corner_points(block.centred_boxes)[:, None]
        return (
            (self.outcome.place != 0)
            & on_table(now.outer(self.start))
            & on_table(now.outer(self.end))
            & on_table((now @ self.outcome).outer(outline)).all(axis=0)
        )


def draw_pushes(block: Block, rng: np.random.Generator) -> Pushes:
    """Draw lines and simulate them; every few steps of a line are the end of a push."""
    starts, inward = draw_starts(block, rng)
    step = STEP * inward * np.exp(1j * rng.uniform(-LEAN_RAD, LEAN_RAD, PUSHES))
    agent, pose = starts, Poses(np.zeros(PUSHES, complex), np.ones(PUSHES, complex))
    ends, outcomes = [], []
    for taken in range(1, LONGEST + 1):
        agent = agent + step
        for _ in range(2):  # in the corner between bar and stem the agent touches both
            pose = displaced(pose, agent, block)
        if taken % STEPS_PER_END == 0:
            ends.append(agent)
            outcomes.append([pose.place, pose.turn])
    place, turn = np.concatenate(outcomes, axis=1)
    line = np.tile(np.arange(PUSHES), len(ends))
    return Pushes(starts, line, np.concatenate(ends), Poses(place, turn))


def draw_starts(block: Block, rng: np.random.Generator) -> tuple[Points, Points]:
    """Draw points beside the block, uniform along its sides; return them and the inward normals."""
    corner = corner_points(block.centred_boxes).reshape(-1, 4)
    side = (np.roll(corner, -1, axis=1) - corner).ravel()
    drawn = rng.choice(side.size, 4 * PUSHES, p=abs(side) / abs(side).sum())
    inward = 1j * side[drawn] / abs(side[drawn])
    start = corner.ravel()[drawn] + rng.random(drawn.size) * side[drawn] - BERTH * inward
    free = np.flatnonzero(clearance(start, block.centred_boxes) > BERTH - 1e-6)[:PUSHES]
    return start[free], inward[free]


def displaced(pose: Poses, agent: Points, block: Block) -> Poses:
    """Move the block out of the agent, as a force along the normal would."""
    own = pose.inner(agent)
    point = nearest(own, block.centred_boxes)
    normal = (point - own) / abs(point - own)
    arm = (point.conj() * normal).imag
    overlap = np.maximum(AGENT_RADIUS - abs(point - own), 0.0)
    shift = overlap / (1 + arm**2 / block.gyration_px2)
    return pose @ Poses(shift * normal, np.exp(1j * shift * arm / block.gyration_px2))


# Paths around the block


def ways(
    agent: complex, goals: Points, now: Poses, block: Block
) -> tuple[np.ndarray, Callable[[int], Points]]:
    """Shortest paths around the block to goals [N], in the frame of the block.

    Returns their lengths [N], infinite without a path, and a function of the goal's index that
    returns the waypoints. Paths turn at points beside the corners of the block.
    """
    boxes = block.centred_boxes
    off = corner_points(boxes, BERTH + 1)
    off = off[(clearance(off, boxes) > BERTH) & on_table(now.outer(off))]
    turns = np.array([backed_off(agent, boxes), *off])
    points = np.concatenate([turns, goals])
    legs = points - turns[:, None]
    along = turns[:, None] + np.linspace(0, 1, 32)[:, None, None] * legs
    free = clearance(along, boxes).min(axis=0) > BERTH - 4
    graph = np.zeros((points.size, points.size))
    graph[: turns.size] = np.where(free, abs(legs), 0.0)
    lengths, before = dijkstra(graph, indices=0, return_predecessors=True)

    def way(goal: int) -> Points:
        passed = [turns.size + goal]
        while passed[-1] > 0:
            passed.append(before[passed[-1]])
        return np.array([agent, *points[passed[::-1]]])

    return lengths[turns.size :], way


def backed_off(agent: complex, boxes: Sequence[Box]) -> complex:
    """Move straight away from the boxes that are too near."""
    for _ in range(2):
        [near] = nearest(np.array([agent]), boxes)
        if 0 < abs(agent - near) < BERTH:
            agent = near + BERTH * (agent - near) / abs(agent - near)
    return agent


# Plans


class Leg:
    """Path to follow with the target `ahead` of the agent, until `arrived` from its end."""

    def __init__(self, way: Points, ahead: int, arrived: float):
        parts = [np.linspace(a, b, int(abs(b - a)) + 1, False) for a, b in pairwise(way)]
        self.path = np.concatenate([*parts, way[-1:]])  # the remaining path, in steps of 1 px
        self.ahead, self.arrived, self.waited_ticks = ahead, arrived, 0

    def target(self, agent: complex) -> complex:
        """Next target; forgets the path behind the agent."""
        self.path = self.path[abs(self.path[: 2 * self.ahead] - agent).argmin() :]
        self.waited_ticks += len(self.path) <= self.ahead
        return self.path[: self.ahead + 1][-1]

    def done(self, agent: complex) -> bool:
        """True once the agent has arrived or has waited too long."""
        return abs(agent - self.path[-1]) < self.arrived or self.waited_ticks >= PATIENCE_TICKS


def shortfall_ticks(left: np.ndarray) -> np.ndarray:
    """Cost in ticks of a block that is `left` px from its goal."""
    return np.minimum(LITTLE_TICKS_PER_PX * left, MORE_TICKS + MORE_TICKS_PER_PX * left)


def plan(
    agent: complex, now: Poses, goal: Poses, block: Block, rng: np.random.Generator
) -> list[Leg]:
    """Path to the first push of the fastest plan of one or two pushes, and that push."""
    drawn = draw_pushes(block, rng)
    lengths, way = ways(now.inner(agent), drawn.starts, now, block)
    first = drawn[drawn.possible(now, block) & np.isfinite(lengths)[drawn.line]]
    if not first.line.size:
        return [Leg(np.array([agent]), GO_AHEAD, GO_ARRIVED)]
    best = fastest(first, first.ticks(lengths[first.line]), drawn, now, goal, block)
    line = np.array([first.start[best], first.end[best]])
    return [
        Leg(now.outer(way(int(first.line[best]))), GO_AHEAD, GO_ARRIVED),
        Leg(now.outer(line), PUSH_AHEAD, PUSH_ARRIVED),
    ]


def fastest(
    first: Pushes, ticks: np.ndarray, drawn: Pushes, now: Poses, goal: Poses, block: Block
) -> int:
    """Index of the first push of the fastest plan.

    A plan is one push alone, or followed by the drawn push whose outcome is nearest to the motion
    that is still missing.
    """
    after = now @ first.outcome
    missing = Poses(after.inner(goal.place), goal.turn / after.turn).vectors(block)
    alone = ticks + shortfall_ticks(np.linalg.norm(missing - STILL.vectors(block), axis=-1))

    tree = KDTree(drawn.outcome.vectors(block))
    left, nearest_missing = tree.query(missing, eps=0.5)  # approximate, but fast
    second, begin = drawn[nearest_missing], first.outcome.inner(first.end)
    straight = abs(second.start - begin)
    both = ticks + second.ticks(straight) + shortfall_ticks(left)
    both[~second.possible(after, block)] = np.inf

    def total(i: int) -> float:
        [length], _ = ways(begin[i], second.start[i : i + 1], after[i], block)
        return min(alone[i], both[i] + GO_TICKS_PER_PX * (length - straight[i]))

    return min(np.argsort(np.minimum(alone, both))[:SHORTLIST].tolist(), key=total)


class Pusher:
    """Go to a push, push, and plan again from the new pose of the block."""

    def __init__(self, block: Block, goal: Pose, rng: np.random.Generator):
        self.block, self.rng = block, rng
        self.goal = self._about_centre_of_mass(*goal)
        self.legs: list[Leg] = []

    def __call__(self, state: np.ndarray) -> np.ndarray:
        """Next target of the agent [2], from a state [5]: agent x, y, block x, y, angle."""
        agent = complex(*state[:2])
        if self.legs and self.legs[0].done(agent):
            self.legs.pop(0)
        if not self.legs:
            now = self._about_centre_of_mass(*state[2:])
            self.legs = plan(agent, now, self.goal, self.block, self.rng)
        target = self.legs[0].target(agent)
        return np.array([target.real, target.imag]).clip(0, TABLE).astype(np.float32)

    def _about_centre_of_mass(self, x: float, y: float, angle: float) -> Poses:
        turn = np.exp(1j * np.array(angle))
        return Poses(x + 1j * y + turn * 1j * self.block.centre_of_mass_px, turn)
