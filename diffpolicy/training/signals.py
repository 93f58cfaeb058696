"""Signals that end a loop in order."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def stop_on_signal() -> Iterator[list[int]]:
    """A list that SIGINT or SIGTERM fills, to end the loop after a step; a second one kills."""
    received: list[int] = []

    def stop(number: int, frame) -> None:
        received.append(number)
        signal.signal(number, previous[signal.Signals(number)])

    previous = {n: signal.signal(n, stop) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
