"""Small convolutional network for pictures, and the spatial softmax over features."""

import torch
from torch import Tensor, nn


class CNN(nn.Sequential):
    """[N, C, h, w] -> [N, 64, h / 8, w / 8], small enough to train on a CPU."""

    channels, smallest = 64, 9  # px of a side: two places for the spatial softmax

    def __init__(self, inputs: int):
        layers: list[nn.Module] = []
        for outputs, kernel, stride in ((16, 5, 2), (32, 3, 2), (64, 3, 2), (64, 3, 1)):
            convolution = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
            layers += [convolution, nn.GroupNorm(outputs // 16, outputs), nn.ReLU()]
            inputs = outputs
        super().__init__(*layers)


class SpatialSoftmax(nn.Module):
    """[N, C, h, w] -> [N, 2 · keypoints]: expected x, y of each keypoint in [-1, 1].

    Finn et al., arXiv 1509.06113, sec. IV-A; a 1 × 1 convolution makes the keypoints, as in
    robomimic.
    """

    def __init__(self, channels: int, keypoints: int):
        super().__init__()
        self.nets = nn.Conv2d(channels, keypoints, 1)

    def forward(self, features: Tensor) -> Tensor:
        """Softmax over the places of each keypoint, then the mean place."""
        heat = self.nets(features)
        height, width = heat.shape[-2:]
        weights = heat.flatten(2).softmax(-1).unflatten(-1, (height, width))
        x = torch.linspace(-1, 1, width, device=heat.device, dtype=heat.dtype)
        y = torch.linspace(-1, 1, height, device=heat.device, dtype=heat.dtype)
        places = [(weights.sum(2) * x).sum(-1), (weights.sum(3) * y).sum(-1)]
        return torch.stack(places, dim=-1).flatten(1)
