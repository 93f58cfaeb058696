"""Augmentation of pictures: random crop and colour jitter, on the device of the windows.

Shapes: B windows, T_o frames of each, H, W, C of a picture and h, w of its crop.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601


def augment(
    observations: Mapping[str, Tensor],
    crops: Mapping[str, tuple[int, int]],
    colour: float,
    generator: torch.Generator,
) -> dict[str, Tensor]:
    """Crop the pictures of crops {key: (h, w)} at random, and change their colours if colour > 0.

    All frames of a window are changed alike, each window and each camera by draws of its own.
    """
    found = dict(observations)
    for key, size in crops.items():
        found[key] = random_crop(found[key], size, generator)
        if colour:
            found[key] = colour_jitter(found[key], colour, generator)
    return found


def random_crop(pictures: Tensor, size: tuple[int, int], generator: torch.Generator) -> Tensor:
    """[B, T_o, H, W, C] -> [B, T_o, h, w, C], at a place of its own in each window."""
    windows = pictures.unfold(2, size[0], 1).unfold(3, size[1], 1)  # [B, T_o, top, left, C, h, w]
    batch, _, rows, columns = windows.shape[:4]
    drawn = {"generator": generator, "device": pictures.device}
    top, left = (torch.randint(n, (batch,), **drawn) for n in (rows, columns))
    places = windows.permute(0, 2, 3, 1, 5, 6, 4)
    return places[torch.arange(batch, device=pictures.device), top, left]


def colour_jitter(pictures: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Scale brightness, contrast and saturation by factors in [1 - strength, 1 + strength].

    [B, T_o, h, w, C] of 0 to 255 -> float32 of 0 to 255. As in torchvision: each mixes the picture
    with black, with its mean luma and with the luma of each pixel. A fourth channel stays.
    """
    shape = 3, len(pictures), 1, 1, 1, 1
    drawn = torch.rand(shape, generator=generator, device=pictures.device)
    brightness, contrast, saturation = 1 + strength * (2 * drawn - 1)
    colours, others = pictures.float().tensor_split([3], dim=-1)
    colours = (colours * brightness).clamp(0, 255)
    mean = luma(colours).mean((2, 3), keepdim=True)
    colours = torch.lerp(mean, colours, contrast).clamp(0, 255)
    colours = torch.lerp(luma(colours), colours, saturation).clamp(0, 255)
    return torch.cat([colours, others], dim=-1)


def luma(colours: Tensor) -> Tensor:
    """Luma [..., 1] of RGB [..., 3]; the mean of one or two channels."""
    if colours.shape[-1] < len(LUMA):
        return colours.mean(-1, keepdim=True)
    return (colours * colours.new_tensor(LUMA)).sum(-1, keepdim=True)
