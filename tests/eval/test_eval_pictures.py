"""Evaluation of policies that see pictures: the same bytes, memory that is told, and strips."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from pictured import LOOK, SIDE, TICKS, image_checkpoint, make_look

from diffpolicy import environment
from diffpolicy.config import Sampling
from diffpolicy.control.episode import RolloutOptions
from diffpolicy.control.latency import PAUSED, constant_ticks
from diffpolicy.control.rollout import run_episodes
from diffpolicy.control.workers import Workers
from diffpolicy.environment.boundary import Boundary
from diffpolicy.errors import DiffpolicyError
from diffpolicy.eval.config import EvalConfig
from diffpolicy.eval.measure.cautions import picture_bytes
from diffpolicy.eval.measure.evaluator import Evaluator
from diffpolicy.eval.measure.frames import frames_of, render_episode
from diffpolicy.eval.videos.pictures import caption_of, draw
from diffpolicy.policy import Policy

OPTIONS = RolloutOptions(0.1, envs=16, batch=16)
SEEDS = range(18)


@pytest.fixture(scope="module")
def policy():
    return Policy(image_checkpoint("image", "place"), Sampling(ddim_steps=2))


@pytest.mark.parametrize("profile", [PAUSED, constant_ticks(2, 0.1)], ids=["paused", "late"])
def test_the_same_seed_gives_the_same_bytes(policy, profile):
    """1 and 16 environments, 1 and 2 workers, and the same actions to the last bit."""
    many = run_episodes(policy, make_look, SEEDS, profile, OPTIONS)
    assert len({e.seam_jumps for e in many}) > 9  # the actions differ from seed to seed
    assert many == run_episodes(policy, make_look, SEEDS, profile, replace(OPTIONS, envs=1))
    for count in (1, 2):
        workers = Workers(count)
        try:
            assert many == workers.run_episodes(policy, make_look, SEEDS, profile, OPTIONS)
        finally:
            workers.close()


def test_the_order_of_the_environment_s_keys_changes_nothing(policy):
    """The keys are in the order of the policy; it has no other than its own."""
    found = run_episodes(policy, make_look, SEEDS[:3], PAUSED, OPTIONS)
    more = run_episodes(policy, partial(make_look, camera=8), SEEDS[:3], PAUSED, OPTIONS)
    assert found == more


def test_only_vectors_are_compared_with_the_training_data(policy):
    for episode in run_episodes(policy, make_look, SEEDS[:3], PAUSED, OPTIONS):
        assert episode.observed == episode.replans
        assert len(episode.lowest) == len(episode.highest) == len(episode.far) == 1


def config(**changes):
    return EvalConfig(run=Path("none"), episodes=4, envs=3, batch=5, workers=1, **changes)


def test_the_memory_of_pictures_is_bounded_and_told(policy, capsys):
    """T_o pictures for each environment, and one batch, padded to 16, with its layers as floats."""
    with Evaluator(config(), policy) as evaluator:
        told = capsys.readouterr().out
        layers = 14 * 14 * 3 + 7 * 7 * 16 + 4 * 4 * 32 + 2 * 2 * (64 + 64 + 4) + 8
        needed = 2 * (SIDE * SIDE * 3 * (3 + 16) + 4 * layers * 16)
        assert picture_bytes(policy, evaluator.options) == needed
        assert f"and their encoder: about {needed / 1e6:.0f} MB for each worker" in told
        assert evaluator.paired


def test_a_policy_gets_the_camera_of_its_task():
    policy = Policy(image_checkpoint("pixels", side=12, camera=12), Sampling(ddim_steps=1))
    with Evaluator(config(), policy) as evaluator:
        row, _ = evaluator.evaluate(policy, "paused", PAUSED)
        assert row.episodes == 4 and not row.failures
    with pytest.raises(DiffpolicyError, match=r"trained for pixels \(a picture of 12 × 12 px"):
        Evaluator(config(), Policy(image_checkpoint("pixels", side=12), Sampling(ddim_steps=1)))


# Strips


def test_the_pictures_of_a_strip_are_rendered(policy):
    with Evaluator(config(), policy) as evaluator:
        shot = frames_of(evaluator, policy, PAUSED, 1)
    assert shot.trouble is None and shot.episode.ticks == TICKS
    assert all(frame.shape == (SIDE, 2 * SIDE, 3) for frame in shot.frames.values())
    assert [o.shape for o in shot.observations] == [(1,)] * (TICKS + 1)


def not_rendered(render_mode=None):
    if render_mode:
        raise DiffpolicyError("no")
    return make_look()


def test_a_strip_shows_what_the_policy_sees_if_nothing_is_rendered(policy):
    shot = render_episode(policy, not_rendered, 1, PAUSED, OPTIONS, [0] * 4)
    assert shot.trouble is None
    first = make_look().reset(seed=1)[0]["image"]
    np.testing.assert_array_equal(shot.frames[0], first)


class Dark(gymnasium.Wrapper):
    """Fails to render."""

    def render(self):
        raise RuntimeError("no driver")


def test_a_strip_shows_what_the_policy_sees_if_rendering_fails(policy):
    def make(render_mode=None):
        dark = Dark(environment.make(LOOK, {}, render_mode=render_mode).env)
        return Boundary(dark, "Dark-v0")

    shot = render_episode(policy, make, 1, PAUSED, OPTIONS, [0] * 4)
    assert shot.trouble == "no driver" and list(shot.frames)[-1] == TICKS
    first = make_look().reset(seed=1)[0]["image"]
    np.testing.assert_array_equal(shot.frames[0], first)
    assert "rendering failed: no driver" in caption_of(shot)
    assert draw(shot, 0.1).startswith(b"\x89PNG")
