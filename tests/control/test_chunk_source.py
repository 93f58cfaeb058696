"""Control asks for a chunk source: any plain class, observations by key, on every clock."""

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from diffpolicy.control.chunk_source import Engined
from diffpolicy.control.episode import RolloutOptions
from diffpolicy.control.latency import PAUSED, LatencyProfile
from diffpolicy.control.ranges import training_range
from diffpolicy.control.receding_horizon import RecedingHorizon
from diffpolicy.control.rollout import run_episodes
from diffpolicy.control.wall import run_on_wall_clock
from diffpolicy.control.workers import Workers
from diffpolicy.late.drop import Chunk, DropHead
from diffpolicy.specification import Horizons

TICKS, DT_S = 12, 0.02
OPTIONS = RolloutOptions(DT_S, envs=2, batch=2, limit=TICKS, score_from="return")
TWO_TICKS_LATE = LatencyProfile(np.full(1, 2000 * DT_S), "test")


class CameraEnv(gymnasium.Env):
    """Observes a picture and a state by key; the score is how often the action names the tick."""

    control_dt_s, spec = DT_S, None
    action_space = spaces.Box(-100, 100, (1,), np.float32)

    def _observed(self):
        return {"camera": np.full((4, 5, 3), self.tick, np.uint8), "state": np.array([self.tick])}

    def reset(self, *, seed=None, options=None):
        self.tick = 0
        return self._observed(), {}

    def step(self, action):
        right = bool(action[0] == self.tick)
        self.tick += 1
        over = self.tick == TICKS
        return self._observed(), float(right), False, over, {"success": right}


class Counting:
    """A foreign policy without noise, engines or normalisers: it counts on from the picture."""

    horizons = Horizons(2, 8, 4)

    def noise_shape(self, batch):
        return 0, batch

    def __call__(self, observation, noise):
        assert noise.shape == (0, len(observation["camera"]))
        assert observation["camera"].dtype == np.uint8
        assert observation["camera"].shape[1:] == (2, 4, 5, 3)
        newest = observation["camera"][:, -1, 0, 0, 0].astype(np.float32)
        return newest[:, None, None] + np.arange(self.horizons.usable)[:, None]


def on_the_paused_clock():
    return run_episodes(Counting(), CameraEnv, [3, 4], PAUSED, OPTIONS)


def on_the_simulated_clock():
    return run_episodes(Counting(), CameraEnv, [3, 4], TWO_TICKS_LATE, OPTIONS)


def on_the_wall_clock():
    return run_on_wall_clock(Counting(), CameraEnv, [3, 4], OPTIONS)


def in_a_worker():
    workers = Workers(1)
    try:
        return workers.run_episodes(Counting(), CameraEnv, [3, 4], TWO_TICKS_LATE, OPTIONS)
    finally:
        workers.close()


@pytest.mark.parametrize(
    "run", [on_the_paused_clock, on_the_simulated_clock, on_the_wall_clock, in_a_worker]
)
def test_a_foreign_policy_is_evaluated_on_every_clock(run):
    """Every action is that of its tick, so chunks are aligned however late they come."""
    assert not isinstance(Counting(), Engined) and training_range(Counting()) is None
    for seed, episode in zip([3, 4], run(), strict=True):
        assert (episode.seed, episode.ticks, episode.failure) == (seed, TICKS, None)
        assert episode.observed == 0 and episode.far == ()
        assert TICKS - episode.score <= episode.starved_ticks  # the score counts right actions
        if run is not on_the_wall_clock:  # a busy machine may be late there
            assert episode.starved_ticks == 0


def test_the_simulated_delay_is_known_before_the_policy_is_called():
    events = []

    class Profile(LatencyProfile):
        def delays(self, seed, control_dt_s):
            for delay in super().delays(seed, control_dt_s):
                events.append("delay")
                yield delay

    class Recording(Counting):
        def __call__(self, observation, noise):
            events.append("call")
            return super().__call__(observation, noise)

    profile = Profile(TWO_TICKS_LATE.samples_ms, "test")
    run_episodes(Recording(), CameraEnv, [3], profile, OPTIONS)
    assert events[:4] == ["call", "delay", "call", "delay"]  # the first chunk is free


def test_a_policy_can_see_what_is_left_and_the_delay_that_it_is_to_expect():
    """T_a = 4, d = 2: four of eight actions are left at a replan, and two at the arrival."""
    controller = RecedingHorizon(4, iter([2] * 9), lambda last: np.zeros(1), first_delay=2)
    seen = []
    for tick in range(13):
        controller.deliver(tick)
        if controller.wants_observation(tick):
            controller.begin(tick)
            seen.append((controller.expected_delay, controller.remaining(tick).ravel().tolist()))
            controller.finish(tick + np.arange(8.0)[:, None])
        assert controller.remaining(tick)[0] == controller.act(tick) == tick
    assert seen == [(0, []), (2, [4, 5, 6, 7]), (2, [8, 9, 10, 11]), (2, [12, 13, 14, 15])]


def test_the_expected_delay_is_the_largest_of_the_last_ten():
    controller = RecedingHorizon(1, None, lambda last: np.zeros(1), True, first_delay=5)
    delays, expected, tick = [3, 2, *[1] * 9, 4, 1], [], 0
    for delay in delays:
        controller.begin(tick)
        expected.append(controller.expected_delay)
        tick += delay
        controller.finish(np.zeros((4, 1)), tick)
    assert expected == [5, *[3] * 10, 2, 4]
    assert (controller.delay_ticks, controller.expected_ticks) == (delays, expected)


def test_drop_head_keeps_what_is_not_yet_past():
    actions = np.arange(5.0)[:, None]
    for delay in range(7):
        joined = DropHead().join(None, Chunk(10, 10 + delay, actions, 10))
        np.testing.assert_array_equal(joined.actions, actions[delay:])
        assert (joined.observed, joined.first) == (10, 10 + delay)
