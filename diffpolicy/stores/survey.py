"""Survey of a store: facts about a bounded sample of its episodes, for `info` and its picture.

Shapes: N rows of the store, n rows and e episodes of the sample, D numbers of the actions and the
vectors of a row, the D_a of the action first.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from diffpolicy.data import facts
from diffpolicy.data.attributes import attribute
from diffpolicy.data.demonstrations import Contents
from diffpolicy.data.zarr_store import blocks
from diffpolicy.errors import DiffpolicyError
from diffpolicy.specification import ACTION, FLAT, picture_shape
from diffpolicy.stores.space import Limits

MOST_ROWS, MOST_NUMBERS = 100_000, 5_000_000  # of a sample
MOST_EPISODES = 2_000
BLOCK_BYTES = 2**22


@dataclass(frozen=True)
class Survey:
    """A sample of a store and its facts.

    lengths: of all episodes [E]. episodes [e]: numbers of the sampled ones; ends [e]: in the
    sample. labels: (array, dimension or None) of each number. values [n, D]. idle [n]. largest and
    largest_at [e, D]: largest change from row to row, in shares of the range, and the step after
    it. usual [D]: median change other than zero. distances and others [e]: to the nearest episode,
    and its place in the sample. at_limit [D_a]: share of the rows.
    """

    lengths: np.ndarray
    control_dt_s: float | None
    position_targets: bool | None
    episodes: np.ndarray
    ends: np.ndarray
    labels: list[tuple[str, int | None]]
    action_dim: int
    values: np.ndarray
    low: np.ndarray
    high: np.ndarray
    idle: np.ndarray
    largest: np.ndarray
    largest_at: np.ndarray
    usual: np.ndarray
    distances: np.ndarray
    others: np.ndarray
    at_limit: np.ndarray
    limits: Limits | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def span(self) -> np.ndarray:
        """Range [D] of each number."""
        return self.high - self.low

    @property
    def jumps(self) -> np.ndarray:
        """Mask [e, D] of the largest changes that are jumps."""
        return facts.jumps(self.largest, self.usual)

    @property
    def gradual(self) -> np.ndarray:
        """`largest` with 0 for the numbers that only switch, such as a gripper's command."""
        return np.where(self.usual < facts.SWITCHING, self.largest, 0)

    def rows_of(self, place: int) -> slice:
        """Rows of a sampled episode."""
        return slice(int(self.ends[place - 1]) if place else 0, int(self.ends[place]))

    def label(self, dimension: int) -> str:
        """Name of a number, such as action[0]."""
        name, index = self.labels[dimension]
        return name if index is None else f"{name}[{index}]"


