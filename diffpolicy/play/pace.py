"""Pace: ticks in real time where the computer keeps up; pictures are left out before ticks are."""

import time
from collections import deque
from collections.abc import Callable

MOST_LAG_S = 0.25  # a larger one is given up: the game is slower than real time
RECENT_S = 1.0


class Pace:
    """The times of ticks and of drawing. now, sleep: the clock in seconds.

    lost_s: seconds by which the ticks so far took longer than their periods.
    """

    def __init__(
        self,
        period_s: float,
        now: Callable[[], float] = time.perf_counter,
        sleep: Callable[[float], None] = time.sleep,
    ):
        self.period_s, self._now, self._sleep = period_s, now, sleep
        self.due_s = now()  # of the next tick
        self.lost_s = 0.0
        self._drawn_s = self._drawing_s = 0.0  # the end of the last drawing, and how long it took
        self._began: deque[float] = deque(maxlen=2 + round(RECENT_S / period_s))

    def ticked(self) -> None:
        """Count a tick that begins now."""
        self._began.append(self._now())
        self.due_s += self.period_s

    def draw(self, picture: Callable[[], None]) -> None:
        """Draw if there is time for it, and at least half of the time if there is not."""
        start_s = self._now()
        if start_s >= self.due_s and start_s - self._drawn_s < self._drawing_s:
            return
        picture()
        self._drawn_s = self._now()
        self._drawing_s = self._drawn_s - start_s

    def wait(self) -> None:
        """Sleep to the next tick; after a long delay that is now."""
        now_s = self._now()
        if now_s - self.due_s > MOST_LAG_S:
            self.lost_s += now_s - self.due_s
            self.due_s = now_s
        self._sleep(max(self.due_s - now_s, 0.0))

    @property
    def speed(self) -> float:
        """Simulated time over real time in the last second; 1 is real time."""
        if len(self._began) < 2:
            return 1.0
        return (len(self._began) - 1) * self.period_s / (self._began[-1] - self._began[0])
