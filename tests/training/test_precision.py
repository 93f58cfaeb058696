"""Laws of the precision of training: near float32, chosen once, kept by the run."""

from dataclasses import replace

import pytest
import torch

from diffpolicy.checkpoint import TRAINING_FILE, load_policy, load_training
from diffpolicy.errors import DiffpolicyError
from diffpolicy.training import choices, precision
from diffpolicy.training import train as training
from diffpolicy.training.config import TrainConfig
from diffpolicy.training.learner import Learner
from diffpolicy.training.measuring import Measured, measure
from diffpolicy.training.precision import AUTO, BFLOAT16, FLOAT32, PRECISIONS, pays
from diffpolicy.training.preparation import prepare


@pytest.fixture
def config(balance_store, tmp_path) -> TrainConfig:
    small = {"hidden": 32, "blocks": 1, "batch": 32, "threads": 1}
    return TrainConfig(data=balance_store, out=tmp_path / "run", steps=20, **small)


@pytest.fixture
def prepared(config):
    return prepare(config)


def learner_of(prepared) -> Learner:
    return Learner(prepared.specification, torch.device("cpu"))


def gradients(prepared, name: str) -> tuple[float, torch.Tensor]:
    learner = learner_of(prepared)
    learner.precision = name
    loss = learner.backward(prepared.training, 512)
    found = [p.grad for p in learner.parameters if p.grad is not None]
    assert len(found) == len(learner.parameters)
    return float(loss), torch.cat([gradient.flatten() for gradient in found])


def test_bfloat16_has_nearly_the_loss_and_the_gradient_of_float32(prepared):
    (loss, gradient), (near, like) = (gradients(prepared, name) for name in (FLOAT32, BFLOAT16))
    assert loss != near == pytest.approx(loss, rel=0.01)
    assert gradient.dtype == like.dtype == torch.float32
    assert torch.cosine_similarity(gradient, like, dim=0) > 0.999


def test_weights_average_and_moments_stay_float32(config):
    training.train(replace(config, precision=BFLOAT16))
    tensors, _ = load_training(config.out / TRAINING_FILE)
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float32}


def test_measuring_learns_nothing(config, prepared):
    trainer = training.Trainer(config, prepared, torch.device("cpu"))
    before = {name: tensor.clone() for name, tensor in trainer.learner.tensors().items()}

    def gradient(name: str) -> float:
        trainer.learner.precision = name
        return trainer.gradient()

    found = measure(gradient, *PRECISIONS)
    assert found.gain > 0 and found.deviation < 0.02 and trainer.learner.step == 0
    after = trainer.learner.tensors()
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize(("gain", "wanted"), [(1.14, False), (1.15, True), (0.1, False)])
def test_bfloat16_has_to_be_clearly_faster(gain, wanted):
    assert pays(Measured(FLOAT32, BFLOAT16, gain, 0.0)) == wanted


def test_a_long_run_takes_what_is_measured_says_it_and_keeps_it(config, monkeypatch, capsys):
    monkeypatch.setattr(precision, "LONG_STEPS", config.steps)
    monkeypatch.setattr(choices, "measure", lambda _, *names: Measured(*names, 2.0, 0.001))
    training.train(config)
    assert "precision: bfloat16: bfloat16 takes 0.50 of the time" in capsys.readouterr().out
    assert load_policy(config.out).specification.training["precision"] == BFLOAT16
    monkeypatch.setattr(choices, "measure", None)
    training.train(replace(config, steps=30, resume=True))
    assert load_policy(config.out).specification.training["precision"] == BFLOAT16


def test_a_short_run_is_not_measured(config, monkeypatch):
    monkeypatch.setattr(choices, "measure", None)
    training.train(config)
    assert load_policy(config.out).specification.training["precision"] == FLOAT32


def test_a_run_is_not_resumed_in_another_precision(config):
    training.train(replace(config, precision=BFLOAT16))
    with pytest.raises(DiffpolicyError, match="precision = bfloat16, not float32"):
        training.train(replace(config, precision=FLOAT32, steps=30, resume=True))


def test_an_interrupted_run_in_bfloat16_ends_like_an_uninterrupted_one(config, monkeypatch):
    once = replace(config, precision=BFLOAT16)
    twice = replace(once, out=config.out.with_name("twice"))
    training.train(once)
    monkeypatch.setattr(training, "SAVE_EVERY_S", 0.0)
    learn = Learner.learn

    def crash(self, *arguments):
        if self.step == 9:
            raise RuntimeError("power cut")
        return learn(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Learner, "learn", crash)
        with pytest.raises(RuntimeError):
            training.train(twice)
    training.train(replace(twice, precision=AUTO, resume=True))
    ours, theirs = (load_training(c.out / TRAINING_FILE)[0] for c in (once, twice))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
