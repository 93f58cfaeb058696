"""Affine normalisers: x ↦ scale · x + offset, one pair for each number of a key.

Shapes: N rows, D numbers of a row.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

FLOAT = np.finfo(np.float32)
PAIR = ("scale", "offset")
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
ROUNDING = 4 * FLOAT.eps  # a spread below this share of the numbers is their rounding


@dataclass(frozen=True)
class Normalizer:
    """scale, offset [D] float32; constant [D] if some dimensions never change, else None.

    constant is NaN for a dimension that varies. Where it is a number the scale is 0: the dimension
    normalises to 0 and comes back as the constant, exactly.
    """

    scale: np.ndarray
    offset: np.ndarray
    constant: np.ndarray | None = None

    def normalize(self, x: np.ndarray) -> np.ndarray:
        """[..., D] in the units of the data -> [..., D] near ±1."""
        return x * self.scale + self.offset

    def unnormalize(self, x: np.ndarray) -> np.ndarray:
        """Inverse of `normalize`."""
        if self.constant is None:
            return (x - self.offset) / self.scale
        varies = np.isnan(self.constant)
        divisor = np.where(varies, self.scale, np.float32(1))
        return np.where(varies, (x - self.offset) / divisor, self.constant)


def joined(normalizers: Iterable[Normalizer]) -> Normalizer:
    """The normaliser of flat rows end to end: [D_1 + D_2 + …]."""
    found = list(normalizers)
    scale, offset = (np.concatenate([getattr(n, p).ravel() for n in found]) for p in PAIR)
    if all(n.constant is None for n in found):
        return Normalizer(scale, offset)
    varying = (np.full_like(n.scale, np.nan) if n.constant is None else n.constant for n in found)
    return Normalizer(scale, offset, np.concatenate([c.ravel() for c in varying]))


def identity(dimensions: int) -> Normalizer:
    """The normaliser that changes nothing."""
    return Normalizer(np.ones(dimensions, np.float32), np.zeros(dimensions, np.float32))


def pixels(channels: int) -> Normalizer:
    """Give pictures of 0 to 255 mean 0 and standard deviation 1; [C].

    RGB by the statistics of ImageNet, other pictures by 0.5 and 0.25.
    """
    mean, std = (IMAGENET_MEAN, IMAGENET_STD) if channels == 3 else (0.5, 0.25)
    scale = np.broadcast_to(1 / (255 * np.asarray(std, np.float64)), channels)
    offset = np.broadcast_to(-np.asarray(mean, np.float64) / std, channels)
    return Normalizer(scale.astype(np.float32), offset.astype(np.float32))


def _affine(data: np.ndarray, centre: np.ndarray, spread: np.ndarray) -> Normalizer:
    """Map centre ± spread [D] float64 of the data to ±1, and what does not change to 0."""
    constant = (spread <= ROUNDING * np.abs(data).max(0)) | (spread < FLOAT.tiny)
    divisor = np.where(constant, np.inf, spread)
    kept = np.where(constant, centre, np.nan).astype(np.float32) if constant.any() else None
    scale, offset = 1 / divisor, -centre / divisor
    return Normalizer(scale.astype(np.float32), offset.astype(np.float32), kept)


def fit_limits(data: np.ndarray) -> Normalizer:
    """Map the extremes of data [N, D] to -1 and 1."""
    low, high = data.min(0).astype(np.float64), data.max(0).astype(np.float64)
    return _affine(data, (low + high) / 2, (high - low) / 2)


def fit_gaussian(data: np.ndarray) -> Normalizer:
    """Give data [N, D] mean 0 and standard deviation 1."""
    return _affine(data, data.mean(0, dtype=np.float64), data.std(0, dtype=np.float64))


FITS = {"limits": fit_limits, "gaussian": fit_gaussian}
