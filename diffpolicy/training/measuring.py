"""Times of a training step's gradient that is computed in one of two ways.

The ways are timed in turn, so that other work on the machine slows both.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

ROUNDS, WARM_UP, LIMIT_S = 9, 2, 2.0


@dataclass(frozen=True)
class Measured:
    """Two ways by their names.

    gain: time in the usual one over time in the other. deviation: relative, of the loss.
    """

    usual: str
    other: str
    gain: float
    deviation: float

    def __str__(self) -> str:
        return (
            f"{self.other} takes {1 / self.gain:.2f} of the time of {self.usual} here, and its "
            f"loss differs by {100 * self.deviation:.2g} %"
        )


def measure(gradient: Callable[[str], float], usual: str, other: str) -> Measured:
    """Time gradients in both ways, interleaved.

    gradient: the loss of one batch in a way, once its gradients are computed. Stops early after
    2 s, with one round at least.
    """
    ways = usual, other
    losses = {way: gradient(way) for way in ways}
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    begin = time.perf_counter()
    for number in range(WARM_UP + ROUNDS):
        for way in ways:
            start = time.perf_counter()
            gradient(way)
            seconds[way].append(time.perf_counter() - start)
        if time.perf_counter() - begin > LIMIT_S:
            break
        if number + 1 == WARM_UP:
            seconds = {way: [] for way in ways}
    gain = median(seconds[usual]) / median(seconds[other])
    return Measured(usual, other, gain, abs(losses[other] / losses[usual] - 1))


def median_seconds(work: Callable[[], object]) -> float:
    """The median time of some work, after a first time; of fewer times if it takes long."""
    work()
    found, begin = [], time.perf_counter()
    while len(found) < ROUNDS and (not found or time.perf_counter() - begin < LIMIT_S / 2):
        start = time.perf_counter()
        work()
        found.append(time.perf_counter() - start)
    return median(found)
