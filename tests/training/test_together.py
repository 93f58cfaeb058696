"""Laws of trainings taken at once: each is the training that it is alone, but for float noise."""

import numpy as np
import pytest
import torch

from diffpolicy.config import ModelConfig
from diffpolicy.data.windows import Windows, make_windows
from diffpolicy.specification import FLAT, Horizons, Specification, Task, flat_observation
from diffpolicy.training.learner import Learner
from diffpolicy.training.precision import BFLOAT16
from diffpolicy.training.together import Together

CPU = torch.device("cpu")
MODELS = [
    {},
    {"position_targets": True},
    {"denoiser": "unet"},
    {"objective": "regression"},
    {"objective": "mip"},
    {"schedule": "flow", "prediction": "velocity"},
    {"prefix_max": 2},
    {"observation_noise": 0.5},
]
HORIZONS, SEEDS, BATCH, STEPS = Horizons(2, 8, 4), (5, 0, 3), 16, 20


def learner(seed: int, device: torch.device = CPU, **model) -> Learner:
    noise = model.pop("observation_noise", 0.0)
    task = Task("none", 0.1, model.pop("position_targets", False), flat_observation(3), 2)
    small = {"hidden": 32, "blocks": 1, "condition": 32, "unet_channels": (8, 16)}
    specification = Specification(ModelConfig(**small | model), HORIZONS, task, 1.0, {})
    return Learner(specification, device, lr=1e-3, seed=seed, observation_noise=noise)


def windows(seed: int) -> Windows:
    rng, ends = np.random.default_rng(seed), np.array([30, 70])
    observations = rng.standard_normal((70, 3)).astype(np.float32)
    return make_windows({FLAT: observations}, np.tanh(observations[:, :2]), ends, HORIZONS)


def alone(seed: int, steps: int = STEPS, **model) -> Learner:
    found = learner(seed, **model)
    for step in range(steps):
        found.learn(windows(seed), BATCH, step / STEPS)
    return found


def assert_same(ours: Learner, theirs: Learner, atol: float = 1e-5) -> None:
    a, b = ours.tensors(), theirs.tensors()
    assert ours.step == theirs.step and a.keys() == b.keys()
    for name in a:
        torch.testing.assert_close(a[name], b[name], atol=atol, rtol=1e-4)


@pytest.mark.parametrize("model", MODELS, ids=str)
def test_each_seed_ends_as_it_does_alone(model):
    learners = [learner(seed, **model) for seed in SEEDS]
    together = Together(learners)
    losses = [together.learn([*map(windows, SEEDS)], BATCH, s / STEPS) for s in range(STEPS)]
    assert losses[0].shape == (3,)
    for ours, seed in zip(learners, SEEDS, strict=True):
        assert_same(ours, alone(seed, **model), 1e-4 if "denoiser" in model else 1e-5)


def test_the_losses_are_those_of_each_seed():
    losses = Together([learner(seed) for seed in SEEDS]).backward([*map(windows, SEEDS)], BATCH)
    found = [learner(seed).backward(windows(seed), BATCH) for seed in SEEDS]
    torch.testing.assert_close(losses, torch.stack(found))


def test_a_seed_can_go_on_alone_and_one_alone_can_go_on_with_others():
    learners = [learner(seed) for seed in SEEDS]
    together = Together(learners)
    for step in range(8):
        together.learn([*map(windows, SEEDS)], BATCH, step / STEPS)
    restored = [learner(seed) for seed in SEEDS]
    for new, old in zip(restored, learners, strict=True):
        new.restore({n: x.clone() for n, x in old.tensors().items()}, old.step)
    again = Together(restored)
    for step in range(8, STEPS):
        again.learn([*map(windows, SEEDS)], BATCH, step / STEPS)
    for ours, seed in zip(restored, SEEDS, strict=True):
        assert_same(ours, alone(seed))
        ours.validation_loss(windows(seed))


def test_bfloat16_is_near_the_training_alone():
    learners = [learner(seed) for seed in SEEDS]
    for each in learners:
        each.precision = BFLOAT16
    together = Together(learners)
    for step in range(STEPS):
        together.learn([*map(windows, SEEDS)], BATCH, step / STEPS)
    for ours, seed in zip(learners, SEEDS, strict=True):
        torch.testing.assert_close(
            ours.tensors()["network.enter.weight"],
            alone(seed).tensors()["network.enter.weight"],
            atol=0.01,
            rtol=0,
        )
