"""Temporal ensembling: an action is the mean of all chunks that have one for its tick.

Zhao et al., ACT, arXiv 2304.13705, algorithm 2. Shapes: n actions of a chunk, D_a dimensions.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from diffpolicy.late.drop import Chunk, DropHead

RATE = 0.01  # m of the paper


@dataclass(frozen=True)
class Ensemble(DropHead):
    """Begin a chunk at every tick, and execute the mean of those that have arrived.

    One inference runs at a time, so chunks begin every max(1, d) ticks. The age of an action is the
    mean of its parts.
    """

    text: str = "ensemble"

    def action_horizon(self, wanted: int) -> int:
        """One tick, whatever T_a."""
        return 1

    def join(self, current: Chunk | None, new: Chunk) -> Chunk:
        """The mean of the new chunk and the older ones, from its arrival on."""
        kept = (*(current.parts if current else ()), new)
        parts = tuple(part for part in kept if len(part.since(new.arrives)))
        tails = [part.since(new.arrives) for part in parts]
        actions = ensembled(tails) if tails else new.actions[:0]
        return Chunk(new.observed, new.arrives, actions, new.arrives, parts)


def ensembled(chunks: Sequence[np.ndarray]) -> np.ndarray:
    """Σ w_i a_i / Σ w_i of chunks [n, D_a], oldest first, none longer than the next one.

    w_i = e^{-0.01 i}, with i = 0 for the oldest chunk that has the tick. Counting from the oldest
    of all gives the same means. All chunks begin at the same tick.
    """
    total = np.zeros(chunks[-1].shape)
    weights = np.zeros((len(total), 1))
    for i, chunk in enumerate(chunks):
        weight = math.exp(-RATE * i)
        total[: len(chunk)] += weight * chunk
        weights[: len(chunk)] += weight
    return (total / weights).astype(chunks[-1].dtype)
