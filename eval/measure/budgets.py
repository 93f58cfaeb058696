"""What a sweep compares: every budget of a run, ancestral DDPM, and plain regression."""

from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

from diffpolicy.checked import validate
from diffpolicy.checkpoint import Checkpoint, load_policy, policy_path
from diffpolicy.config import Sampling
from diffpolicy.errors import DiffpolicyError
from diffpolicy.policy import Policy
from diffpolicy.sampling.chain import audit_line
from diffpolicy.sampling.grids import SPACINGS

from ..config import SweepConfig
from ..evaluate import policy_of
from .provenance import set_threads

REGRESSION = "regression"  # the baseline's folder in a run


def load_budgets(config: SweepConfig) -> list[Policy]:
    """One policy for each budget; regression first, ancestral DDPM over all T steps last."""
    set_threads(config.threads)
    checkpoint = load_policy(config.run)
    samplings = combinations(config)
    ancestral = Sampling(checkpoint.specification.model.train_timesteps, eta=1.0)
    if config.ddpm and ancestral not in samplings:
        samplings.append(ancestral)
    if set(samplings) == {ancestral}:
        raise DiffpolicyError(
            "a sweep needs a budget beside ancestral sampling over all T steps; give other "
            "--ddim-steps, or another --eta"
        )
    policies = baseline(config, checkpoint)
    policies += [policy_of(config, checkpoint, sampling) for sampling in samplings]
    for policy in policies:
        print(audit_line(policy.chain))
    return policies


def baseline(config: SweepConfig, checkpoint: Checkpoint) -> list[Policy]:
    """The regression policy, if there is one; it has to share data, task, horizons and network."""
    if checkpoint.specification.model.regression:
        raise DiffpolicyError(
            f"{config.run} is a regression policy, which has no budgets to sweep; give it by "
            "--regression beside a diffusion run"
        )
    run = _baseline_run(config)
    if run is None:
        return []
    found = load_policy(run)
    ours = {**_comparable(checkpoint), "regression": True}
    for what, theirs in _comparable(found).items():
        if theirs != ours[what]:
            raise DiffpolicyError(
                f"{run} cannot be the regression baseline of {config.run}: its {what} is {theirs}, "
                f"not {ours[what]}"
            )
    print(f"regression trained for {_effort(found)}; diffusion for {_effort(checkpoint)}")
    return [policy_of(config, found, Sampling(0))]


def _baseline_run(config: SweepConfig) -> Path | None:
    if config.regression != "auto":
        return None if config.regression == "none" else Path(config.regression)
    run = policy_path(config.run).parent / REGRESSION
    if policy_path(run).exists():
        return run
    print(f"no regression baseline in {run} (diffpolicy train --regression)")
    return None


def _comparable(checkpoint: Checkpoint) -> dict[str, Any]:
    """What a baseline must share, and that it is one."""
    specification = checkpoint.specification
    return {
        "regression": specification.model.regression,
        "network": replace(specification.model, regression=True),
        "horizons": specification.horizons,
        "task": replace(specification.task, observation_keys=None),  # older runs have none
        "data": specification.training.get("fingerprint"),
    }


@dataclass(frozen=True)
class Options:
    """The part of a run's configuration that is told here."""

    batch: int
    lr: float


@dataclass(frozen=True)
class Effort:
    """The part of a run's provenance that is told here."""

    step: int
    elapsed_s: float
    config: Options


def _effort(checkpoint: Checkpoint) -> str:
    where = f"the provenance in {checkpoint.folder}"
    effort: Effort = validate(Effort, checkpoint.specification.training, where, others=True)
    return (
        f"{effort.step} steps in {effort.elapsed_s / 60:.1f} min "
        f"(batch {effort.config.batch}, lr {effort.config.lr:g})"
    )


def combinations(config: SweepConfig) -> list[Sampling]:
    """Every budget with every grid, start, end, η, noise scale and clip; what is the same, once."""
    starts, clips = config.start or (None,), config.clip or (None,)
    variants = product(config.grid, starts, config.end, config.eta, config.noise_scale, clips)
    found = (
        _meant(Sampling(k, grid, start, end, eta, scale, clip))
        for grid, start, end, eta, scale, clip in variants
        for k in sorted(set(config.ddim_steps))
    )
    return list(dict.fromkeys(found))


def _meant(sampling: Sampling) -> Sampling:
    """Without what has no say: a list is its own budget and ends, and η = 0 injects no noise."""
    if sampling.grid not in SPACINGS:
        sampling = replace(sampling, ddim_steps=None, start=None, end=0)
    return sampling if sampling.eta else replace(sampling, noise_scale=1.0)