def survey(source: Contents, limits: Limits | None = None) -> Survey:
    """Facts about the actions and the vectors of a store that has actions.

    Raises DiffpolicyError if the actions cannot be read; other such arrays are left out.
    """
    arrays, notes = _vectors(source), []
    width = sum(math.prod(array.shape[1:]) for array in arrays.values())
    most = max(1, min(MOST_ROWS, MOST_NUMBERS // width))
    episodes, rows, ends = _chosen(source.ends, most)
    if len(rows) < source.rows:
        notes = [f"from {len(rows):,} steps of {len(episodes):,} episodes, evenly spaced"]
    found = {}
    for name, array in arrays.items():
        try:
            found[name] = _read(source, name, array, rows)
        except DiffpolicyError:
            if name == ACTION:
                raise
    labels = [
        (name, i if values.shape[1] > 1 else None)
        for name, values in found.items()
        for i in range(values.shape[1])
    ]
    values = np.concatenate(list(found.values()), axis=1)
    lengths = np.diff(source.ends, prepend=0)
    dt, action_dim = _declared(source, "control_dt_s"), found[ACTION].shape[1]
    about = (lengths, dt, _declared(source, "position_targets"), episodes, ends, labels)
    computed = _facts(values, ends, action_dim, dt, limits)
    return Survey(*about, action_dim, values, **computed, notes=notes)


def _facts(
    values: np.ndarray, ends: np.ndarray, action_dim: int, dt: float | None, limits: Limits | None
) -> dict[str, Any]:
    low, high = values.min(axis=0), values.max(axis=0)
    span, stretch = high - low, facts.idle_stretch(dt)
    episodes = np.split(values, ends[:-1])
    shares = [facts.changes(episode, span) for episode in episodes]
    outlines = np.stack([facts.outline(episode) for episode in episodes])
    distances, others = facts.nearest(outlines, low, span)
    bounds = (low[:action_dim], high[:action_dim]) if limits is None else (limits.low, limits.high)
    still = [x.max(axis=0) if len(x) else np.zeros(len(low)) for x in shares]
    return {
        "low": low,
        "high": high,
        "idle": np.concatenate([facts.idle_rows(x, span, stretch) for x in episodes]),
        "largest": np.stack(still),
        "largest_at": np.stack([_step_after(x) for x in shares]),
        "usual": _median([facts.usual_change(x) for x in shares]),
        "distances": distances,
        "others": others,
        "at_limit": facts.at_limits(values[:, :action_dim], *bounds).mean(axis=0),
        "limits": limits,
    }


def _step_after(shares: np.ndarray) -> np.ndarray:
    return 1 + shares.argmax(axis=0) if len(shares) else np.zeros(shares.shape[1], int)


def _median(usual: list[np.ndarray]) -> np.ndarray:
    """Median over the episodes, without NaN; NaN where an array never changes."""
    stacked = np.stack(usual)
    some = ~np.isnan(stacked).all(axis=0)
    found = np.full(stacked.shape[1], np.nan)
    found[some] = np.nanmedian(stacked[:, some], axis=0)
    return found


def _vectors(source: Contents) -> dict[str, Any]:
    """Readable arrays of numbers other than pictures, in the order of `_rank`."""
    found: dict[str, Any] = {}
    for name in sorted(source.names, key=_rank):
        try:
            array, _ = source.array(name)
            source.check_length(name, array, found.get(ACTION, array).shape[0])
        except DiffpolicyError:
            if name == ACTION:
                raise
            continue
        if name == ACTION or (not picture_shape(array.shape[1:]) and array.dtype.kind != "b"):
            found[name] = array
    return found


def _rank(name: str) -> tuple[bool, bool, str]:
    """Order of the arrays: actions, then the observation or the state, then others by name."""
    return name != ACTION, name != FLAT and "state" not in name, name


def _chosen(ends: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Evenly spaced episodes: their numbers [e], rows [n] of the store, and ends in the sample.

    At most `most` rows; of a longer single episode, the first.
    """
    lengths = np.diff(ends, prepend=0)
    count = min(len(ends), MOST_EPISODES, max(1, int(most / lengths.mean())))
    episodes = np.unique(np.linspace(0, len(ends) - 1, count).round().astype(int))
    taken = np.minimum(lengths[episodes], max(1, most // count))
    if lengths[episodes].sum() <= most:
        taken = lengths[episodes]
    starts = ends[episodes] - lengths[episodes]
    rows = np.concatenate([np.arange(a, a + n) for a, n in zip(starts, taken, strict=True)])
    return episodes, rows, np.cumsum(taken)


def _read(source: Contents, name: str, array: Any, rows: np.ndarray) -> np.ndarray:
    """The chosen rows as float64 [n, …], flattened to vectors."""
    what, found = f"{source.store.path}: data/{name}", []
    for start, block in blocks(array, source.rows, what, BLOCK_BYTES):
        first, end = np.searchsorted(rows, (start, start + len(block)))
        found.append(np.asarray(block[rows[first:end] - start], np.float64))
    values = np.concatenate(found).reshape(len(rows), -1)
    if not np.isfinite(values).all():
        raise DiffpolicyError(f"{what} is not finite")
    return values


def _declared(source: Contents, name: str) -> Any:
    """A checked attribute; None if it is absent or damaged, which `info` prints as it is."""
    try:
        return attribute(source.store.attributes, name)
    except DiffpolicyError:
        return None


def lines(found: Survey) -> Iterator[str]:
    """The facts in short lines."""
    yield _idle_line(found)
    yield _change_line(found)
    yield _limit_line(found)
    if len(found.episodes) > 1:
        yield _nearest_line(found)
    yield from found.notes


def _idle_line(found: Survey) -> str:
    stretch, period = facts.idle_stretch(found.control_dt_s), found.control_dt_s
    time = f"{facts.IDLE_S:g} s" if period else f"{stretch} steps"
    return (
        f"idle: {found.idle.mean():.1%} of the steps, where no number moves by more than "
        f"{facts.IDLE_SHARE:.0%} of its range in {time}"
    )


def _change_line(found: Survey) -> str:
    jumps = found.jumps
    shown = np.where(jumps, found.largest, 0) if jumps.any() else found.gradual
    place, number = np.unravel_index(int(shown.argmax()), shown.shape)
    return (
        f"{'largest jump' if jumps.any() else 'no jumps; largest change'} from step to step: "
        f"{found.largest[place, number]:.0%} of the range of {found.label(int(number))}, episode "
        f"{found.episodes[place]}, step {found.largest_at[place, number]}"
        + (f"; episodes with jumps: {int(jumps.any(axis=1).sum())}" if jumps.any() else "")
    )


def _limit_line(found: Survey) -> str:
    shares = ", ".join(f"{share:.1%}" for share in found.at_limit[:8])
    more = ", …" if len(found.at_limit) > 8 else ""
    kind = "their smallest or largest value" if found.limits is None else "a limit of their space"
    return f"actions at {kind}: {shares}{more} of the steps, by dimension"


def _nearest_line(found: Survey) -> str:
    pairs = facts.near_pairs(found.distances, found.others)
    place = int(found.distances.argmin())
    one, other = sorted((found.episodes[place], found.episodes[found.others[place]]))
    apart = f"{found.distances[place]:.1%} of the ranges apart"
    return f"nearest episodes: {one} and {other}, {apart}; near-duplicate pairs: {len(pairs)}"
