"""Mirror images of demonstrations: used where they are declared, checked, and never held out."""

from dataclasses import replace

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from stores import ENDS, joined, write_plainly

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

    def mirrored(self, observations, actions):
        if self.mistake == "raises":
            raise KeyError("left")
        if self.mistake == "shape":
            return observations[:, :2], actions
        if self.mistake == "turn":
            return observations @ np.roll(np.eye(3), 1, axis=0), actions
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


@pytest.mark.parametrize(("first", "then"), [("auto", "off"), ("off", "auto")])
def test_a_run_is_resumed_with_the_images_it_was_started_with(config, first, then):
    training.train(replace(config, mirror=first))
    with pytest.raises(DiffpolicyError, match=f"started with mirror = {first}, not {then}"):
        training.train(replace(config, mirror=then, steps=3, resume=True))
    training.train(replace(config, mirror=first, steps=3, resume=True))


@pytest.mark.parametrize(("mirror", "told"), [("auto", 1), ("off", 0)])
def test_images_are_told_at_the_start_and_by_info(config, caplog, capsys, mirror, told):
    with caplog.at_level("INFO", "diffpolicy"):
        training.train(replace(config, mirror=mirror))
    assert caplog.text.count("training on 3 episodes and their mirror images") == told
    capsys.readouterr()
    info(InfoConfig(config.out))
    assert capsys.readouterr().out.count("4 episodes, 27 steps, with mirror images\n") == told


@pytest.mark.parametrize(
    ("mistake", "message"),
    [
        ("raises", "mirrored of Symmetric-v0 failed: KeyError: 'left'"),
        ("shape", r"gave arrays of shapes \[\[27, 2\], \[27, 2\]\]; expected finite .*27, 3"),
        ("infinite", "expected finite observations and actions"),
        ("turn", r"is no reflection: applied twice, it changes observations\[0\].*--mirror off"),
    ],
)
def test_a_function_that_is_no_reflection_is_refused(config, mistake, message):
    kwargs = f'{{"mistake": "{mistake}"}}'
    with pytest.raises(DiffpolicyError, match=message):
        prepare(replace(config, env_kwargs=kwargs))
    prepare(replace(config, env_kwargs=kwargs, mirror="off"))
