"""Laws of the pace, on a clock that the test turns."""

import pytest

from diffpolicy.play.pace import MOST_LAG_S, Pace

PERIOD = 0.02


class Clock:
    """A clock that stands between events."""

    def __init__(self):
        self.now_s = 5.0

    def now(self):
        return self.now_s

    def sleep(self, seconds):
        assert seconds >= 0
        self.now_s += seconds


def play(ticks, tick_s, drawing_s):
    """(pace, seconds, pictures) after so many ticks of a cost in seconds, and of the drawing."""
    clock, drawn = Clock(), []
    pace = Pace(PERIOD, clock.now, clock.sleep)

    def draw():
        drawn.append(clock.now_s)
        clock.now_s += drawing_s

    for _ in range(ticks):
        pace.ticked()
        clock.now_s += tick_s
        pace.draw(draw)
        pace.wait()
    return pace, clock.now_s - 5.0, len(drawn)


def test_a_quick_computer_draws_every_tick_in_real_time():
    pace, seconds, pictures = play(100, 0.004, 0.01)
    assert pictures == 100
    assert seconds == pytest.approx(100 * PERIOD)
    assert pace.speed == pytest.approx(1)
    assert pace.lost_s == 0


def test_slow_drawing_leaves_out_pictures_and_no_time():
    """Six periods to draw: about every eighth tick is drawn, and the ticks keep real time."""
    pace, seconds, pictures = play(400, 0.004, 6 * PERIOD)
    assert 400 // 12 <= pictures <= 400 // 6
    assert seconds == pytest.approx(400 * PERIOD, abs=MOST_LAG_S)
    assert pace.speed == pytest.approx(1, abs=0.2)
    assert pace.lost_s == 0


def test_slow_ticks_are_told_and_still_drawn():
    pace, seconds, pictures = play(100, 2 * PERIOD, PERIOD)
    assert pictures >= 30
    assert pace.speed == pytest.approx(100 * PERIOD / seconds, rel=0.2)
    assert pace.speed < 0.5
    assert pace.lost_s == pytest.approx(seconds - 100 * PERIOD, abs=MOST_LAG_S)
