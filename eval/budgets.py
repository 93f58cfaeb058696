"""What a sweep compares: every budget of a run, ancestral DDPM, and plain regression."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from typing import Any

from diffpolicy.chain import audit_line
from diffpolicy.checkpoint import Checkpoint, load_policy, policy_path
from diffpolicy.config import Sampling
from diffpolicy.errors import DiffpolicyError
from diffpolicy.grids import SPACINGS
from diffpolicy.policy import Policy

from .config import SweepConfig
from .header import set_threads
from .success import policy_of, sampler_name

REGRESSION = "regression"  # the baseline's folder in a run


def load_budgets(config: SweepConfig) -> list[Policy]:
    """One policy for each budget; regression first, ancestral DDPM over all T steps last."""
    set_threads(config.threads)
    if not config.ddim_steps:
        raise DiffpolicyError("--ddim-steps needs at least one budget")
    checkpoint = load_policy(config.run)
    samplings = list(combinations(config))
    ancestral = Sampling(checkpoint.specification.model.train_timesteps, eta=1.0)
    if config.ddpm and ancestral not in samplings:
        samplings.append(ancestral)
    policies = baseline(config, checkpoint)
    policies += [policy_of(config, checkpoint, sampling) for sampling in samplings]
    for policy in policies:
        print(audit_line(sampler_name(policy), policy.chain))
    return policies


def baseline(config: SweepConfig, checkpoint: Checkpoint) -> list[Policy]:
    """The regression policy, if there is one; it has to share data, task, horizons and network."""
    if checkpoint.specification.model.regression:
        raise DiffpolicyError(
            f"{config.run} is a regression policy, which has no budgets to sweep; give it by "
            "--regression beside a diffusion run"
        )
    run = config.regression or policy_path(config.run).parent / REGRESSION
    if config.regression is None and not policy_path(run).exists():
        print(f"no regression baseline: {run} holds none (diffpolicy train --regression)")
        return []
    found = load_policy(run)
    ours, theirs = _comparable(checkpoint), _comparable(found)
    for what, value in ours.items():
        if theirs[what] != value:
            raise DiffpolicyError(
                f"{run} cannot be the regression baseline of {config.run}: its {what} is "
                f"{theirs[what]}, not {value}"
            )
    return [policy_of(config, found, Sampling(0))]


def _comparable(checkpoint: Checkpoint) -> dict[str, Any]:
    """What a baseline must share."""
    specification = checkpoint.specification
    return {
        "network": replace(specification.model, regression=True),
        "horizons": specification.horizons,
        "task": specification.task,
        "data": specification.training.get("fingerprint"),
    }


def combinations(config: SweepConfig) -> Iterator[Sampling]:
    """Every budget with every grid, start, end, η, noise scale and clip; a listed grid once."""
    starts, clips = config.start or (None,), config.clip or (None,)
    variants = product(config.grid, starts, config.end, config.eta, config.noise_scale, clips)
    listed = set()
    for grid, start, end, eta, scale, clip in variants:
        if grid in SPACINGS:
            for ddim_steps in sorted(set(config.ddim_steps)):
                yield Sampling(ddim_steps, grid, start, end, eta, scale, clip)
        elif (grid, eta, scale, clip) not in listed:
            listed.add((grid, eta, scale, clip))
            yield Sampling(1, grid, None, 0, eta, scale, clip)
