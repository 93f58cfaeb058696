"""Encoder: a dict of observation histories to one vector for the denoiser's observation FiLM.

It runs once for each replan. Vectors are joined as they are; each picture becomes features. Its
weights are those of the denoiser under the name `encoder`. Shapes: B batch, T_o observation
horizon, H, W and C of a picture, D_o encoded numbers of one tick.
"""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from diffpolicy.config import ModelConfig
from diffpolicy.data.normalizer import Normalizer, pixels
from diffpolicy.denoisers.pictures import CNN, SpatialSoftmax
from diffpolicy.denoisers.resnet import ResNet18
from diffpolicy.specification import ObservationSpec

BACKBONES = {"cnn": CNN, "resnet18": ResNet18}


class Encoder(nn.Module):
    """{key: [B, T_o, …]} -> [B, T_o · size], in the order of the keys.

    Vectors are normalised float32; pictures are uint8, of the size in the specification or cropped.
    """

    def __init__(
        self,
        model: ModelConfig,
        observations: Mapping[str, ObservationSpec],
        normalizers: Mapping[str, Normalizer],
    ):
        super().__init__()
        self.observations = dict(observations)
        cameras = {key: spec for key, spec in observations.items() if spec.is_picture}
        self.cameras = nn.ModuleDict()  # TODO shared
        for i, (key, spec) in enumerate(cameras.items()):
            self.cameras[str(i)] = Camera(model, spec, normalizers.get(key))
        self.of_key = {key: str(i) for i, key in enumerate(cameras)}
        self.size = sum(
            2 * model.keypoints if spec.is_picture else spec.size for spec in observations.values()
        )

    def forward(self, observation: Mapping[str, Tensor]) -> Tensor:
        """The encoded observation [B, C] with C = T_o · size."""
        parts = [self._features(key, observation[key]) for key in self.observations]
        return (parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)).flatten(1)

    def _features(self, key: str, history: Tensor) -> Tensor:
        if key not in self.of_key:
            return history
        return self.cameras[self.of_key[key]](history.flatten(0, 1)).unflatten(0, history.shape[:2])


class Camera(nn.Module):
    """Pictures [N, H, W, C] uint8 -> features [N, 2 · keypoints]."""

    scale: Tensor
    offset: Tensor

    def __init__(self, model: ModelConfig, spec: ObservationSpec, normalizer: Normalizer | None):
        super().__init__()
        height, width, channels = spec.shape
        self.crop = crop_size(height, model.crop), crop_size(width, model.crop)
        normalizer = normalizer or pixels(channels)
        for name in ("scale", "offset"):
            values = torch.as_tensor(np.array(getattr(normalizer, name)))
            self.register_buffer(name, values, persistent=False)
        self.backbone = BACKBONES[model.encoder](channels)
        self.pool = SpatialSoftmax(self.backbone.channels, model.keypoints)
        self.out = nn.Linear(2 * model.keypoints, 2 * model.keypoints)

    def forward(self, pictures: Tensor) -> Tensor:
        """[N, H, W, C] uint8, whole or cropped -> [N, 2 · keypoints]."""
        x = centre_crop(pictures, self.crop).to(self.scale.dtype) * self.scale + self.offset
        return torch.relu(self.out(self.pool(self.backbone(x.permute(0, 3, 1, 2)))))


def crop_size(side: int, share: float) -> int:
    """Side in px of the crop."""
    return max(1, round(share * side))


def centre_crop(pictures: Tensor, size: tuple[int, int]) -> Tensor:
    """The centre [N, h, w, C] of pictures [N, H, W, C]."""
    height, width = size
    top, left = ((n - m) // 2 for n, m in zip(pictures.shape[1:3], size, strict=True))
    return pictures[:, top : top + height, left : left + width]
