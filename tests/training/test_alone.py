"""Training from a store alone: keys by name, facts that are asked for, and no environment made."""

from dataclasses import replace
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch
from stores import ENDS, joined, write_plainly

from diffpolicy import environment
from diffpolicy.checkpoint import TRAINING_FILE, load_policy, load_tensors
from diffpolicy.errors import DiffpolicyError
from diffpolicy.policy import Policy
from diffpolicy.specification import NO_ENVIRONMENT
from diffpolicy.training import train as training
from diffpolicy.training.config import TrainConfig
from diffpolicy.training.learner import Learner
from diffpolicy.training.preparation import prepare, read
from diffpolicy.training.train import train

SIDE = 16


def arrays() -> dict[str, np.ndarray]:
    """As recorded on a robot: two vectors, a number, a picture, and an outcome."""
    rng = np.random.default_rng(0)
    plain = joined()
    return {
        "observation.state": plain["observation"],
        "observation.image": rng.integers(0, 256, (27, SIDE, SIDE, 3), np.uint8),
        "gripper": rng.standard_normal(27),
        "keypoints": rng.standard_normal((27, 4, 2)),
        "reward": np.zeros(27, np.float32),
        "action": plain["action"],
    }


@pytest.fixture
def no_world(monkeypatch):
    """An environment that cannot be made."""

    def fail(*arguments, **options):
        raise AssertionError("an environment was made")

    monkeypatch.setattr(environment, "make", fail)
    monkeypatch.setattr(gymnasium, "make", fail)


@pytest.fixture
def config(tmp_path) -> TrainConfig:
    store = write_plainly(tmp_path / "store.zarr", arrays(), ENDS)
    small = {"hidden": 16, "blocks": 1, "device": "cpu", "batch": 8, "steps": 4}
    facts = {"env": NO_ENVIRONMENT, "control_dt": 0.1, "position_targets": True}
    return TrainConfig(data=store, out=tmp_path / "run", **small, **facts)


def test_every_array_but_actions_and_outcomes_is_a_key(config, no_world):
    task = prepare(config).specification.task
    shapes = {key: spec.shape for key, spec in task.observations.items()}
    assert shapes == {
        "gripper": (1,),
        "keypoints": (8,),
        "observation.image": (SIDE, SIDE, 3),
        "observation.state": (3,),
    }
    assert task.observations["observation.image"].is_picture
    assert (task.env_id, task.control_dt_s, task.position_targets) == (NO_ENVIRONMENT, 0.1, True)
    assert (task.action_dim, task.env_kwargs, task.camera) == (2, {}, None)


def test_keys_are_those_asked_for_in_their_order(config, no_world):
    _, observations, task, *_ = read(replace(config, obs=("keypoints", "observation.state")))
    assert list(observations) == list(task.observations) == ["keypoints", "observation.state"]
    assert np.array_equal(observations["observation.state"], arrays()["observation.state"])
    expected = arrays()["keypoints"].reshape(27, 8).astype(np.float32)
    assert np.array_equal(observations["keypoints"], expected)


def test_a_run_is_called_by_the_names_of_the_store(config, no_world):
    train(config)
    policy = Policy.load(config.out, ddim_steps=2)
    history = {key: np.zeros((1, 2, *s.shape), s.dtype) for key, s in policy.observations.items()}
    assert policy(history).shape == (1, 15, 2)
    with pytest.raises(DiffpolicyError, match="must hold gripper, keypoints"):
        policy(np.zeros((1, 2, 3)))


@pytest.mark.parametrize("engine", ["native", "onnx"])
def test_engines_take_vectors_by_name(config, engine):
    train(replace(config, obs=("gripper", "observation.state"), out=config.out.with_name(engine)))
    eager, other = (
        Policy.load(config.out.with_name(engine), ddim_steps=2, engine=name)
        for name in ("eager", engine)
    )
    history = {"gripper": np.ones((1, 2, 1)), "observation.state": np.ones((1, 2, 3))}
    noise = np.random.default_rng(0).standard_normal(eager.noise_shape(1), np.float32)
    assert np.abs(eager(history, noise) - other(history, noise)).max() < 1e-4


