"""Dropping the stale head of a late chunk, and what every strategy has.

Shapes: n actions left of the old chunk, m = T_p - T_o + 1 usable actions, D_a action dimensions.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from diffpolicy.errors import DiffpolicyError

if TYPE_CHECKING:
    from torch import Tensor

    from diffpolicy.late.plan import Plans
    from diffpolicy.sampling.chain import Chain
    from diffpolicy.specification import Specification

Sampled = Callable[[dict[str, "Tensor"], "Tensor", "Plans"], "Tensor"]
"""(normalised histories {key: [B, T_o, …]}, noise [noise_count, B, T_p, D_a], plans) -> normalised
chunk [B, T_p, D_a]."""


@dataclass(frozen=True)
class DropHead:
    """Execute the old chunk until the new one arrives, then the new one without its stale head.

    The base of the other strategies. text: as --late takes it. oracle: `Plan.delay` is the true
    delay, which no robot knows in advance; else it is expected from the delays before.
    """

    text: str = "drop"
    oracle: bool = False

    @classmethod
    def parse(cls, text: str, parts: Sequence[str]) -> Self:
        """The strategy of the parts of a text after its name. Raises DiffpolicyError."""
        if parts:
            raise DiffpolicyError(f"{text!r}: {text.split(':')[0]} takes nothing after its name")
        return cls(text)

    @property
    def plans(self) -> bool:
        """True if sampling depends on the plan."""
        return False

    def check(self, specification: "Specification") -> None:
        """Raise DiffpolicyError if the run does not fit the strategy."""

    def check_chain(self, chain: "Chain", prediction: str) -> None:
        """Raise DiffpolicyError if the step budget of a network does not fit the strategy."""

    def engine(self, wanted: str) -> str:
        """The engine that samples; DiffpolicyError for one that cannot."""
        return wanted

    def evaluations(self, network_evals: int) -> tuple[int, int]:
        """Network evaluations of a chunk, and gradients through the network, of K evaluations."""
        return network_evals, 0

    def action_horizon(self, wanted: int) -> int:
        """Ticks between starts of inferences, of the run's T_a."""
        return wanted

    def sampled(self, policy: Any, batch: int) -> Sampled:
        """Sampling of a batch of the `Policy` with plans, built for its engine."""
        raise NotImplementedError  # for strategies that depend on the plan

    def join(self, remaining: np.ndarray, chunk: np.ndarray, delay: int) -> np.ndarray:
        """Actions from the tick of arrival on: chunk [m, D_a] without its first `delay` ones.

        remaining [n, D_a]: the old chunk from that tick on.
        """
        return chunk[delay:]
