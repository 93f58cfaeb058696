"""A small policy with two cameras and a vector, with fresh weights."""

import numpy as np
import torch

from diffpolicy.checkpoint import Checkpoint
from diffpolicy.config import ModelConfig, Sampling
from diffpolicy.data.normalizer import identity, pixels
from diffpolicy.denoisers import build_network
from diffpolicy.policy import Policy
from diffpolicy.specification import (
    Horizons,
    ObservationSpec,
    Specification,
    Task,
    picture,
)

SIDE, CHANNELS = 24, 3
OBSERVATIONS = {
    "wrist": picture(SIDE, SIDE, CHANNELS),
    "pose": ObservationSpec((2,)),
    "front": picture(SIDE, SIDE + 8, CHANNELS),
}
SMALL = {"hidden": 24, "blocks": 1, "condition": 8, "keypoints": 4, "prediction": "v"}


def checkpoint(seed: int = 0, **model) -> Checkpoint:
    """Two cameras around a vector, so that the order of the keys matters."""
    task = Task("none", 0.1, True, OBSERVATIONS, 2)
    config = ModelConfig(**{**SMALL, **model})
    specification = Specification(config, Horizons(2, 8, 4), task, 1.0, {})
    normalizers = {k: pixels(3) if s.is_picture else identity(2) for k, s in OBSERVATIONS.items()}
    torch.manual_seed(seed)
    weights = build_network(specification, normalizers).state_dict()
    return Checkpoint(specification, weights, normalizers, identity(2))


def policy(engine: str = "eager", steps: int = 3, **options) -> Policy:
    """A policy of the checkpoint with that many steps."""
    return Policy(checkpoint(), Sampling(steps), engine=engine, **options)


def observation(batch: int = 1, seed: int = 0) -> dict[str, np.ndarray]:
    """Random histories {key: [B, T_o, …]}."""
    rng, found = np.random.default_rng(seed), {}
    for key, spec in OBSERVATIONS.items():
        shape = (batch, 2, *spec.shape)
        drawn = rng.integers(0, 256, shape) if spec.is_picture else rng.uniform(-1, 1, shape)
        found[key] = drawn.astype(spec.dtype)
    return found


def noise(policy: Policy, batch: int = 1, seed: int = 0) -> np.ndarray:
    """Standard normal noise of one call."""
    rng = np.random.default_rng(seed)
    return rng.standard_normal(policy.noise_shape(batch), np.float32)
