"""Strategies for a chunk that arrives after the tick of its observation.

Shapes: n actions left of the old chunk, m = T_p - T_o + 1 usable actions, D_a action dimensions.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class DropHead:
    """Execute the old chunk until the new one arrives, then the new one without its stale head."""

    def join(self, remaining: np.ndarray, chunk: np.ndarray, delay: int) -> np.ndarray:
        """Actions from the tick of arrival on: chunk [m, D_a] without its first `delay` ones.

        remaining [n, D_a]: the old chunk from that tick on.
        """
        return chunk[delay:]
