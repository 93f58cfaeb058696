"""Training with pictures: exact resume, one loss for all batches, memory counted."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from stores import write_plainly
from test_preparation_pictures import ENDS, arrays

from diffpolicy.checkpoint import TRAINING_FILE, Checkpoint, load_policy, load_tensors
from diffpolicy.config import ModelConfig
from diffpolicy.data.windows import Windows, make_windows
from diffpolicy.denoisers.pretrained import read_convolutions
from diffpolicy.denoisers.resnet import ResNet18
from diffpolicy.errors import DiffpolicyError
from diffpolicy.policy import Policy
from diffpolicy.specification import (
    Horizons,
    ObservationSpec,
    Specification,
    Task,
    flat_observation,
    picture,
)
from diffpolicy.training import distill as distillation
from diffpolicy.training import train as training
from diffpolicy.training.config import DistillConfig, TrainConfig
from diffpolicy.training.learner import DRAWS, Learner, bytes_needed
from diffpolicy.training.preparation import prepare

HORIZONS = Horizons(2, 8, 4)
MODEL = ModelConfig(hidden=16, blocks=1, condition=8, keypoints=4)
OBSERVATIONS = {"image": picture(16, 16), "state": ObservationSpec((2,))}
TASK = Task("none", 0.1, True, OBSERVATIONS, 2)
CPU = torch.device("cpu")


def specification(model: ModelConfig = MODEL, task: Task = TASK) -> Specification:
    return Specification(model, HORIZONS, task, 1.0, {})


def windows() -> Windows:
    """Twelve episodes with pictures of a dot at rest, and its place as the action."""
    rng = np.random.default_rng(0)
    state = np.repeat(rng.uniform(-1, 1, (12, 2)), 5, axis=0).astype(np.float32)
    pictures = np.full((60, 16, 16, 3), 255, np.uint8)
    column, row = np.round(7.5 + 5 * state).astype(int).T
    pictures[np.arange(60), row, column] = 0
    observations = {"image": pictures, "state": state}
    return make_windows(observations, state.copy(), 5 * np.arange(1, 13), HORIZONS)


def trained(steps: int, learner: Learner | None = None, colour: float = 0.3) -> Learner:
    learner = learner or Learner(specification(), CPU, colour_jitter=colour)
    for _ in range(steps):
        learner.learn(windows(), 16, 0.0)
    return learner


def test_resumed_training_ends_with_the_same_bytes():
    whole, half = trained(6), trained(3)
    saved = {name: tensor.clone() for name, tensor in half.tensors().items()}
    assert saved.keys() == half.restorable(3).keys()
    again = Learner(specification(), CPU, colour_jitter=0.3)
    again.restore(saved, 3)
    found = trained(3, again).tensors()
    for name, tensor in trained(6).tensors().items():
        assert torch.equal(tensor, whole.tensors()[name]) and torch.equal(tensor, found[name])


def test_crops_and_colours_are_drawn_anew_in_each_step_and_not_in_validation():
    learner, data = trained(0), windows()
    draws = [
        learner.loss(learner.network, data, 60, learner.generator(0), augmented=True)
        for _ in (0, 1)
    ]
    assert draws[0] == draws[1]
    centre = learner.loss(learner.network, data, 60, learner.generator(0))
    assert centre != draws[0]
    assert learner.validation_loss(data) == learner.validation_loss(data)
    plain = Learner(specification(), CPU)
    assert plain.loss(plain.network, data, 60, plain.generator(0)) == centre


def test_each_window_is_encoded_once_for_several_noisy_chunks():
    learner, data, seen = trained(0), windows(), []

    def network(x, t, encoded):
        seen.append((x, t, encoded))
        return learner.network(x, t, encoded)

    learner.loss(network, data, 5, learner.generator(0), augmented=True)
    [(x, t, encoded)] = seen
    assert len(x) == len(t) == len(encoded) == 5 * DRAWS
    groups = encoded.view(5, DRAWS, -1)
    assert torch.equal(groups[:, :1].expand_as(groups), groups)
    assert len(x.flatten(1).unique(dim=0)) == 5 * DRAWS


def test_the_ema_and_the_state_hold_the_encoder():
    learner = trained(2)
    names = [name for name in learner.ema if name.startswith("encoder.cameras.0.")]
    assert names and all(f"adam.exp_avg.{name}" in learner.tensors() for name in names)
    assert not [name for name in learner.network.state_dict() if name not in learner.ema]


def test_learning_from_pictures_lowers_the_loss():
    task = replace(TASK, observations={"image": picture(16, 16)})
    data = windows()
    del data.observations["state"]
    learner = Learner(specification(replace(MODEL, objective="regression"), task), CPU, lr=3e-3)
    before = learner.validation_loss(data)
    for _ in range(250):
        learner.learn(data, 32, 0.0)
    assert learner.validation_loss(data) < 0.2 * before


@pytest.mark.parametrize("encoder", ["cnn", "resnet18"])
def test_memory_grows_with_pictures(encoder):
    model = replace(MODEL, encoder=encoder)
    sizes = [
        bytes_needed(specification(model, replace(TASK, observations=observations)), batch)
        for observations, batch in (
            ({"image": picture(96, 96)}, 8),
            ({"image": picture(96, 96)}, 16),
            ({"image": picture(96, 96), "side": picture(96, 96)}, 8),
            (flat_observation(3), 8),
        )
    ]
    crop_of_a_tick = 84 * 84 * 3 * 4 + 96 * 96 * 3
    assert sizes[1] - sizes[0] > 8 * 2 * 2 * crop_of_a_tick
    assert sizes[2] > sizes[0] > sizes[3]


@pytest.fixture
def config(tmp_path) -> TrainConfig:
    """Six steps on pictures of 16 × 16 and positions."""
    small = {"hidden": 16, "blocks": 1, "condition": 8, "keypoints": 4, "threads": 1}
    return TrainConfig(
        data=write_plainly(tmp_path / "store", arrays(), ENDS),
        out=tmp_path / "run",
        env="Seen-v0",
        steps=6,
        colour_jitter=0.2,
        device="cpu",
        **small,
    )


def test_an_interrupted_run_is_resumed_bit_for_bit(config, tmp_path, monkeypatch):
    training.train(replace(config, out=tmp_path / "whole"))
    monkeypatch.setattr(training, "SAVE_EVERY_S", 0.0)
    learn = Learner.learn

    def crash(self, *arguments):
        if self.step == 3:
            raise RuntimeError("power cut")
        return learn(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Learner, "learn", crash)
        with pytest.raises(RuntimeError, match="power cut"):
            training.train(config)
    training.train(replace(config, resume=True))
    whole, resumed = (load_tensors(tmp_path / r / TRAINING_FILE)[0] for r in ("whole", "run"))
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    policy = Policy.load(config.out, ddim_steps=2)
    assert policy.specification.training["config"]["batch"] == 64
    image = np.zeros((1, 2, 16, 16, 3), np.uint8)
    assert policy({"agent_pos": np.zeros((1, 2, 2)), "image": image}).shape == (1, 15, 2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"crop": 0.5}, "--encoder cnn"),
        ({"encoder": "resnet18"}, "image: a crop of 14 × 14 px is too small"),
        ({"colour_jitter": 0.1}, "was started with colour_jitter = 0.2, not 0.1"),
        ({"keypoints": 5}, "was started with keypoints = 4, not 5"),
    ],
)
def test_options_that_do_not_fit_the_run_or_the_pictures_are_refused(config, change, message):
    training.train(replace(config, steps=1))
    with pytest.raises(DiffpolicyError, match=message):
        training.train(replace(config, resume=True, **change))


def ones(path: Path) -> Path:
    """A file of a ResNet-18 whose convolutions are all 1."""
    weights = ResNet18(3).state_dict().items()
    save_file({name: torch.ones_like(w) for name, w in weights if w.ndim == 4}, path)
    return path


def test_weights_of_the_encoder_are_for_the_first_step_of_a_resnet(config, tmp_path):
    start = read_convolutions(ones(tmp_path / "weights"))
    model = replace(MODEL, encoder="resnet18")
    task = replace(TASK, observations={"image": picture(40, 40)})
    learner = Learner(specification(model, task), CPU, encoder_weights=start)
    name = "encoder.cameras.0.backbone.layer4.1.conv2.weight"
    assert learner.ema[name].eq(1).all() and learner.network.state_dict()[name].eq(1).all()
    training.train(config)
    resumed = replace(config, encoder_weights=tmp_path / "gone", resume=True, steps=7)
    assert training.encoder_weights(resumed) is None
    training.train(resumed)


@pytest.mark.parametrize(
    ("encoder", "name", "message"),
    [
        ("cnn", "weights", "--encoder-weights needs --encoder resnet18; got --encoder cnn"),
        ("resnet18", "gone", "gone is not a file"),
        ("resnet18", "text", "text is corrupt or not a safetensors file"),
        ("resnet18", "other", "other does not fit a ResNet-18 .*'conv1.weight'"),
    ],
)
def test_weights_of_the_encoder_are_checked_before_the_store_is_read(
    config, tmp_path, monkeypatch, encoder, name, message
):
    ones(tmp_path / "weights")
    (tmp_path / "text").write_text("weights")
    save_file({"conv1.weight": torch.zeros(64, 5, 7, 7)}, tmp_path / "other")
    monkeypatch.setattr(training, "prepare", None)
    with pytest.raises(DiffpolicyError, match=message):
        training.train(replace(config, encoder=encoder, encoder_weights=tmp_path / name))
    assert not config.out.exists()


def test_a_resumed_run_keeps_the_origin_of_its_weights(config, tmp_path, monkeypatch):
    begun, weights = [], ones(tmp_path / "weights")

    def begin(config, prepared, *_):
        begun.append(prepared)
        raise KeyboardInterrupt

    monkeypatch.setattr(training, "Trainer", begin)
    with pytest.raises(KeyboardInterrupt):
        training.train(replace(config, encoder="resnet18", encoder_weights=weights))
    [first] = begun
    origin = {"path": str(weights), "digest": first.start.digest}
    assert first.specification.training["encoder_weights"] == origin
    normalizers = first.observation_normalizers, first.action_normalizer
    resumed = prepare(config, Checkpoint(first.specification, {}, *normalizers))
    assert resumed.specification.training["encoder_weights"] == origin
    assert prepare(config).specification.training["encoder_weights"] is None


def test_training_from_disk_gives_the_weights_of_training_from_memory(config):
    runs = [replace(config, out=config.out / name) for name in ("held", "stored")]
    for run, memory in zip(runs, (1.0, 0.0), strict=True):
        training.train(replace(run, picture_memory=memory, steps=3))
    held, stored = (load_tensors(run.out / TRAINING_FILE)[0] for run in runs)
    assert all(torch.equal(held[name], stored[name]) for name in held)


def test_a_run_with_pictures_is_distilled(config, tmp_path, monkeypatch):
    monkeypatch.setattr(distillation, "PAIRS", 20)
    training.train(replace(config, prediction="x0"))
    student = tmp_path / "student"
    distillation.distill(
        DistillConfig(config.out, student, teacher_steps=3, steps=2, threads=1, device="cpu")
    )
    specification = load_policy(student).specification
    assert specification.model.objective == "distilled"
    assert specification.training["config"]["colour_jitter"] == 0.2
    assert Policy.load(student, ddim_steps=1).network_evals == 1
