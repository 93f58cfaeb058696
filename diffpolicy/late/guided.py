"""Guided inpainting: every evaluation is drawn to the plan; no training for it is needed.

Real-time chunking (RTC), arXiv 2506.07339. Shapes: B batch, T_p prediction horizon, D_a dimensions.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Self

import torch
from torch import Tensor

from diffpolicy.checked import Range, validate
from diffpolicy.engines.guided import GuidedEngine
from diffpolicy.errors import DiffpolicyError
from diffpolicy.late.drop import DropHead, Sampled
from diffpolicy.sampling.guidance import BETA, prior_weight, rtc_weight, soft_mask
from diffpolicy.sampling.noise import make_levels

if TYPE_CHECKING:
    from diffpolicy.late.plan import Plans
    from diffpolicy.sampling.chain import Chain
    from diffpolicy.specification import Specification

SPREAD = "action_std"  # in the header of a run: of its normalised training actions, [D_a]
Spread = Annotated[list[float], Range(0, 1e6)]
MOST_NOISE = 80.0  # σ = b / a from which ε networks can start: J of x̂0 contains 1 / a


@dataclass(frozen=True, kw_only=True)
class Guided(DropHead):
    """RTC: x̂0 is drawn to the plan, wholly up to the expected delay and less and less after it.

    prior: the weight with the spread of the training actions, at most β, in place of RTC's.
    """

    prior: bool = False

    @classmethod
    def parse(cls, text: str, parts: Sequence[str]) -> Self:
        """The strategy of guided, guided:prior, each with :oracle. Raises DiffpolicyError."""
        if list(parts) not in ([], ["prior"], ["oracle"], ["prior", "oracle"]):
            raise DiffpolicyError(
                f"{text!r} is not a strategy for late chunks; expected guided, guided:prior, "
                "guided:oracle or guided:prior:oracle"
            )
        return cls(text, oracle="oracle" in parts, prior="prior" in parts)

    @property
    def plans(self) -> bool:
        """True: samples are drawn to the plan."""
        return True

    def check(self, specification: "Specification") -> None:
        """Raise DiffpolicyError for a run that starts from zero or does not hold its spread."""
        self.refuse_without_noise(specification, "does not start from noise")
        if self.prior and SPREAD not in specification.training:
            raise DiffpolicyError(
                f"--late {self.text}: the run does not hold {SPREAD}, the spread of its training "
                "actions, as runs of older versions and imported ones; train again, or try --late "
                "guided"
            )
        if self.prior:
            spread_of(specification)

    def check_chain(self, chain: "Chain", prediction: str) -> None:
        """Raise DiffpolicyError for a network of ε that starts above σ = 80."""
        if prediction == "epsilon" and chain.start_signal * MOST_NOISE < 1:
            raise DiffpolicyError(
                f"--late {self.text}: an ε network amplifies errors by 1 / √ᾱ = "
                f"{1 / chain.start_signal:.0f} at t = {chain.grid[0][0]}; expected x0 or v, or a "
                f"start at σ ≤ {MOST_NOISE:g}; try --start 90"
            )

    def engine(self, wanted: str) -> str:
        """The eager engine, the only one with gradients; DiffpolicyError for another."""
        return self.only_eager(wanted, "with gradients")

    def evaluations(self, network_evals: int) -> tuple[int, int]:
        """K evaluations and as many gradients."""
        return network_evals, network_evals

    def weights(self, specification: "Specification", chain: "Chain") -> Tensor:
        """w [K, D_a] of every evaluation."""
        model = specification.model
        every = make_levels(model.schedule, model.train_timesteps)
        levels = [every[row.t] for row in chain.rows]
        if not self.prior:
            rows = [[rtc_weight(a, b)] * specification.task.action_dim for a, b in levels]
        else:
            spread = spread_of(specification)
            rows = [[min(BETA, prior_weight(a, b, s)) for s in spread] for a, b in levels]
        return torch.tensor(rows)

    def sampled(self, policy: Any, batch: int) -> Sampled:
        """See `DropHead`."""
        job, horizons = policy.job(batch), policy.horizons
        engine = GuidedEngine(job, self.weights(policy.specification, policy.chain))
        encode, ahead = policy.engine(batch).encode, horizons.observation - 1

        def sample(histories: dict[str, Tensor], noise: Tensor, plans: "Plans") -> Tensor:
            mask = torch.zeros(len(plans.delay), horizons.prediction)
            mask[:, ahead:] = soft_mask(plans.delay, plans.planned, horizons.usable)
            return engine(encode(histories), noise, mask, plans.actions)

        return sample


def spread_of(specification: "Specification") -> list[float]:
    """Spread [D_a] of the training actions. Raises DiffpolicyError for another one."""
    where, count = f"{SPREAD} in the header of the run", specification.task.action_dim
    found: list[float] = validate(Spread, specification.training[SPREAD], where)
    if len(found) != count:
        raise DiffpolicyError(f"{where} has {len(found)} numbers; expected {count}")
    return found
