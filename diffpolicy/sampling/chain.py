"""One step budget worked out: which levels it visits, at which coefficients, and what that says."""

from dataclasses import asdict
from typing import Any, NamedTuple

from diffpolicy.config import ModelConfig, Sampling
from diffpolicy.errors import DiffpolicyError
from diffpolicy.sampling import ddim as sampler
from diffpolicy.sampling import grids
from diffpolicy.sampling.noise import CLEAN, alpha_bar_table


class Chain(NamedTuple):
    """What a sampler needs besides the network and the noise."""

    grid: grids.Grid
    steps: list[sampler.Step]
    reading: sampler.Reading


def make_chain(model: ModelConfig, clip_range: float | None, sampling: Sampling) -> Chain:
    """The chain of a model under `sampling`; clip_range is the one it was trained with.

    Raises DiffpolicyError where the budget, its grid or η do not fit the model.
    """
    if sampling.noise_scale != 1 and not sampling.eta:
        raise DiffpolicyError("a noise scale needs --eta above 0: DDIM injects no noise")
    timesteps = model.train_timesteps
    table = alpha_bar_table(model.schedule, timesteps)
    if model.regression:  # one step from T - 1 that ends at the network's answer
        if sampling not in (Sampling(), Sampling(0)):
            given = {k: v for k, v in asdict(sampling).items() if v != getattr(Sampling(), k)}
            raise DiffpolicyError(
                "this is a regression policy, without denoising steps; give it --ddim-steps 0, or "
                f"nothing, and no other sampler's option; got {given}"
            )
        grid = [(timesteps - 1, CLEAN)]
        return Chain(grid, sampler.make_steps(table, grid), sampler.Reading("x0", clip_range))
    grid = grids.parse_grid(
        timesteps, sampling.grid, sampling.ddim_steps, sampling.start, sampling.end
    )
    steps = sampler.make_steps(table, grid, sampling.eta, sampling.noise_scale)
    clip = clip_range if sampling.clip is None else sampling.clip or None
    return Chain(grid, steps, sampler.Reading(model.prediction, clip))


def audit(chain: Chain) -> dict[str, Any]:
    """What a budget really does, for results: every trap of a step sweep shows here."""
    return {
        "timesteps": [t for t, _ in chain.grid],
        "network_evals": len(chain.steps),
        "sqrt_alpha_bar_start": chain.steps[0].signal_t,
        "duplicates": grids.duplicates(chain.grid),
        "noise_injected": sum(step.injected > 0 for step in chain.steps),
    }