def test_a_run_that_was_interrupted_ends_with_the_same_weights(config, no_world, monkeypatch):
    train(config)
    whole = load_tensors(config.out / TRAINING_FILE)[0]
    again = replace(config, out=config.out.with_name("again"))
    learn = Learner.learn

    def crash(self, *arguments):
        if self.step == 2:
            raise RuntimeError("power cut")
        return learn(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(training, "SAVE_EVERY_S", 0.0)
        patch.setattr(Learner, "learn", crash)
        with pytest.raises(RuntimeError, match="power cut"):
            train(again)
    train(replace(again, resume=True))
    found = load_tensors(again.out / TRAINING_FILE)[0]
    assert all(torch.equal(found[name], whole[name]) for name in whole)
    with pytest.raises(DiffpolicyError, match="started with task"):
        train(replace(again, position_targets=False, resume=True))


@pytest.mark.parametrize(
    ("changes", "asked"),
    [
        ({"control_dt": None}, "does not declare the control period: give --control-dt SECONDS"),
        ({"position_targets": None}, "meaning of its actions: give --position-targets True"),
        ({"camera": 64}, "--camera needs an environment"),
        ({"env_kwargs": "{}"}, "--env-kwargs needs an environment"),
        ({"obs": ("gripper", "action")}, "--obs names action, the actions that the policy is to"),
        ({"obs": ("speed",)}, "has no data/speed; it holds: action, gripper"),
        ({"obs": ("gripper",), "colour_jitter": 0.5}, "--colour-jitter needs pictures"),
        ({"env": None}, "does not name its environment; give --env ID, or --env none"),
    ],
)
def test_an_option_that_is_missing_or_has_no_meaning_is_named(config, no_world, changes, asked):
    with pytest.raises(DiffpolicyError, match=asked):
        train(replace(config, **changes))
    assert not config.out.exists()


def test_attributes_of_the_store_are_used_and_options_override_them(balance_store, no_world):
    alone = TrainConfig(data=balance_store, out=Path("run"), env=NO_ENVIRONMENT)
    assert read(alone)[2].control_dt_s == 0.02
    assert list(read(alone)[2].observations) == ["observation"]
    changed = read(replace(alone, control_dt=0.5, position_targets=True))[2]
    assert (changed.control_dt_s, changed.position_targets) == (0.5, True)


def test_a_flat_store_is_prepared_as_with_its_environment(balance_store):
    whole = TrainConfig(data=balance_store, out=Path("run"))
    with_one, alone = prepare(whole), prepare(replace(whole, env=NO_ENVIRONMENT))
    task = with_one.specification.task
    assert alone.specification.task == replace(
        task, env_id=NO_ENVIRONMENT, env_kwargs={}, observation_keys=None
    )
    for name in ("observations", "actions", "newest"):
        ours, theirs = getattr(alone.training, name), getattr(with_one.training, name)
        if name == "observations":
            ours, theirs = ours["observation"], theirs["observation"]
        assert np.array_equal(ours, theirs)


def test_actions_are_no_observation_even_if_others_are_chosen(tmp_path):
    """A policy that sees the action of its own tick would copy it."""
    arrays = {**joined(), "action_velocity": joined()["action"]}
    store = write_plainly(tmp_path / "s.zarr", arrays, ENDS)
    facts = {"env": NO_ENVIRONMENT, "control_dt": 0.1, "position_targets": False}
    config = TrainConfig(data=store, out=tmp_path / "run", action="action_velocity", **facts)
    assert list(read(config)[2].observations) == ["observation"]


def test_what_needs_a_world_says_so_in_one_line(balance_store, tmp_path, call, refused):
    run = tmp_path / "run"
    small = ("--steps", 3, "--hidden", 16, "--blocks", 1, "--device", "cpu")
    done = call("train", "--data", balance_store, "--env", "none", *small, "--out", run)
    assert (done.code, "the policy observes observation [4]" in done.out) == (0, True)
    assert load_policy(run).specification.task.env_id == NO_ENVIRONMENT
    for command in ("eval", "delays"):
        line = refused(command, "--run", run, "--episodes", 1, "--engine", "eager")
        assert "this needs an environment, and there is none here; give --env ID" in line
    assert "give --env ID" in refused("sweep", "--run", run, "--ddim-steps", 1, 2)
    store = tmp_path / "new.zarr"
    assert "--env ID" in refused("record", "--env", "none", "--episodes", 1, "--out", store)
    assert not store.exists()


def test_a_run_is_evaluated_in_an_environment_that_fits(balance_store, tmp_path, call, refused):
    run = tmp_path / "run"
    small = ("--steps", 3, "--hidden", 16, "--blocks", 1, "--device", "cpu")
    call("train", "--data", balance_store, "--env", "none", *small, "--out", run)
    options = ("--episodes", 1, "--max-steps", 5, "--engine", "eager", "--workers", 1)
    done = call(*("eval", "--run", run, "--env", "diffpolicy.envs:Balance-v0"), *options)
    assert done.code == 0
    line = refused("eval", "--run", run, "--env", "diffpolicy.envs:Detour-v0", *options)
    assert "was trained for 4 and 1" in line


def test_an_environment_of_another_rate_is_asked_for(balance_store, tmp_path, call, refused):
    run = tmp_path / "run"
    small = ("--steps", 3, "--hidden", 16, "--blocks", 1, "--device", "cpu")
    slow = ("--env", "none", "--control-dt", 0.1)
    call("train", "--data", balance_store, *slow, *small, "--out", run)
    env = ("--env", "diffpolicy.envs:Balance-v0")
    options = ("--episodes", 1, "--max-steps", 5, "--engine", "eager", "--workers", 1)
    line = refused("eval", "--run", run, *env, *options)
    assert "has a control period of 0.02 s, the policy was trained for 0.1 s" in line
    assert call("eval", "--run", run, *env, *options, "--control-dt", 0.02).code == 0
