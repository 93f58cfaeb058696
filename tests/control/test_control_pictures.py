"""Control with pictures: bytes in the history, the policy's own keys, and bounded memory."""

import pickle
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from pictured import SIDE, TICKS, make_look

from diffpolicy.control.episode import Episode, RolloutOptions, observe
from diffpolicy.control.latency import PAUSED, constant_ticks
from diffpolicy.control.rollout import run_episodes
from diffpolicy.control.wall import run_on_wall_clock
from diffpolicy.control.workers import Workers
from diffpolicy.environment.monitored import EnvironmentFailure, seeds_repeat
from diffpolicy.errors import DiffpolicyError
from diffpolicy.specification import Horizons, ObservationSpec, picture

OPTIONS = RolloutOptions(0.1, envs=4, batch=16)
SEEDS = range(9)


class Follower:
    """Drives the dot to the middle, as it sees it; keeps the shapes and types of its calls."""

    horizons = Horizons(2, 5, 2)

    def __init__(self, *keys):
        if keys:
            specs = {"image": picture(SIDE, SIDE), "place": ObservationSpec((1,))}
            self.observations = {key: specs[key] for key in keys}
        self.calls = []

    def noise_shape(self, batch):
        return 0, batch

    def __call__(self, observation, noise):
        self.calls.append(
            {key: (values.dtype, values.shape) for key, values in observation.items()}
        )
        newest = observation["image"][:, -1, :, :, 0]  # [B, H, W]: the dot is bright in red
        columns = np.arange(SIDE) - SIDE / 2
        place = (newest.max(1).astype(np.float32) * columns).sum(1)
        return np.repeat(-np.sign(place)[:, None, None], 4, axis=1).astype(np.float32)


@pytest.mark.parametrize("keys", [("image",), ("image", "place"), ("place", "image"), ()])
def test_a_policy_gets_only_its_own_keys_in_its_order(keys):
    source = Follower(*keys)
    found = run_episodes(source, make_look, SEEDS, PAUSED, OPTIONS)
    assert all(e.success for e in found)
    shapes = {
        "image": (np.dtype(np.uint8), (16, 2, SIDE, SIDE, 3)),
        "place": (np.dtype(np.float32), (16, 2, 1)),
    }
    for call in source.calls:
        assert list(call) == list(keys or ("image", "place"))
        assert call == {key: shapes[key] for key in call}


def test_a_key_that_the_environment_lacks_is_told():
    with pytest.raises(DiffpolicyError, match="has no image, but observation"):
        run_episodes(Follower("image"), partial(make_look, layout=""), [0], PAUSED, OPTIONS)


@pytest.mark.parametrize("profile", [PAUSED, constant_ticks(1, 0.1)])
def test_an_episode_with_pictures_depends_on_its_seed_alone(profile):
    """Also its pictures: the policy acts on what it sees."""
    alone = run_episodes(Follower("image"), make_look, SEEDS, profile, replace(OPTIONS, envs=1))
    many = run_episodes(Follower("image"), make_look, SEEDS, profile, replace(OPTIONS, envs=16))
    workers = Workers(2)
    try:
        two = workers.run_episodes(Follower("image"), make_look, SEEDS, profile, OPTIONS)
    finally:
        workers.close()
    assert alone == many == two


@pytest.mark.parametrize("layout", ["chw", "unit"])
def test_the_layout_of_the_environment_changes_no_episode(layout):
    make = partial(make_look, layout=layout)
    found = run_episodes(Follower("image"), make, SEEDS, PAUSED, OPTIONS)
    assert found == run_episodes(Follower("image"), make_look, SEEDS, PAUSED, OPTIONS)


def test_the_wall_clock_takes_pictures():
    options = RolloutOptions(0.01, envs=1, batch=1)
    [found] = run_on_wall_clock(Follower("image"), make_look, [1], options)
    assert found.ticks == TICKS and found.failure is None


def test_no_picture_crosses_a_worker_s_pipe():
    [found] = run_episodes(Follower("image"), make_look, [0], PAUSED, OPTIONS)
    assert isinstance(found, Episode)
    assert len(pickle.dumps(found)) < SIDE * SIDE * 3


def test_histories_hold_t_o_pictures_and_the_batch_copies_each_once(monkeypatch):
    held = []

    def spied(episodes, batch):
        histories = [e.history for e in episodes]
        assert all(set(history) == {"image"} for history in histories)
        held.append(max(len(history["image"]) for history in histories))
        found = observe(episodes, batch)
        for row, history in enumerate(histories):
            np.testing.assert_array_equal(found["image"][row], np.stack(history["image"]))
        assert not found["image"][len(episodes) :].any()
        return found

    monkeypatch.setattr("diffpolicy.control.rollout.observe", spied)
    run_episodes(Follower("image"), make_look, SEEDS, PAUSED, OPTIONS)
    assert held and set(held) == {2}


@pytest.mark.parametrize("habit", ["float", "other", "gone"])
def test_a_picture_that_is_not_as_declared_stops_or_fails_the_episode(habit):
    make = partial(make_look, habit=habit)
    with pytest.raises(EnvironmentFailure, match="tick 2 of seed"):
        run_episodes(Follower("image"), make, SEEDS, PAUSED, OPTIONS)
    options = replace(OPTIONS, on_env_error="fail-episode")
    found = run_episodes(Follower("image"), make, SEEDS, PAUSED, options)
    assert all(e.broken and e.failure and e.ticks == 2 for e in found)


# Seeds


class Drawn:
    """Makes Look-v0 with one pixel that depends on how often it was reset."""

    def __call__(self):
        env = make_look()
        inner, resets = env.unwrapped, [0]
        draw, reset = inner.draw, inner.reset

        def counted(**options):
            resets[0] += 1
            return reset(**options)

        def marked(side):
            picture = draw(side)
            if inner.tick == 2:
                picture[1, 5, 2] = resets[0]
            return picture

        inner.reset, inner.draw = counted, marked
        return env


def test_seeds_are_compared_by_their_pictures():
    assert seeds_repeat(make_look, 3) is None
    told = seeds_repeat(Drawn(), 3)
    assert told and told.endswith("gave 2 instead of 1 at tick 2 (image, dimension 1, 5, 2)")
