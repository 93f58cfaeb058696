"""Observations at evaluation compared with the range of the training data.

Normalised by limits, training data lie in ±1; by gaussian, mostly in ±4. A constant dimension is
normalised to 0 and is never outside. D_o counts the dimensions of all normalised keys, in order.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np

from diffpolicy.data.normalizer import Normalizer, joined
from diffpolicy.specification import ObservationSpec

TRAINING = {"limits": 1.0, "gaussian": 4.0}  # normalised, ±
FAR = {"limits": 3.0, "gaussian": 8.0}
SHARE = 0.01  # of the observations: a larger share is worth a warning
OVERFLOW = 1e18  # normalised: the square overflows float32


@runtime_checkable
class Normalised(Protocol):
    """Optional part of a chunk source: observations that it normalises by the training data."""

    observations: Mapping[str, ObservationSpec]
    observation_normalizers: Mapping[str, Normalizer]


@dataclass(frozen=True)
class TrainingRange:
    """Normalised range of the training data: keys and joined normaliser; half_width, far [D_o]."""

    keys: tuple[str, ...]
    normalizer: Normalizer
    half_width: np.ndarray
    far: np.ndarray

    def flat(self, observation: Mapping[str, np.ndarray]) -> np.ndarray:
        """{key: [B, …]} -> [B, D_o]."""
        return np.concatenate(
            [observation[k].reshape(len(observation[k]), -1) for k in self.keys], 1
        )

    def normalise(self, observation: Mapping[str, np.ndarray]) -> np.ndarray:
        """{key: [B, …]} -> normalised [B, D_o], finite for every observation."""
        with np.errstate(all="ignore"):
            normal = self.normalizer.normalize(self.flat(observation).astype(np.float32))
            return np.nan_to_num(normal)

    def fields(self, observed: Sequence[np.ndarray]) -> dict[str, Any]:
        """Fields of an Episode, from the normalised observations [D_o] given to the policy."""
        if not observed:
            return {}
        given = np.stack(observed)
        far = np.sum(np.abs(given) > self.far, axis=0)
        arrays = {"far": far, "lowest": given.min(axis=0), "highest": given.max(axis=0)}
        return {"observed": len(given), **{k: tuple(v.tolist()) for k, v in arrays.items()}}


def training_range(source: object) -> TrainingRange | None:
    """Range of a chunk source; None if it does not normalise by training data."""
    if not isinstance(source, Normalised) or not source.observation_normalizers:
        return None
    normalizers = {
        k: source.observation_normalizers[k]
        for k, s in source.observations.items()
        if not s.is_picture and s.normalizer
    }
    if not normalizers:
        return None
    kinds = [
        str(source.observations[key].normalizer)
        for key, normalizer in normalizers.items()
        for _ in range(normalizer.scale.size)
    ]
    return TrainingRange(
        tuple(normalizers),
        joined(normalizers.values()),
        np.array([TRAINING[kind] for kind in kinds]),
        np.array([FAR[kind] for kind in kinds]),
    )


def far_outside(episodes: Sequence[Any], trained: TrainingRange | None) -> list[dict[str, Any]]:
    """Dimensions far outside in more than 1 % of the observations, with figures."""
    known = [e for e in episodes if e.observed]
    if not known or trained is None:
        return []
    share = np.sum([e.far for e in known], axis=0) / sum(e.observed for e in known)
    seen = np.min([e.lowest for e in known], axis=0), np.max([e.highest for e in known], axis=0)
    limits = -trained.half_width, trained.half_width
    with np.errstate(all="ignore"):  # constant dimensions have no inverse
        seen, training = (
            [trained.normalizer.unnormalize(bound) for bound in pair] for pair in (seen, limits)
        )
    return [
        {
            "dimension": int(d),
            "share": float(share[d]),
            "seen": [float(bound[d]) for bound in seen],
            "training": [float(bound[d]) for bound in training],
        }
        for d in np.flatnonzero(share > SHARE)
    ]
