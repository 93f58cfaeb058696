"""Networks of common sizes with fresh weights, as checkpoints.

They predict v: with fresh weights, ε-prediction would clip every action and hide differences of
engines. The cost is the same.
"""

from typing import NamedTuple

import numpy as np
import torch

from diffpolicy.checkpoint import Checkpoint
from diffpolicy.config import ModelConfig
from diffpolicy.data.normalizer import Normalizer
from diffpolicy.denoisers import build
from diffpolicy.specification import Horizons, Specification, Task


class Net(NamedTuple):
    """A model with its horizons and dimensions."""

    model: ModelConfig
    horizons: Horizons
    observation_dim: int
    action_dim: int


def _unet(*channels: int) -> Net:
    model = ModelConfig(denoiser="unet", unet_channels=channels, condition=256, prediction="v")
    return Net(model, Horizons(2, 16, 8), 20, 2)


NETS = {
    "unet-large": _unet(256, 512, 1024),  # of Diffusion Policy
    "unet-small": _unet(64, 128, 256),
    "edifice": Net(ModelConfig(denoiser="concat", prediction="v"), Horizons(1, 8, 8), 287, 64),
    "mlp": Net(
        ModelConfig(denoiser="plain", hidden=256, blocks=3, condition=64, prediction="v"),
        Horizons(1, 8, 8),
        287,
        64,
    ),
    "default": Net(ModelConfig(prediction="v"), Horizons(2, 16, 8), 6, 2),  # on Push-T
}


def fresh_checkpoint(name: str, seed: int = 0) -> Checkpoint:
    """An untrained checkpoint of a network, for data in [-1, 1]."""
    model, horizons, observation_dim, action_dim = NETS[name]
    torch.manual_seed(seed)
    weights = build(model, horizons, observation_dim, action_dim).state_dict()
    task = Task("none", 0.1, True, observation_dim, action_dim)
    specification = Specification(model, horizons, task, 1.0, {})
    return Checkpoint(specification, weights, _same(observation_dim), _same(action_dim))


def _same(dims: int) -> Normalizer:
    """Identity."""
    return Normalizer(np.ones(dims, np.float32), np.zeros(dims, np.float32))
