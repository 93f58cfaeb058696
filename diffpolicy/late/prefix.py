"""Trained prefix: the network is given the actions that will be executed before its chunk arrives.

Training-time action conditioning for real-time chunking, arXiv 2512.05964. Shapes: B batch, T_p
prediction horizon, D_a action dimensions.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor

from diffpolicy.denoisers.committed import COMMITTED, committed, given_rows
from diffpolicy.errors import DiffpolicyError
from diffpolicy.late.drop import DropHead, Sampled

if TYPE_CHECKING:
    from diffpolicy.late.plan import Plans
    from diffpolicy.specification import Specification


@dataclass(frozen=True)
class Prefix(DropHead):
    """The chunk continues m = min(d̂, planned actions, prefix_max) committed actions.

    d̂: expected delay in ticks. The committed actions come back as the first rows of the chunk. It
    costs what a chunk without them costs.
    """

    @classmethod
    def parse(cls, text: str, parts: Sequence[str]) -> Self:
        """The strategy of prefix or prefix:oracle. Raises DiffpolicyError."""
        return cls(text, oracle=only_oracle(text, parts))

    @property
    def plans(self) -> bool:
        """True: the committed actions are those of the plan."""
        return True

    def check(self, specification: "Specification") -> None:
        """Raise DiffpolicyError for a run that was trained without committed actions."""
        if not specification.model.prefix_max:
            raise DiffpolicyError(
                f"--late {self.text}: the run was trained without committed actions; expected one "
                "of diffpolicy train --prefix-max D, with D the longest delay in ticks"
            )

    def sampled(self, policy: Any, batch: int) -> Sampled:
        """See `DropHead`."""
        stages, ahead = policy.engine(batch), policy.horizons.observation - 1
        most = policy.specification.model.prefix_max

        def sample(histories: dict[str, Tensor], noise: Tensor, plans: "Plans") -> Tensor:
            count = torch.minimum(plans.delay, plans.planned).clamp(max=most)
            given = committed(plans.actions, count, ahead, most)
            chunk = stages(stages.encode({**histories, COMMITTED: given}), noise)
            rows = given_rows(count, ahead, chunk.shape[1])
            return torch.where(rows[..., None], plans.actions, chunk)

        return sample


def only_oracle(text: str, parts: Sequence[str]) -> bool:
    """True for the part "oracle", False for none; DiffpolicyError for anything else."""
    if list(parts) not in ([], ["oracle"]):
        name = text.split(":")[0]
        raise DiffpolicyError(
            f"{text!r} is not a strategy for late chunks; expected {name} or {name}:oracle"
        )
    return bool(parts)
