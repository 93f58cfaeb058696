"""Deadline cut: a chain that runs late goes on over fewer steps, so that its chunk is not late.

Shapes: B batch, T_p prediction horizon, D_a action dimensions.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from statistics import quantiles
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor

from diffpolicy.config import Sampling
from diffpolicy.engines.chain_loop import timed_denoiser
from diffpolicy.errors import DiffpolicyError
from diffpolicy.late.drop import DropHead, Sampled
from diffpolicy.sampling.chain import reading
from diffpolicy.sampling.ddim import ddim
from diffpolicy.sampling.deadline import Deadline, sample_in_time
from diffpolicy.sampling.noise import make_levels
from diffpolicy.sampling.steps import Row

if TYPE_CHECKING:
    from diffpolicy.late.plan import Plans
    from diffpolicy.specification import Specification

TRIED, WARM_UP = 40, 5  # evaluations that are timed, and those before


@dataclass(frozen=True, kw_only=True)
class Cut(DropHead):
    """Cut the chain of the policy so that it ends `deadline_ms` after its start.

    After each evaluation the evaluations that still end in time are counted; if they are fewer than
    the grid has left, the trailing grid of as many from the present level replaces it. An
    evaluation is taken to last the 95th percentile of those timed when the policy is prepared. The
    evaluations really made are kept in `Policy.evaluations_made`. DDIM without noise, on the eager
    engine and the wall clock. Late chunks are still cut at their head.
    """

    deadline_ms: float

    @classmethod
    def parse(cls, text: str, parts: Sequence[str]) -> Self:
        """The strategy of cut:MS. Raises DiffpolicyError."""
        try:
            (found,) = map(float, parts)
            if not 0 < found <= 1e6:
                raise ValueError
        except ValueError:
            raise DiffpolicyError(
                f"{text!r} is not a deadline cut; expected cut:MS, milliseconds from the start of "
                "an inference to its end, above 0; try cut:18 for a control period of 20 ms"
            ) from None
        return cls(text, deadline_ms=found)

    @property
    def plans(self) -> bool:
        """True: sampling is its own, though it does not depend on the plan."""
        return True

    @property
    def wall_only(self) -> bool:
        """True: the number of evaluations depends on real time."""
        return True

    def check(self, specification: "Specification") -> None:
        """Raise DiffpolicyError for an objective that has no levels to leave out."""
        self.refuse_without_noise(specification, "has no chain to cut")

    def engine(self, wanted: str) -> str:
        """The eager engine, which stops between evaluations; DiffpolicyError for another."""
        return self.only_eager(wanted, "that stops between evaluations")

    def sampled(self, policy: Any, batch: int) -> Sampled:
        """See `DropHead`. Raises DiffpolicyError for samplers that it cannot cut."""
        self._check(policy.sampling)
        job, encode = policy.job(batch), policy.engine(batch).encode
        given = timed_denoiser(job)
        times = [t for t, _ in policy.chain.grid]
        row_of = rows_of(policy)
        device, shape = job.denoiser.device, job.noise_shape[1:]
        evaluation_s = self._time(given, torch.zeros(job.observation_shape, device=device), shape)

        @torch.inference_mode()
        def sample(histories: dict[str, Tensor], noise: Tensor, plans: "Plans") -> Tensor:
            deadline = Deadline(time.perf_counter() + self.deadline_ms / 1000, evaluation_s)
            denoise = given(encode(histories))
            x, visited = sample_in_time(denoise, noise[0].to(device), times, row_of, deadline)
            policy.evaluations_made.append(len(visited))
            return x.cpu()

        return sample

    def _check(self, sampling: Sampling) -> None:
        if sampling.sampler != "ddim" or sampling.eta:
            raise DiffpolicyError(
                f"--late {self.text} cuts chains of DDIM without noise; got --sampler "
                f"{sampling.sampler} --eta {sampling.eta:g}"
            )

    @torch.inference_mode()
    def _time(self, given: Any, observation: Tensor, shape: Sequence[int]) -> float:
        """Seconds of one evaluation on this machine: the 95th percentile of some."""
        denoise, x, found = given(observation), torch.zeros(tuple(shape)), []
        for _ in range(WARM_UP + TRIED):
            start = time.perf_counter()
            denoise(x.to(observation.device), 0).cpu()
            found.append(time.perf_counter() - start)
        return quantiles(found[WARM_UP:], n=20)[-1]


def rows_of(policy: Any) -> Any:
    """(t, s) -> the step of DDIM from t to s, read and clipped as in the policy's chain."""
    model, chain = policy.specification.model, policy.chain
    table = make_levels(model.schedule, model.train_timesteps)
    clip = None if chain.rows[0].clip == float("inf") else chain.rows[0].clip

    @cache
    def row_of(t: int, s: int) -> Row:
        options = {"prediction": reading(model), "clip": clip}
        return ddim(table, [(t, s)], **options, rederive=clip is not None and chain.rederive)[0]

    return row_of
