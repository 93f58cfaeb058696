"""Observations at evaluation against the range of training, as the policy's normaliser knows it.

Normalised by limits the training data lie in ±1, by gaussian mostly in ±4. A constant dimension
that is normalised to 0 is never outside.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from diffpolicy.data.normalizer import Normalizer

TRAINING = {"limits": 1.0, "gaussian": 4.0}  # normalised, ±
FAR = {"limits": 3.0, "gaussian": 8.0}
SHARE = 0.01  # of the observations: more than this is worth a warning
OVERFLOW = 1e18  # normalised: the square overflows float32


@dataclass
class Extent:
    """Normalised observations that the policy was given in one episode; arrays are [D_o]."""

    limit: float
    low: Any = np.inf
    high: Any = -np.inf
    far: Any = 0
    observed: int = 0

    def add(self, normalised: np.ndarray, size: np.ndarray) -> None:
        """One more observation [D_o] and its absolute values."""
        self.low, self.high = np.minimum(self.low, normalised), np.maximum(self.high, normalised)
        self.far = self.far + (size > self.limit)
        self.observed += 1

    def fields(self) -> dict[str, Any]:
        """Fields of an Episode."""
        if not self.observed:
            return {}
        arrays = {"far": self.far, "lowest": self.low, "highest": self.high}
        return {
            "observed": self.observed,
            **{name: tuple(array.tolist()) for name, array in arrays.items()},
        }


def normalise(normalizer: Normalizer, observation: np.ndarray) -> np.ndarray:
    """Finite numbers, whatever the observation is."""
    with np.errstate(all="ignore"):
        return np.nan_to_num(normalizer.normalize(observation.astype(np.float32)))


def far_outside(episodes: Sequence[Any], normalizer: Normalizer, kind: str) -> list[dict[str, Any]]:
    """Dimensions that were far outside in more than 1 % of the observations, with figures."""
    known = [e for e in episodes if e.observed]
    if not known:
        return []
    share = np.sum([e.far for e in known], axis=0) / sum(e.observed for e in known)
    with np.errstate(all="ignore"):  # constant dimensions have no inverse
        seen = [
            normalizer.unnormalize(np.min([e.lowest for e in known], axis=0)),
            normalizer.unnormalize(np.max([e.highest for e in known], axis=0)),
        ]
        training = [normalizer.unnormalize(np.array(sign * TRAINING[kind])) for sign in (-1, 1)]
    return [
        {
            "dimension": int(d),
            "share": float(share[d]),
            "seen": [float(bound[d]) for bound in seen],
            "training": [float(bound[d]) for bound in training],
        }
        for d in np.flatnonzero(share > SHARE)
    ]
