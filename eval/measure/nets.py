"""Networks of common sizes with fresh weights, as checkpoints.

They predict v: with fresh weights, ε-prediction would clip every action and hide differences of
engines. The cost is the same.
"""

from dataclasses import replace
from typing import Literal, NamedTuple

import torch

from diffpolicy.checkpoint import Checkpoint
from diffpolicy.config import ModelConfig
from diffpolicy.data.normalizer import identity, pixels
from diffpolicy.denoisers import build_network
from diffpolicy.specification import (
    Horizons,
    ObservationSpec,
    Specification,
    Task,
    flat_observation,
    picture,
)


class Net(NamedTuple):
    """A model with its horizons, observations and action dimensions."""

    model: ModelConfig
    horizons: Horizons
    observations: dict[str, ObservationSpec]
    action_dim: int


def _unet(*channels: int) -> Net:
    model = ModelConfig(denoiser="unet", unet_channels=channels, condition=256, prediction="v")
    return Net(model, Horizons(2, 16, 8), flat_observation(20), 2)


def _with_camera(net: Net, encoder: Literal["cnn", "resnet18"]) -> Net:
    """The network on the two newest pictures of one camera and the position of an agent."""
    observations = {"image": picture(96, 96), "agent_pos": ObservationSpec((2,))}
    return net._replace(model=replace(net.model, encoder=encoder), observations=observations)


NETS = {
    "unet-large": _unet(256, 512, 1024),  # of Diffusion Policy
    "unet-small": _unet(64, 128, 256),
    "unet-large-image": _with_camera(_unet(256, 512, 1024), "resnet18"),  # of Diffusion Policy
    "unet-small-image": _with_camera(_unet(64, 128, 256), "cnn"),
    "edifice": Net(
        ModelConfig(denoiser="concat", prediction="v"), Horizons(1, 8, 8), flat_observation(287), 64
    ),
    "mlp": Net(
        ModelConfig(denoiser="plain", hidden=256, blocks=3, condition=64, prediction="v"),
        Horizons(1, 8, 8),
        flat_observation(287),
        64,
    ),
    "default": Net(ModelConfig(prediction="v"), Horizons(2, 16, 8), flat_observation(6), 2),
}


def fresh_checkpoint(name: str, seed: int = 0) -> Checkpoint:
    """An untrained checkpoint of a network, for data in [-1, 1]."""
    model, horizons, observations, action_dim = NETS[name]
    task = Task("none", 0.1, True, observations, action_dim)
    specification = Specification(model, horizons, task, 1.0, {})
    normalizers = {
        key: pixels(spec.shape[-1]) if spec.is_picture else identity(spec.size)
        for key, spec in observations.items()
    }
    torch.manual_seed(seed)
    weights = build_network(specification, normalizers).state_dict()
    return Checkpoint(specification, weights, normalizers, identity(action_dim))
