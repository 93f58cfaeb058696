"""ResNet-18 without its head (He et al., arXiv 1512.03385), with GroupNorm for BatchNorm."""

import torch
from torch import Tensor, nn


class ResNet18(nn.Module):
    """[N, C, h, w] -> [N, 512, h / 32, w / 32]; parameters have torchvision's names."""

    channels, smallest = 512, 33  # px of a side: two places for the spatial softmax
    normed = True  # or biases in the convolutions

    def __init__(self, inputs: int):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, 64, 7, 2, 3, bias=not self.normed)
        self.bn1 = _norm(64, self.normed)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        self.layer1 = self._layer(64, 64, 1)
        self.layer2 = self._layer(64, 128, 2)
        self.layer3 = self._layer(128, 256, 2)
        self.layer4 = self._layer(256, 512, 2)

    def _layer(self, inputs: int, outputs: int, stride: int) -> nn.Sequential:
        blocks = ((inputs, stride), (outputs, 1))
        return nn.Sequential(*(Block(n, outputs, step, self.normed) for n, step in blocks))

    def forward(self, x: Tensor) -> Tensor:
        """Features before the average pool."""
        x = self.maxpool(torch.relu(self.bn1(self.conv1(x))))
        return self.layer4(self.layer3(self.layer2(self.layer1(x))))


class Block(nn.Module):
    """relu(x + F(x)) with two convolutions of 3 × 3."""

    def __init__(self, inputs: int, outputs: int, stride: int, normed: bool):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=not normed)
        self.bn1 = _norm(outputs, normed)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=not normed)
        self.bn2 = _norm(outputs, normed)
        self.downsample = None
        if stride != 1 or inputs != outputs:
            shrink = nn.Conv2d(inputs, outputs, 1, stride, bias=not normed)
            self.downsample = nn.Sequential(shrink, _norm(outputs, normed))

    def forward(self, x: Tensor) -> Tensor:
        """[N, inputs, h, w] -> [N, outputs, h / stride, w / stride]."""
        y = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        return torch.relu(y + (x if self.downsample is None else self.downsample(x)))


class FoldedResNet18(ResNet18):
    """A ResNet-18 with BatchNorm, for control: the norms are in the convolutions."""

    normed = False


def _norm(channels: int, normed: bool) -> nn.Module:
    return nn.GroupNorm(channels // 16, channels) if normed else nn.Identity()
