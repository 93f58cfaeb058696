"""Sentences about a replay."""

import statistics
from collections.abc import Iterator

from ..measure.replay_results import Difference, ReplayResult


def print_replay(result: ReplayResult) -> None:
    """Print success, episodes that ended early, and the differences of each key."""
    for line in replay_lines(result):
        print(line)


def replay_lines(result: ReplayResult) -> Iterator[str]:
    """The sentences."""
    low, high = result.success_ci
    count = result.episodes
    yield (
        f"{result.successes} of {count} episodes succeed: {result.success_rate:.1%}, 95 % interval "
        f"{low:.1%} to {high:.1%}"
    )
    known = [row for row in result.rows if row.recorded_success is not None]
    if known:
        recorded = sum(row.recorded_success or 0 for row in known)
        yield f"in the recording {recorded} of {len(known)} succeeded"
    early = sum(row.ticks < row.actions for row in result.rows)
    if early:
        yield f"{early} of {count} episodes ended before their last action"
    if result.provenance.left_out:
        yield f"left out: {result.provenance.left_out} episodes without a seed"
    keys = dict.fromkeys(d.key for row in result.rows for d in row.differences)
    if not keys:
        yield "observations are not compared: the store holds none of the environment's"
    for key in keys:
        found = [(row.episode, d) for row in result.rows for d in row.differences if d.key == key]
        yield _difference(key, found)


def _difference(key: str, found: list[tuple[int, Difference]]) -> str:
    differing = [(n, d) for n, d in found if d.first_tick is not None]
    if not differing:
        return f"{key}: equal to the recording in all {len(found)} episodes"
    first = statistics.median(d.first_tick or 0 for _, d in differing)
    episode, worst = max(differing, key=lambda pair: (pair[1].largest_share or 0, pair[1].largest))
    share = "" if worst.largest_share is None else f", {worst.largest_share:.1%} of a range"
    far = [d.far_tick for _, d in differing if d.far_tick is not None]
    when = f", first at tick {statistics.median(far):g}" if far else ""
    return (
        f"{key}: differs from the recording in {len(differing)} of {len(found)} episodes, first at "
        f"tick {first:g} (median); by more than 1 % of its range in {len(far)}{when}; at most by "
        f"{worst.largest:.4g} in its units{share}, in episode {episode}"
    )
