"""Weights of the 1D UNets of Diffusion Policy and LeRobot, which are the same network as ours.

Theirs condition each block by one linear layer of the time embedding and the observation end to
end; ours has one layer for each of the two, of all blocks.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from diffpolicy.config import ModelConfig
from diffpolicy.policies.foreign import move, take


class Names(NamedTuple):
    """Differences of the names: both convolutions of a block, and the resampling layers."""

    first: str
    second: str
    resample: str


LEROBOT = Names("conv1.block", "conv2.block", "2")
DIFFUSION_POLICY = Names("blocks.0.block", "blocks.1.block", "2.conv")


def unet_weights(
    theirs: dict[str, Tensor], names: Names, model: ModelConfig, scales: bool
) -> dict[str, Tensor]:
    """Weights by our names, removed from theirs.

    scales: the conditioning scales features as well as shifting them. Raises DiffpolicyError for a
    missing weight.
    """
    levels = len(model.unet_channels)
    blocks = {
        **{f"down_modules.{i}.{j}": f"down.{i}.{j}" for i in range(levels) for j in (0, 1)},
        **{f"mid_modules.{j}": f"middle.{j}" for j in (0, 1)},
        **{f"up_modules.{i}.{j}": f"up.{i}.{j}" for i in range(levels - 1) for j in (0, 1)},
    }
    layers = {
        **{f"diffusion_step_encoder.{i}": f"time.{i}" for i in (1, 3)},
        **{f"down_modules.{i}.{names.resample}": f"shrink.{i}" for i in range(levels - 1)},
        **{f"up_modules.{i}.{names.resample}": f"grow.{i}" for i in range(levels - 1)},
        **{f"final_conv.0.block.{i}": f"leave.0.{i}" for i in (0, 1)},
        "final_conv.1": "leave.1",
    }
    for block, ours in blocks.items():
        for part, convolution in ((names.first, "first"), (names.second, "second")):
            layers |= {f"{block}.{part}.{i}": f"{ours}.{convolution}.{i}" for i in (0, 1)}
        if f"{block}.residual_conv.weight" in theirs:
            layers[f"{block}.residual_conv"] = f"{ours}.skip"
    found = {}
    for name, ours in layers.items():
        found |= move(theirs, name, ours)
    return found | _films(theirs, [f"{block}.cond_encoder.1" for block in blocks], model, scales)


def _films(
    theirs: dict[str, Tensor], layers: list[str], model: ModelConfig, scales: bool
) -> dict[str, Tensor]:
    """The conditioning layers [2 · channels, time + observation] of all blocks, apart by columns.

    A conditioning that only shifts scales by 1: rows of zeros with a bias of 1.
    """
    weights = [take(theirs, f"{name}.weight") for name in layers]
    biases = [take(theirs, f"{name}.bias") for name in layers]
    if not scales:
        weights = [torch.cat([torch.zeros_like(w), w]) for w in weights]
        biases = [torch.cat([torch.ones_like(b), b]) for b in biases]
    joined = torch.cat(weights)
    return {
        "film_of_time.weight": joined[:, : model.condition],
        "film_of_observation.weight": joined[:, model.condition :],
        "film_of_observation.bias": torch.cat(biases),
    }
