"""Affine normalisers: x ↦ scale · x + offset, one pair for each dimension."""

from dataclasses import dataclass

import numpy as np

CONSTANT = 1e-6  # a dimension that spans less than this carries nothing: it is only centred


@dataclass(frozen=True)
class Normalizer:
    """scale, offset [D] float32."""

    scale: np.ndarray
    offset: np.ndarray

    def normalize(self, x: np.ndarray) -> np.ndarray:
        """[..., D] in the units of the data -> [..., D] near ±1."""
        return x * self.scale + self.offset

    def unnormalize(self, x: np.ndarray) -> np.ndarray:
        """The inverse."""
        return (x - self.offset) / self.scale


def _affine(centre: np.ndarray, spread: np.ndarray) -> Normalizer:
    spread = np.where(spread < CONSTANT, 1.0, spread)
    return Normalizer((1 / spread).astype(np.float32), (-centre / spread).astype(np.float32))


def fit_limits(data: np.ndarray) -> Normalizer:
    """The extremes of data [N, D] go to -1 and 1."""
    low, high = data.min(0).astype(np.float64), data.max(0).astype(np.float64)
    return _affine((low + high) / 2, (high - low) / 2)


def fit_gaussian(data: np.ndarray) -> Normalizer:
    """data [N, D] gets mean 0 and standard deviation 1."""
    return _affine(data.mean(0, dtype=np.float64), data.std(0, dtype=np.float64))


FITS = {"limits": fit_limits, "gaussian": fit_gaussian}
