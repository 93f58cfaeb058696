"""Mirror images of demonstrations: used where they are declared, checked, and never held out."""

from dataclasses import replace

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from stores import ENDS, joined, write_plainly

from diffpolicy.checkpoint import load_policy
from diffpolicy.config import InfoConfig
from diffpolicy.data.normalizer import fit_limits
from diffpolicy.errors import DiffpolicyError
from diffpolicy.eval.info import info
from diffpolicy.training import train as training
from diffpolicy.training.config import TrainConfig
from diffpolicy.training.preparation import prepare, split_episodes

SIGNS = np.array([-1, 1, -1], np.float32)


class Symmetric(gymnasium.Env):
    """Three numbers, of which two change their sign in the mirror, and two actions that both do."""

    control_dt_s = 0.1
    observation_space = spaces.Box(-np.inf, np.inf, (3,), np.float32)
    action_space = spaces.Box(-np.inf, np.inf, (2,), np.float32)

    def __init__(self, mistake=None):
        self.mistake = mistake
        if mistake == "limits":
            self.action_space = spaces.Box(-2.6, 9, (2,), np.float32)

    def mirrored(self, observations, actions):
        if self.mistake == "raises":
            raise KeyError("left")
        if self.mistake == "shape":
            return observations[:, :2], actions
        if self.mistake == "nothing":
            return None
        if self.mistake == "projection":
            return np.abs(observations), actions
        if self.mistake == "turn":
            return observations @ np.roll(np.eye(3), 1, axis=0), actions
        if self.mistake == "rounding":
            return observations * SIGNS + np.array([0, 0, 1e-8], np.float32), -actions
        if self.mistake == "infinite":
            return observations * SIGNS, actions * np.inf
        observations *= SIGNS
        return observations, -actions

    def reset(self, *, seed=None, options=None):
        return np.zeros(3, np.float32), {}


gymnasium.register("Symmetric-v0", Symmetric, max_episode_steps=9)


@pytest.fixture
def config(tmp_path) -> TrainConfig:
    data = write_plainly(tmp_path / "store", joined(), ENDS)
    small = {"steps": 2, "hidden": 16, "blocks": 1, "device": "cpu"}
    return TrainConfig(data=data, out=tmp_path / "run", env="Symmetric-v0", **small)


def test_images_follow_the_episodes_and_held_out_ones_have_none(config):
    plain, both = prepare(replace(config, mirror="off")), prepare(config)
    options = [x.specification.training["config"]["mirror"] for x in (plain, both)]
    assert options == ["off", "auto"]
    train, held_out = split_episodes(4, 0.05, 0)
    assert (len(train), len(held_out)) == (3, 1)
    assert len(both.training) == 2 * len(plain.training)
    assert len(both.validation) == len(plain.validation)
    rows, last = 27, len(plain.training)
    np.testing.assert_array_equal(both.training.newest[last:], plain.training.newest + rows)
    np.testing.assert_array_equal(both.training.first[last:], plain.training.first + rows)
    for windows in (both.training, both.validation):
        normalizer = both.observation_normalizers["observation"]
        seen = normalizer.unnormalize(windows.observations["observation"])
        acted = both.action_normalizer.unnormalize(windows.actions)
        observations, actions = joined()["observation"], joined()["action"]
        twice = np.concatenate([observations, observations * SIGNS])
        np.testing.assert_allclose(seen, twice, atol=1e-5)
        np.testing.assert_allclose(acted, np.concatenate([actions, -actions]), atol=1e-5)


def test_normalisers_see_the_images_of_the_training_rows(config):
    train, _ = split_episodes(4, 0.05, 0)
    rows = np.repeat(np.isin(np.arange(4), train), np.diff(ENDS, prepend=0))
    actions = joined()["action"][rows]
    fitted = fit_limits(np.concatenate([actions, -actions]))
    np.testing.assert_array_equal(prepare(config).action_normalizer.offset, fitted.offset)


def test_the_data_are_the_same_with_images_and_without(config):
    found = {
        prepare(replace(config, mirror=mirror)).specification.training["fingerprint"]
        for mirror in ("auto", "off")
    }
    assert len(found) == 1


def test_a_task_that_declares_no_symmetry_has_no_images(balance_store, tmp_path):
    prepared = prepare(TrainConfig(data=balance_store, out=tmp_path / "run"))
    training = prepared.specification.training
    held_out = len(prepared.validation)
    assert training["config"]["mirror"] == "off"
    assert len(prepared.training) + held_out == training["rows"]


def test_a_run_is_resumed_with_the_images_it_was_started_with(config):
    training.train(config)
    training.train(replace(config, steps=3, resume=True))
    with pytest.raises(DiffpolicyError, match="started with mirror = auto, not off"):
        training.train(replace(config, mirror="off", steps=4, resume=True))


def test_a_run_without_images_goes_on_without(config):
    training.train(replace(config, mirror="off"))
    training.train(replace(config, steps=3, resume=True))
    trained = load_policy(config.out).specification.training
    assert (trained["step"], trained["config"]["mirror"]) == (3, "off")


@pytest.mark.parametrize(("mirror", "told"), [("auto", 1), ("off", 0)])
def test_images_are_told_at_the_start_and_by_info(config, capsys, mirror, told):
    training.train(replace(config, mirror=mirror))
    assert capsys.readouterr().out.count("their mirror images\n") == told
    info(InfoConfig(config.out))
    assert capsys.readouterr().out.count("4 episodes, 27 steps, with mirror images\n") == told


def test_a_constant_stays_one_in_an_image_with_rounding(tmp_path, config):
    arrays = joined()
    arrays["observation"][:, 2] = 0
    data = write_plainly(tmp_path / "constant", arrays, ENDS)
    prepared = prepare(replace(config, data=data, env_kwargs='{"mistake": "rounding"}'))
    constant = prepared.observation_normalizers["observation"].constant
    np.testing.assert_array_equal(constant, [np.nan, np.nan, 0])


def test_images_outside_the_action_space_are_told(config):
    [note] = prepare(replace(config, env_kwargs='{"mistake": "limits"}')).notes
    assert "mirrored, has" in note and "outside the action space" in note


@pytest.mark.parametrize(
    ("mistake", "message"),
    [
        ("raises", "of Symmetric-v0 failed: KeyError: 'left'"),
        ("nothing", "gave NoneType; expected a pair of arrays, observations and actions"),
        ("shape", r"gave observations of shape \[27, 2\]; expected \[27, 3\]"),
        ("infinite", r"gave actions\[0\] that are not finite"),
        ("turn", r"is no reflection: applied twice, it changes observations\[0\]"),
        ("projection", r"is no reflection: applied twice, it changes observations\[0\]"),
    ],
)
def test_a_function_that_is_no_reflection_is_refused(config, mistake, message):
    config = replace(config, env_kwargs=f'{{"mistake": "{mistake}"}}')
    with pytest.raises(DiffpolicyError, match=rf"store: mirrored .*{message}.*--mirror off"):
        prepare(config)
    prepare(replace(config, mirror="off"))
