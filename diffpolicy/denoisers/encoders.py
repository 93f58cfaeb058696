"""Encoder: a dict of observation histories to one vector for the denoiser's observation FiLM.

It runs once for each replan. Vectors are joined as they are; each picture becomes features. Its
weights are those of the denoiser under the name `encoder`. Shapes: B batch, T_o observation
horizon, H, W and C of a picture, h and w of its crop, D_o encoded numbers of one tick.
"""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from diffpolicy.config import ModelConfig
from diffpolicy.data.normalizer import Normalizer, pixels
from diffpolicy.denoisers.committed import COMMITTED
from diffpolicy.denoisers.pictures import CNN, SpatialSoftmax
from diffpolicy.denoisers.resnet import FoldedResNet18, ResNet18
from diffpolicy.errors import DiffpolicyError
from diffpolicy.specification import ObservationSpec

BACKBONES = {"cnn": CNN, "resnet18": ResNet18, "resnet18-folded": FoldedResNet18}


class Encoder(nn.Module):
    """{key: [B, T_o, …]} -> [B, T_o · size], in the order of the keys.

    Vectors are normalised float32; pictures are uint8, or floats of 0 to 255, of the size in the
    specification or cropped. With a prefix, `prefix_max` D > 0, the committed actions [B, D, D_a +
    1] come after the keys. Raises DiffpolicyError for observations that the network cannot encode.
    """

    def __init__(
        self,
        model: ModelConfig,
        observations: Mapping[str, ObservationSpec],
        normalizers: Mapping[str, Normalizer],
    ):
        super().__init__()
        self.observations, self.prefix_max = dict(observations), model.prefix_max
        if self.prefix_max and COMMITTED in self.observations:
            raise DiffpolicyError(
                f"an observation cannot be named {COMMITTED!r} with --prefix-max, which adds it"
            )
        pictures = {key: spec for key, spec in observations.items() if spec.is_picture}
        crops = {key: _crop(model, key, spec) for key, spec in pictures.items()}
        self.crops = {key: crop[2:] for key, crop in crops.items()}
        channels = [spec.shape[-1] for spec in pictures.values()]
        if model.share_encoder:
            _check_alike(pictures)
            channels = channels[:1]
        self.cameras = nn.ModuleList(Camera(model, c) for c in channels)
        self.inputs = nn.ModuleList(
            Floats(crops[key], normalizers.get(key) or pixels(spec.shape[-1]))
            for key, spec in pictures.items()
        )
        self.places = {key: (i, i % len(self.cameras)) for i, key in enumerate(pictures)}
        self.size = sum(
            _features(model) if spec.is_picture else spec.size for spec in observations.values()
        )

    def forward(self, observation: Mapping[str, Tensor]) -> Tensor:
        """The encoded observation [B, C], C = T_o · size, and D (D_a + 1) more with a prefix."""
        parts = [
            self.features(key, observation[key]) if key in self.crops else observation[key]
            for key in self.observations
        ]
        encoded = (parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)).flatten(1)
        if not self.prefix_max:
            return encoded
        return torch.cat([encoded, observation[COMMITTED].flatten(1)], dim=-1)

    def features(self, key: str, history: Tensor) -> Tensor:
        """Features [B, T_o, camera's size] of one camera's pictures [B, T_o, H, W, C]."""
        i, camera = self.places[key]
        x = self.inputs[i](history.flatten(0, 1))
        return self.cameras[camera](x).unflatten(0, history.shape[:2])


class Camera(nn.Module):
    """[N, C, h, w] -> [N, 2 · keypoints], as in Diffusion Policy (arXiv 2303.04137, sec. 3.2).

    Without keypoints: [N, channels of the backbone], the average over all places.
    """

    def __init__(self, model: ModelConfig, channels: int):
        super().__init__()
        self.backbone = BACKBONES[model.encoder](channels)
        self.pool = self.out = None
        if model.keypoints:
            self.pool = SpatialSoftmax(self.backbone.channels, model.keypoints)
            self.out = nn.Linear(_features(model), _features(model))

    def forward(self, x: Tensor) -> Tensor:
        """Features of the places of the keypoints, or the average."""
        found = self.backbone(x)
        if self.pool is None or self.out is None:
            return found.mean((2, 3))
        return torch.relu(self.out(self.pool(found)))


class Floats(nn.Module):
    """Pictures [N, H, W, C] of 0 to 255 -> the normalised crop [N, C, h, w] float32.

    crop: top, left, h and w; pictures of this size are already cropped.
    """

    scale: Tensor
    offset: Tensor

    def __init__(self, crop: tuple[int, int, int, int], normalizer: Normalizer):
        super().__init__()
        self.corner, self.size = crop[:2], crop[2:]
        for name in ("scale", "offset"):
            of_row = np.tile(getattr(normalizer, name), crop[3])  # [w · C]
            self.register_buffer(name, torch.as_tensor(of_row), persistent=False)

    def forward(self, pictures: Tensor) -> Tensor:
        """The normalised crops, channels last in memory.

        Whole rows are changed in place, which is faster on a CPU.
        """
        height, width = self.size
        top, left = (0, 0) if pictures.shape[1:3] == self.size else self.corner
        seen = pictures[:, top : top + height, left : left + width]
        rows = seen.flatten(2).to(self.scale.dtype, copy=True)
        x = rows.mul_(self.scale).add_(self.offset)
        return x.unflatten(2, (width, -1)).permute(0, 3, 1, 2)


def layer_outputs(model: ModelConfig, observations: Mapping[str, ObservationSpec]) -> list[int]:
    """Numbers of one tick's pictures as floats and after each layer with weights, in order.

    Counted without memory, on the device meta. Layers of norms and activations are left out.
    """
    counts: list[int] = []

    def count(module: nn.Module, inputs: object, output: Tensor) -> None:
        counts.append(output.numel())

    with torch.device("meta"):
        encoder = Encoder(model, observations, {})
        for module in encoder.modules():
            if isinstance(module, Floats | nn.Conv2d | nn.Linear):
                module.register_forward_hook(count)
        for key in encoder.crops:
            encoder.features(key, torch.empty(1, 1, *observations[key].shape))
    return counts


def _features(model: ModelConfig) -> int:
    """Features of a picture."""
    return 2 * model.keypoints or BACKBONES[model.encoder].channels


def _crop(model: ModelConfig, key: str, spec: ObservationSpec) -> tuple[int, int, int, int]:
    """Top, left, height and width of the crop of a camera."""
    height, width = spec.crop[2:] if spec.crop else (round(model.crop * n) for n in spec.shape[:2])
    smallest = BACKBONES[model.encoder].smallest
    if min(height, width) < smallest:
        raise DiffpolicyError(
            f"{key}: a crop of {height} × {width} px is too small for --encoder {model.encoder}; "
            f"expected at least {smallest} × {smallest}; try larger pictures or a larger --crop"
        )
    centre = (spec.shape[0] - height) // 2, (spec.shape[1] - width) // 2
    return *(spec.crop[:2] if spec.crop else centre), height, width


def _check_alike(pictures: Mapping[str, ObservationSpec]) -> None:
    if len({spec.shape for spec in pictures.values()}) > 1:
        shapes = ", ".join(f"{key} {list(spec.shape)}" for key, spec in pictures.items())
        raise DiffpolicyError(
            f"--share-encoder needs cameras of the same shape; got {shapes}; try --no-share-encoder"
        )
