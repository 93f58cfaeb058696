"""Networks at the sizes that people use, with fresh weights, as policies: no checkpoint needed.

They predict v: under ε-prediction fresh weights drive every action into the clip, where engines
could differ unseen. The cost is the same.
"""

from typing import NamedTuple

import torch

from diffpolicy.checkpoint import Checkpoint
from diffpolicy.config import ModelConfig
from diffpolicy.data.normalizer import identity
from diffpolicy.denoisers import build
from diffpolicy.specification import FLAT, Horizons, Specification, Task, flat_observation


class Net(NamedTuple):
    """A model and what it takes and gives."""

    model: ModelConfig
    horizons: Horizons
    observation_dim: int
    action_dim: int


def _unet(*channels: int) -> Net:
    model = ModelConfig(denoiser="unet", unet_channels=channels, condition=256, prediction="v")
    return Net(model, Horizons(2, 16, 8), 20, 2)


NETS = {
    "unet-large": _unet(256, 512, 1024),  # Diffusion Policy's
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
    """An untrained checkpoint of a net, its data in [-1, 1] already."""
    model, horizons, observation_dim, action_dim = NETS[name]
    torch.manual_seed(seed)
    weights = build(model, horizons, observation_dim, action_dim).state_dict()
    task = Task("none", 0.1, True, flat_observation(observation_dim), action_dim)
    specification = Specification(model, horizons, task, 1.0, {})
    return Checkpoint(
        specification, weights, {FLAT: identity(observation_dim)}, identity(action_dim)
    )
