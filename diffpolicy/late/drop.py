"""Dropping the stale head of a late chunk, and what every strategy has.

Shapes: B batch, T_o and T_p horizons, m = T_p - T_o + 1 usable actions, D_a action dimensions.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from diffpolicy.errors import DiffpolicyError

if TYPE_CHECKING:
    from torch import Tensor

    from diffpolicy.checkpoint import Checkpoint
    from diffpolicy.late.plan import Plans
    from diffpolicy.sampling.chain import Chain
    from diffpolicy.specification import Specification

LOGGER = logging.getLogger("diffpolicy")
Sampled = Callable[[dict[str, "Tensor"], "Tensor", "Plans"], "Tensor"]
"""(normalised histories {key: [B, T_o, …]}, noise [noise_count, B, T_p, D_a], plans) -> normalised
chunk [B, T_p, D_a]."""


@dataclass(frozen=True)
class Chunk:
    """actions [n, D_a], one for each tick from `first` on, computed for the tick `observed`.

    As a policy gives it, `first` is `observed`, and it arrives later; joined, `first` is its
    arrival. parts: the chunks that it is made of, oldest first, if the strategy keeps them.
    """

    observed: int
    arrives: int
    actions: np.ndarray
    first: int
    parts: tuple["Chunk", ...] = ()

    def since(self, tick: int) -> np.ndarray:
        """Actions [≤ n, D_a] from this tick on, which is not before `first`."""
        return self.actions[tick - self.first :]

    def age(self, tick: int) -> int:
        """Ticks since the observation of this tick's action; the rounded mean of its parts."""
        of = [part.observed for part in self.parts if len(part.since(tick))] or [self.observed]
        return round(tick - sum(of) / len(of))


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

    @property
    def of_runs(self) -> bool:
        """True if it needs a run's network or files, which a policy of others does not have."""
        return self.plans

    @property
    def wall_only(self) -> bool:
        """True if it depends on real time, so that simulated clocks cannot run it."""
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

    def corrector(self, checkpoint: "Checkpoint") -> Any:
        """Head that corrects every action, a `correction.Corrector`; None for most strategies."""
        return None

    def only_eager(self, wanted: str, why: str) -> str:
        """The eager engine, the only one `why`; DiffpolicyError if another is wanted."""
        if wanted not in ("eager", "auto"):
            raise DiffpolicyError(
                f"--late {self.text} runs on the eager engine, the only one {why}; got {wanted}; "
                "try --engine eager"
            )
        if wanted == "auto":
            LOGGER.info("--late %s: engine eager, the only one %s", self.text, why)
        return "eager"

    def refuse_without_noise(self, specification: "Specification", why: str) -> None:
        """Raise DiffpolicyError for an objective whose sampling starts from zero: `why`."""
        from diffpolicy.sampling.chain import WITHOUT_NOISE  # torch

        if (objective := specification.model.objective) in WITHOUT_NOISE:
            raise DiffpolicyError(
                f"--late {self.text}: a {objective} policy {why}; expected a run of another "
                "--objective"
            )

    def join(self, current: Chunk | None, new: Chunk) -> Chunk:
        """The chunk to use from the arrival of a new one on: here the new one without its head.

        current: the chunk in use, joined; None before the first one.
        """
        return replace(new, actions=new.since(new.arrives), first=new.arrives)
