"""Pictures of a game: what the environment renders, else what the policy sees, else traces."""

import logging
from functools import partial

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from diffpolicy import environment
from diffpolicy.environment.monitored import Monitored
from diffpolicy.play.pictures import HEIGHT, WIDTH, Pictures, traces


class BlackEnv(gymnasium.Env):
    """An environment that renders what its keyword says."""

    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012
    observation_space = spaces.Box(-1, 1, (2,), np.float32)
    action_space = spaces.Box(-1, 1, (1,), np.float32)

    def __init__(self, gives, render_mode=None):
        self.gives, self.render_mode = gives, render_mode

    def reset(self, *, seed=None, options=None):
        return np.zeros(2, np.float32), {}

    def render(self):
        if isinstance(self.gives, Exception):
            raise self.gives
        return self.gives


gymnasium.register("Black-v0", entry_point=BlackEnv, max_episode_steps=5)


def pictures(gives, mode="rgb_array"):
    env = Monitored(partial(environment.make, "Black-v0", {"gives": gives}, None, mode), 0, None)
    env.reset(0)
    return Pictures(env)


VECTOR = {"observation": np.array([0.5, -0.5])}


@pytest.mark.parametrize(
    "gives",
    [np.full((4, 6, 3), 204, np.uint8), np.full((4, 6, 4), 204, np.uint8), np.full((4, 6, 1), 0.8)],
)
def test_the_environment_is_rendered(gives):
    np.testing.assert_array_equal(pictures(gives).of(VECTOR, 0), np.full((4, 6, 3), 204, np.uint8))


@pytest.mark.parametrize("gives", [RuntimeError("no GL"), np.zeros((4, 6)), None])
def test_a_renderer_that_fails_is_told_once_and_traces_are_drawn(gives, caplog):
    one = pictures(gives)
    with caplog.at_level(logging.WARNING, "diffpolicy"):
        first, second = one.of(VECTOR, 0), one.of(VECTOR, 1)
    assert len(caplog.records) == 1 and "rendering failed" in caplog.text
    assert first.shape == second.shape == (HEIGHT, WIDTH, 3) and first.dtype == np.uint8


def test_without_a_renderer_the_picture_of_the_observation_is_shown():
    seen = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    found = pictures(None, mode=None).of({"state": np.zeros(2), "camera": seen}, 0)
    np.testing.assert_array_equal(found, seen)


def test_traces_grow_by_the_tick_and_begin_again_with_an_episode():
    one = pictures(None, mode=None)
    for tick in (0, 1, 1, 2):
        one.of({"observation": np.array([tick, -tick])}, tick)
    np.testing.assert_array_equal(one.seen, [(0, 0), (1, -1), (2, -2)])
    one.of(VECTOR, 0)
    assert len(one.seen) == 1


def test_larger_values_are_drawn_higher():
    found = traces([np.array([1.0, 0.0])] * 50)
    drawn = np.argwhere((found != found[0, 0]).any(axis=2))
    assert drawn[:, 0].min() < 20 and drawn[:, 0].max() > HEIGHT - 20
    assert drawn[:, 1].max() < WIDTH
