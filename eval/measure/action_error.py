"""Distances of actions and their means over episodes, as pure functions.

The distance of two actions is the mean over the dimensions that vary of |a - b| / σ, where σ is the
standard deviation of a dimension over the demonstrations: the standardised L1 error that ACT trains
and validates by (Zhao et al., arXiv 2304.13705). Shapes: W observations, S samples of each, H
actions of a chunk, D_a dimensions, E episodes.
"""

from itertools import combinations

import numpy as np

from diffpolicy.data.normalizer import fit_gaussian
from diffpolicy.errors import DiffpolicyError

from ..significance import mean_interval
from .offline_results import Estimate


def deviations(actions: np.ndarray) -> np.ndarray:
    """σ [D_a] float64 of actions [N, D_a]; 0 for a dimension that is constant.

    Raises DiffpolicyError if all are.
    """
    constant = fit_gaussian(actions).constant
    varies = np.ones(actions.shape[1], bool) if constant is None else np.isnan(constant)
    if not varies.any():
        raise DiffpolicyError("all actions are the same; expected demonstrations that move")
    return np.where(varies, actions.std(0, dtype=np.float64), 0.0)


def distance(a: np.ndarray, b: np.ndarray, sigma: np.ndarray) -> np.ndarray:
    """Mean over the varying dimensions of |a - b| / σ: [..., D_a] -> [...]."""
    varies = sigma > 0
    scaled = np.abs(a - b)[..., varies] / sigma[varies]
    return scaled.sum(-1, dtype=np.float64) / varies.sum()


def spread(chunks: np.ndarray, sigma: np.ndarray) -> np.ndarray:
    """Mean distance of two samples of one observation: [W, S, H, D_a] -> [W, H].

    A policy whose samples are distributed like the demonstrated actions has this mean error.
    """
    pairs = list(combinations(range(chunks.shape[1]), 2))
    return np.mean([distance(chunks[:, i], chunks[:, j], sigma) for i, j in pairs], axis=0)


def by_episode(values: np.ndarray, real: np.ndarray, episode: np.ndarray, count: int) -> np.ndarray:
    """Mean of values [W, H] over the real ones [W, H] of each episode [W]: [E], NaN without any."""
    weight = real.astype(np.float64)
    total = np.bincount(episode, (values * weight).sum(1), count)
    with np.errstate(invalid="ignore"):
        return total / np.bincount(episode, weight.sum(1), count)


def estimate(of_episodes: np.ndarray) -> Estimate | None:
    """Mean of [E] and its bootstrap 95 % interval over episodes; None if all are NaN.

    The windows of an episode depend on each other, so they are never resampled.
    """
    found = of_episodes[np.isfinite(of_episodes)]
    if not len(found):
        return None
    interval = mean_interval(found) if len(found) > 1 else None
    return Estimate(mean=float(found.mean()), ci=interval)
