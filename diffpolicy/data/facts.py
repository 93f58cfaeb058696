"""Facts about demonstrations as pure functions: idle rows, saturation, jumps, near duplicates.

Shapes: T rows of an episode, E episodes, D dimensions. span [D]: the range of each dimension over
all episodes; a dimension of span 0 never counts. Differences are in shares of these ranges.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

IDLE_SHARE = 0.01  # of a range
IDLE_S, IDLE_ROWS = 0.5, 5  # length of a stretch; rows are for an unknown control period
AT_LIMIT = 1e-6  # of the distance of two limits
JUMP_SHARE = 0.5  # of a range
JUMP_RATIO, OTHERS_RATIO = 20.0, 2.0  # times the usual change; times that of the median episode
TURNS, OF_A_TURN = (2 * np.pi, 360.0), 0.02  # a range this close to a turn is that of an angle
SWITCHING = 0.1  # usual change of a number that switches
OUTLINE_POINTS = 16
NEAR = 0.01  # mean distance of near duplicates, in shares of the ranges


def idle_stretch(control_dt_s: float | None) -> int:
    """Rows of the shortest stretch that counts as idle: half a second, at least 2 rows."""
    return max(2, round(IDLE_S / control_dt_s)) if control_dt_s else IDLE_ROWS


def idle_rows(
    values: np.ndarray, span: np.ndarray, stretch: int, share: float = IDLE_SHARE
) -> np.ndarray:
    """Mask [T] of the rows in a stretch in which nothing moves.

    A stretch has `stretch` rows, in which no dimension of values [T, D] covers more than `share` of
    its span.
    """
    from scipy.ndimage import maximum_filter1d, minimum_filter1d

    rows = len(values)
    if rows < stretch or not values.shape[1]:
        return np.zeros(rows, bool)
    first = -(stretch // 2)  # the filter of row t covers rows t to t + stretch - 1
    highest = maximum_filter1d(values, stretch, axis=0, origin=first)
    lowest = minimum_filter1d(values, stretch, axis=0, origin=first)
    within: np.ndarray = np.less_equal(highest - lowest, share * span)
    starts = np.all(within[: rows - stretch + 1], axis=1)
    edges = np.zeros(rows + 1, np.int64)
    edges[: len(starts)] += starts
    edges[stretch:] -= starts
    return np.cumsum(edges[:-1]) > 0


def moving_part(idle: np.ndarray) -> tuple[int, int]:
    """(first, end) of the rows without an idle head and an idle tail; (0, 0) if all are idle."""
    moving = np.flatnonzero(~idle)
    return (int(moving[0]), int(moving[-1]) + 1) if len(moving) else (0, 0)


def at_limits(values: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Mask [T, D] of the values at or beyond a finite limit; equal limits [D] do not count."""
    with np.errstate(invalid="ignore"):  # of infinite limits
        near = np.where(np.isfinite(high - low), AT_LIMIT * (high - low), 0)
    return ((values <= low + near) | (values >= high - near)) & (high > low)


def changes(values: np.ndarray, span: np.ndarray) -> np.ndarray:
    """Changes [T - 1, D] from each row to the next, in shares of the spans.

    A dimension whose span is a full turn, 2π or 360, is an angle: it changes the shorter way round.
    """
    turn = np.full(len(span), np.inf)
    for period in TURNS:
        turn[np.abs(span - period) < OF_A_TURN * period] = period
    change = np.abs(np.diff(values, axis=0))
    return np.minimum(change, np.abs(turn - change)) / np.where(span > 0, span, np.inf)


def jumps(largest: np.ndarray, usual: np.ndarray) -> np.ndarray:
    """Mask [E, D] of largest changes that are jumps: far from what is usual in the data.

    A jump is half of a range, 20 times the usual change other than zero [D], and twice the largest
    change of the median episode, if there are 3 or more. Numbers that only ever switch, such as a
    gripper's command, have no jumps.
    """
    found = (largest > JUMP_SHARE) & (largest > JUMP_RATIO * usual)
    if len(largest) > 2:
        found &= largest > OTHERS_RATIO * np.median(largest, axis=0)
    return found


def usual_change(shares: np.ndarray) -> np.ndarray:
    """Median [D] of the changes [T - 1, D] that are not zero; NaN for a dimension without any."""
    changed = np.where(shares > 0, shares, np.nan)
    found = np.full(shares.shape[1], np.nan)
    some = ~np.isnan(changed).all(axis=0) if len(changed) else np.zeros(len(found), bool)
    found[some] = np.nanmedian(changed[:, some], axis=0)
    return found


def outline(values: np.ndarray) -> np.ndarray:
    """The course of an episode [T, D] at evenly spaced times, interpolated: [points, D]."""
    times = np.linspace(0, len(values) - 1, OUTLINE_POINTS)
    before = times.astype(int)
    after = np.minimum(before + 1, len(values) - 1)
    part = (times - before)[:, None]
    return (1 - part) * values[before] + part * values[after]


def nearest(
    outlines: np.ndarray, low: np.ndarray, span: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Distance [E] to the nearest other episode, and its number [E], from outlines [E, points, D].

    The distance is the root mean square over points and dimensions, in shares of the ranges. It is
    infinite for a single episode.
    """
    from scipy.spatial import KDTree

    count = len(outlines)
    if count < 2 or not np.any(span > 0):
        return np.full(count, np.inf), np.arange(count)
    flat = ((outlines - low) / np.where(span > 0, span, 1))[:, :, span > 0].reshape(count, -1)
    found: Any = KDTree(flat).query(flat, k=2)
    distances, numbers = found
    other = (numbers[:, 0] == np.arange(count)).astype(int)  # an equal one may come first
    rows = np.arange(count)
    return distances[rows, other] / np.sqrt(flat.shape[1]), numbers[rows, other]


def near_pairs(
    distances: np.ndarray, numbers: np.ndarray, near: float = NEAR
) -> list[tuple[int, int, float]]:
    """(episode, other, distance) of the pairs of nearest episodes that are near duplicates."""
    pairs = {
        (min(i, int(j)), max(i, int(j))): float(distance)
        for i, (distance, j) in enumerate(zip(distances, numbers, strict=True))
        if distance <= near
    }
    return [(i, j, distance) for (i, j), distance in sorted(pairs.items())]


def repeats(pictures: np.ndarray) -> np.ndarray:
    """Mask [T] of the pictures [T, …] that equal the one before."""
    return np.array([False, *(np.array_equal(*pair) for pair in pairwise(pictures))])


def longest_run(mask: Sequence[bool] | np.ndarray) -> tuple[int, int]:
    """(first, end) of the longest run of true values; (0, 0) without any."""
    padded = np.concatenate([[False], np.asarray(mask, bool), [False]])
    starts, ends = (np.flatnonzero(np.diff(padded.astype(np.int8)) == sign) for sign in (1, -1))
    if not len(starts):
        return 0, 0
    longest = int(np.argmax(ends - starts))
    return int(starts[longest]), int(ends[longest])
