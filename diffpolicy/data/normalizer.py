"""Affine normalisers: x ↦ scale · x + offset, one pair for each dimension."""

from dataclasses import dataclass

import numpy as np

FLOAT = np.finfo(np.float32)
ROUNDING = 4 * FLOAT.eps  # a spread of less than this share of the numbers is their rounding


@dataclass(frozen=True)
class Normalizer:
    """scale, offset [D] float32; constant [D] where some dimensions never change, else None.

    constant is NaN where a dimension varies. Where it does not, the scale is 0: it normalises to 0
    and comes back as the constant, exactly.
    """

    scale: np.ndarray
    offset: np.ndarray
    constant: np.ndarray | None = None

    def normalize(self, x: np.ndarray) -> np.ndarray:
        """[..., D] in the units of the data -> [..., D] near ±1."""
        return x * self.scale + self.offset

    def unnormalize(self, x: np.ndarray) -> np.ndarray:
        """The inverse."""
        if self.constant is None:
            return (x - self.offset) / self.scale
        varies = np.isnan(self.constant)
        divisor = np.where(varies, self.scale, np.float32(1))
        return np.where(varies, (x - self.offset) / divisor, self.constant)


def _affine(data: np.ndarray, centre: np.ndarray, spread: np.ndarray) -> Normalizer:
    """centre ± spread [D] float64 of the data go to ±1; what does not change goes to 0."""
    constant = (spread <= ROUNDING * np.abs(data).max(0)) | (spread < FLOAT.tiny)
    divisor = np.where(constant, np.inf, spread)
    kept = np.where(constant, centre, np.nan).astype(np.float32) if constant.any() else None
    scale, offset = 1 / divisor, -centre / divisor
    return Normalizer(scale.astype(np.float32), offset.astype(np.float32), kept)


def fit_limits(data: np.ndarray) -> Normalizer:
    """The extremes of data [N, D] go to -1 and 1."""
    low, high = data.min(0).astype(np.float64), data.max(0).astype(np.float64)
    return _affine(data, (low + high) / 2, (high - low) / 2)


def fit_gaussian(data: np.ndarray) -> Normalizer:
    """data [N, D] gets mean 0 and standard deviation 1."""
    return _affine(data, data.mean(0, dtype=np.float64), data.std(0, dtype=np.float64))


FITS = {"limits": fit_limits, "gaussian": fit_gaussian}
