"""Augmentation: displaced vectors, cropped and recoloured pictures, on the device of the windows.

Shapes: B windows, T_o frames of each, D of a vector, H, W, C of a picture and h, w of its crop.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from diffpolicy.training.distributed import ALONE, Ranks

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601


def augment(
    observations: Mapping[str, Tensor],
    crops: Mapping[str, tuple[int, int]],
    colour: float,
    generator: torch.Generator,
    ranks: Ranks = ALONE,
) -> dict[str, Tensor]:
    """Crop the pictures of crops {key: (h, w)} at random, and change their colours if colour > 0.

    All frames of a window are changed alike, each window and each camera by draws of its own.
    ranks: the windows are the share of this process, of a batch that draws are made for.
    """
    found = dict(observations)
    for key, size in crops.items():
        found[key] = random_crop(found[key], size, generator, ranks)
        if colour:
            found[key] = colour_jitter(found[key], colour, generator, ranks)
    return found


def displace(
    observations: Mapping[str, Tensor],
    deviation: float,
    generator: torch.Generator,
    ranks: Ranks = ALONE,
) -> dict[str, Tensor]:
    """Add draws of N(0, deviation²) to the vectors [B, T_o, D]; pictures stay.

    One draw for each number of a window, the same in all its frames, so differences between frames
    stay. Noise on inputs regularises (Bishop, Neural Computation 7(1), 1995).
    """
    found = dict(observations)
    for key, x in observations.items():
        if x.ndim == 3:
            shape = len(x) * ranks.count, 1, x.shape[2]
            drawn = torch.randn(shape, generator=generator, device=x.device)
            found[key] = x + deviation * drawn[ranks.rows(len(drawn))]
    return found


def random_crop(
    pictures: Tensor, size: tuple[int, int], generator: torch.Generator, ranks: Ranks = ALONE
) -> Tensor:
    """[B, T_o, H, W, C] -> [B, T_o, h, w, C], at a place of its own in each window."""
    windows = pictures.unfold(2, size[0], 1).unfold(3, size[1], 1)  # [B, T_o, top, left, C, h, w]
    share, _, rows, columns = windows.shape[:4]
    batch = share * ranks.count
    drawn = {"generator": generator, "device": pictures.device}
    top, left = (torch.randint(n, (batch,), **drawn)[ranks.rows(batch)] for n in (rows, columns))
    places = windows.permute(0, 2, 3, 1, 5, 6, 4)
    return places[torch.arange(share, device=pictures.device), top, left]


def colour_jitter(
    pictures: Tensor, strength: float, generator: torch.Generator, ranks: Ranks = ALONE
) -> Tensor:
    """Scale brightness, contrast and saturation by factors b, c and s in 1 ± strength.

    [B, T_o, h, w, C] of 0 to 255 -> float32 of 0 to 255. As in torchvision, but clipped once:
    x ← b·x, then x ← c·x + (1 - c)·(mean luma of all frames), then x ← s·x + (1 - s)·(luma of the
    pixel); one affine map of the colours. A fourth channel stays.
    """
    colours, others = pictures.tensor_split([3], dim=-1)
    x = colours.float().flatten(2, 3)
    channels = x.shape[-1]
    luma = x.new_tensor(LUMA if channels == 3 else [1 / channels] * channels)
    batch = len(x) * ranks.count
    drawn = torch.rand((3, batch, 1, 1, 1), generator=generator, device=x.device)
    b, c, s = 1 + strength * (2 * drawn[:, ranks.rows(batch)] - 1)
    grey = luma[:, None].expand(channels, channels)
    matrix = b * c * (s * torch.eye(channels, device=x.device) + (1 - s) * grey)
    mean = (x.mean((1, 2)) @ luma)[:, None, None, None]
    changed = torch.add(x @ matrix, b * (1 - c) * mean).clamp_(0, 255).view(colours.shape)
    return torch.cat([changed, others.float()], dim=-1) if others.shape[-1] else changed
