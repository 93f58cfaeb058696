"""Warm start: the plan with noise is denoised, in place of noise alone.

RTI-DP, arXiv 2508.05396; STEP, arXiv 2602.08245. Shapes: B batch, T_p prediction horizon, D_a
action dimensions.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor

from diffpolicy.config import Sampling
from diffpolicy.engines import build_engine
from diffpolicy.errors import DiffpolicyError
from diffpolicy.late.drop import DropHead, Sampled
from diffpolicy.sampling.chain import USUAL_GRID, Chain, make_chain
from diffpolicy.sampling.noise import make_levels

if TYPE_CHECKING:
    from diffpolicy.late.plan import Plans
    from diffpolicy.specification import Specification


@dataclass(frozen=True, kw_only=True)
class Warm(DropHead):
    """x_t' = √ᾱ_t' Ŷ + √(1-ᾱ_t') z, then K steps of DDIM from t' on, on the trailing grid.

    Ŷ: the executed and planned actions, the last one repeated. A chunk that control waits for has
    the budget of the policy. One that nothing is planned for, as after starvation, has K steps of
    DDIM from pure noise, so that every late chunk costs K evaluations.
    """

    timestep: int
    steps: int

    @classmethod
    def parse(cls, text: str, parts: Sequence[str]) -> Self:
        """The strategy of warm:T:K. Raises DiffpolicyError."""
        if len(parts) != 2 or not all(part.isdecimal() and len(part) < 7 for part in parts):
            raise DiffpolicyError(
                f"{text!r} is not a warm start; expected warm:T:K, the timestep to start from and "
                "the number of steps; try warm:50:2"
            )
        timestep, steps = map(int, parts)
        return cls(text, timestep=timestep, steps=steps)

    @property
    def plans(self) -> bool:
        """True: it starts from the plan."""
        return True

    def check(self, specification: "Specification") -> None:
        """Raise DiffpolicyError for a run without noise, and for T and K that do not fit it."""
        self.refuse_without_noise(specification, "does not start from noise")
        try:
            chains = [self.chain(specification, None, start) for start in (self.timestep, None)]
        except DiffpolicyError as error:
            raise DiffpolicyError(f"--late {self.text}: {error}") from error
        known = {t for times in specification.schedules for t in times}
        used = {row.t for chain in chains for row in chain.rows}
        if specification.model.objective == "distilled" and not used <= known:
            raise DiffpolicyError(
                f"--late {self.text}: a distilled policy knows the timesteps "
                f"{' '.join(map(str, sorted(known)))} alone; expected warm:{min(known)}:1"
            )

    def evaluations(self, network_evals: int) -> tuple[int, int]:
        """K evaluations of every chunk but those that control waits for."""
        return self.steps, 0

    def chain(self, specification: "Specification", clip: float | None, start: int | None) -> Chain:
        """K steps of DDIM from a timestep on, by default T - 1; clip: as in `Sampling`."""
        s = specification
        sampling = Sampling(self.steps, USUAL_GRID, start=start, clip=clip)
        return make_chain(s.model, s.clip_range, sampling, s.grid, s.rederive, s.schedules)

    def sampled(self, policy: Any, batch: int) -> Sampled:
        """See `DropHead`. Every loop that has a row runs on the whole batch."""
        stages, job = policy.engine(batch), policy.job(batch)
        own, about = stages.loop, (policy.specification, policy.sampling.clip)

        def loop(start: int | None) -> Any:
            return build_engine(own.name, replace(job, chain=self.chain(*about, start)))

        warm, cold = loop(self.timestep), loop(None)

        def sample(histories: dict[str, Tensor], noise: Tensor, plans: "Plans") -> Tensor:
            observation, z, planned = stages.encode(histories), noise[:1], plans.planned > 0
            begun = self.begin(policy.specification, plans.actions, z)
            starts = (
                (own, noise, plans.waited),
                (warm, begun, planned),
                (cold, z, ~(plans.waited | planned)),
            )
            chunk = torch.empty_like(noise[0])
            for engine, start, rows in starts:
                if rows.any():
                    chunk[rows] = engine(observation, start)[rows]
            return chunk

        return sample

    def begin(self, specification: "Specification", planned: Tensor, z: Tensor) -> Tensor:
        """x_t' of the plan Ŷ [B, T_p, D_a] and noise z of its shape or [1, B, T_p, D_a]."""
        model = specification.model
        signal, noise = make_levels(model.schedule, model.train_timesteps)[self.timestep]
        return signal * planned + noise * z
