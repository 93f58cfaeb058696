"""Cameras of Diffusion Policy's policies of pictures: options and weights of both its encoders.

The hybrid policy has robomimic's VisualCore: ResNet-18, spatial softmax, linear layer. The image
policy has MultiImageObsEncoder: a ResNet-18 of torchvision with its average pool.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from torch import Tensor

from diffpolicy.checked import validate
from diffpolicy.data.normalizer import Normalizer
from diffpolicy.errors import DiffpolicyError
from diffpolicy.policies.foreign import check_all_taken, move, refuse_others
from diffpolicy.policies.lerobot import ENCODER

RESNET, MODEL = "get_resnet", "obs_encoder.key_model_map"
MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])  # of ImageNet


@dataclass(frozen=True)
class MultiImage:
    """Options of MultiImageObsEncoder."""

    rgb_model: dict[str, Any]
    resize_shape: tuple[int, int] | None = None
    crop_shape: tuple[int, int] | None = None
    random_crop: bool = True
    use_group_norm: bool = False
    share_rgb_model: bool = False
    imagenet_norm: bool = False

    @property
    def crop(self) -> tuple[int, int] | None:
        """Height and width that the network sees; without random crops it sees the whole."""
        return self.crop_shape if self.random_crop else None

    @property
    def obs_encoder_group_norm(self) -> bool:
        """GroupNorm takes the place of BatchNorm; a shared network keeps its BatchNorm."""
        return self.use_group_norm and not self.share_rgb_model

    def normalizer(self, key: str, first: Normalizer) -> Normalizer:
        """The normaliser [C] of the policy, then that of ImageNet. Raises DiffpolicyError."""
        if not self.imagenet_norm:
            return first
        if first.scale.shape != MEAN.shape:
            raise DiffpolicyError(f"{key}: imagenet_norm needs 3 channels; got {len(first.scale)}")
        scale, offset = first.scale / STD, (first.offset - MEAN) / STD
        return replace(first, scale=scale.astype(np.float32), offset=offset.astype(np.float32))


def multi_image(options: dict[str, Any], where: str) -> MultiImage:
    """The options of an encoder. Raises DiffpolicyError for what the network here does not have."""
    kind, where = str(options.get("_target_")).rpartition(".")[2], f"{where}: obs_encoder"
    refuse_others(where, "the encoder", kind, ("MultiImageObsEncoder",))
    found: MultiImage = validate(MultiImage, options, where, others=True)
    model = str(found.rgb_model.get("_target_")).rpartition(".")[2]
    refuse_others(where, "rgb_model", model, (RESNET,))
    refuse_others(where, "rgb_model.name", found.rgb_model.get("name"), ("resnet18",))
    return found


def resnet(theirs: dict[str, Tensor], key: str, ours: str) -> dict[str, Tensor]:
    """Weights of a camera of MultiImageObsEncoder by our names, removed from theirs."""
    prefix = f"{MODEL}.{key}."
    names = [name for name in theirs if name.startswith(prefix)]
    return {f"{ours}.backbone.{n.removeprefix(prefix)}": theirs.pop(n) for n in names}


def visual_core(theirs: dict[str, Tensor], key: str, ours: str) -> dict[str, Tensor]:
    """Weights of robomimic's VisualCore by our names, removed from theirs.

    It lists its parts twice: by their names, and in `nets`, in order.
    """
    prefix = f"obs_encoder.obs_nets.{key}."
    mine = {n.removeprefix(prefix): theirs.pop(n) for n in list(theirs) if n.startswith(prefix)}
    found = move(mine, "nets.3", f"{ours}.out")
    for name in list(mine):
        place = name.replace("backbone.nets.", "backbone.", 1)
        for start, of_ours in ENCODER.items():
            if place.startswith(f"{start}."):
                found[f"{ours}.{of_ours}{place.removeprefix(start)}"] = mine.pop(name)
                break
    twice = [name for name in mine if name.startswith(("nets.0.nets.", "nets.1.nets."))]
    for name in twice:
        del mine[name]
    check_all_taken(mine, prefix.rstrip("."))
    return found
