"""Noise of a replan, keyed by (episode seed, tick)."""

from collections.abc import Sequence

import numpy as np

from diffpolicy.control.chunk_source import ChunkSource

# NumPy pads seeds with zeros, so [seed, 0] would be the environment's own stream.
NOISE_STREAM = 0x401


def noise_batch(source: ChunkSource, keys: Sequence[tuple[int, int]], batch: int) -> np.ndarray:
    """Noise [draws, batch, …] of one call, by the (seed, tick) of each row; other rows are zero."""
    count, _, *chunk = source.noise_shape(batch)
    noise = np.zeros((count, batch, *chunk), np.float32)
    for row, (seed, tick) in enumerate(keys):
        noise[:, row] = episode_noise(seed, tick, (count, *chunk))
    return noise


def episode_noise(seed: int, tick: int, shape: tuple[int, ...]) -> np.ndarray:
    """Standard normal noise of one replan, from (episode seed, tick) alone.

    x_T comes first, so budgets and samplers with more draws share it.
    """
    return np.random.default_rng([seed, tick, NOISE_STREAM]).standard_normal(shape, np.float32)
