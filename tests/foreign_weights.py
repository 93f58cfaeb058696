"""Weights of small networks by the names of other libraries, drawn at random."""

import torch
from torch import nn

CONDITION, KERNEL = 8, 5
Weights = dict[str, torch.Tensor]


def _layer(name: str, *shape: int) -> Weights:
    fan_in = max(1, torch.Size(shape[1:]).numel())
    outputs = shape[1] if name.endswith("up") else shape[0]
    weight = torch.randn(shape) / fan_in**0.5
    return {f"{name}.weight": weight, f"{name}.bias": 0.1 * torch.randn(outputs)}


def _norm(name: str, channels: int) -> Weights:
    return {
        f"{name}.weight": 1 + 0.1 * torch.randn(channels),
        f"{name}.bias": 0.1 * torch.randn(channels),
    }


def unet(
    condition: int,
    action_dim: int,
    channels: tuple[int, ...] = (16, 32),
    convolutions: tuple[str, str] = ("conv1.block", "conv2.block"),
    resample: str = "2",
    scales: bool = True,
) -> Weights:
    """A UNet of LeRobot, or with other names of Diffusion Policy; condition: T_o · D_o numbers."""
    found: Weights = {}

    def block(name: str, inputs: int, outputs: int) -> None:
        for part, enter in zip(convolutions, (inputs, outputs), strict=True):
            found.update(_layer(f"{name}.{part}.0", outputs, enter, KERNEL))
            found.update(_norm(f"{name}.{part}.1", outputs))
        rows = (1 + scales) * outputs
        found.update(_layer(f"{name}.cond_encoder.1", rows, CONDITION + condition))
        if inputs != outputs:
            found.update(_layer(f"{name}.residual_conv", outputs, inputs, 1))

    found |= _layer("diffusion_step_encoder.1", 4 * CONDITION, CONDITION)
    found |= _layer("diffusion_step_encoder.3", CONDITION, 4 * CONDITION)
    enter = (action_dim, *channels[:-1])
    for i, (a, b) in enumerate(zip(enter, channels, strict=True)):
        block(f"down_modules.{i}.0", a, b)
        block(f"down_modules.{i}.1", b, b)
        if i < len(channels) - 1:
            found |= _layer(f"down_modules.{i}.{resample}", b, b, 3)
    for j in (0, 1):
        block(f"mid_modules.{j}", channels[-1], channels[-1])
    for i, (a, b) in enumerate(zip(channels[:0:-1], channels[-2::-1], strict=True)):
        block(f"up_modules.{i}.0", 2 * a, b)
        block(f"up_modules.{i}.1", b, b)
        found |= _layer(f"up_modules.{i}.{resample}", b, b, 4)
    found |= _layer("final_conv.0.block.0", channels[0], channels[0], KERNEL)
    found |= _norm("final_conv.0.block.1", channels[0])
    return found | _layer("final_conv.1", action_dim, channels[0], 1)


class Block(nn.Module):
    """Block of a ResNet-18 with BatchNorm, by torchvision's names."""

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1, self.bn2 = nn.BatchNorm2d(outputs), nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        shrink = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
        narrower = stride > 1
        self.downsample = nn.Sequential(shrink, nn.BatchNorm2d(outputs)) if narrower else None

    def forward(self, x):
        y = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        return torch.relu(y + (x if self.downsample is None else self.downsample(x)))


def resnet18() -> nn.Sequential:
    """In evaluation, with statistics drawn at random; places are numbered as in LeRobot."""
    start = nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64)
    sizes = (64, 64, 1), (64, 128, 2), (128, 256, 2), (256, 512, 2)
    layers = (nn.Sequential(Block(a, b, s), Block(b, b, 1)) for a, b, s in sizes)
    network = nn.Sequential(*start, nn.ReLU(), nn.MaxPool2d(3, 2, 1), *layers)
    for norm in (m for m in network.modules() if isinstance(m, nn.BatchNorm2d)):
        for name, tensor in norm.state_dict().items():
            if tensor.is_floating_point():
                around = 1.0 if name in ("weight", "running_var") else 0.0
                tensor.copy_(around + 0.2 * (2 * torch.rand_like(tensor) - 1))
    return network.eval()
