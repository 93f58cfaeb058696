"""Differences of replayed observations from the recorded ones.

Shapes: T ticks, D numbers of a key.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from diffpolicy.errors import DiffpolicyError
from diffpolicy.specification import picture_shape

from .replay_results import Difference, ReplayedEpisode

FAR = 0.01  # of the range of a number


@dataclass(frozen=True)
class Played:
    """One replayed episode, before the ranges of all are known.

    gaps: {key: [T, D]}, distances in float32; of pictures [T, 1], the largest. low, high: {key:
    [D]}, of the recording.
    """

    row: ReplayedEpisode
    gaps: dict[str, np.ndarray]
    low: dict[str, np.ndarray]
    high: dict[str, np.ndarray]


def compared(
    row: ReplayedEpisode, seen: Mapping[str, np.ndarray], recorded: Mapping[str, np.ndarray]
) -> Played:
    """Differences of each key at the ticks that both have."""
    gaps, low, high = {}, {}, {}
    for key, values in recorded.items():
        ticks = min(len(values), len(seen[key]))
        ours, theirs = seen[key][:ticks], values[:ticks]
        if ours.shape != theirs.shape:
            raise DiffpolicyError(
                f"the environment observes {key} of shape {list(ours.shape[1:])}; the store holds "
                f"{list(theirs.shape[1:])}; try the environment of the recording"
            )
        with np.errstate(over="ignore", invalid="ignore"):  # refused below
            exact = np.float32(theirs).reshape(ticks, -1)
            gap = np.abs(np.float32(ours).reshape(ticks, -1) - exact)
        if not np.isfinite(gap).all():
            tick = int(np.argmin(np.isfinite(gap).all(axis=1)))
            raise DiffpolicyError(
                f"{key} of episode {row.episode} is not finite (NaN or inf) at tick {tick}, in the "
                "environment or in the recording"
            )
        if picture_shape(theirs.shape[1:]):
            gaps[key] = gap.max(axis=1, keepdims=True)
            low[key], high[key] = np.zeros(1, np.float32), np.full(1, 255, np.float32)
        else:
            gaps[key], low[key], high[key] = gap, exact.min(axis=0), exact.max(axis=0)
    return Played(row, gaps, low, high)


def with_differences(played: Sequence[Played]) -> list[ReplayedEpisode]:
    """The rows, with differences in shares of the ranges over all of them."""
    spans = {
        key: np.max([p.high[key] for p in played], axis=0)
        - np.min([p.low[key] for p in played], axis=0)
        for key in (played[0].gaps if played else ())
    }
    return [
        replace(
            p.row, differences=[_difference(key, gap, spans[key]) for key, gap in p.gaps.items()]
        )
        for p in played
    ]


def _difference(key: str, gap: np.ndarray, span: np.ndarray) -> Difference:
    varying = span > 0
    shares = gap[:, varying] / span[varying]
    return Difference(
        key=key,
        first_tick=_first(np.any(gap > 0, axis=1)),
        far_tick=_first(np.any(shares > FAR, axis=1)),
        largest=float(gap.max()),
        largest_share=float(shares.max()) if shares.size else None,
    )


def _first(mask: np.ndarray) -> int | None:
    return int(mask.argmax()) if mask.any() else None
