"""Budgets of a command: those of a policy of others, or those of a run with its comparisons."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

from diffpolicy.checked import validate
from diffpolicy.checkpoint import Checkpoint, load_policy
from diffpolicy.config import Sampling, sampling_of
from diffpolicy.control.external import External
from diffpolicy.errors import DiffpolicyError
from diffpolicy.policy import Policy
from diffpolicy.sampling.chain import OPTIMISED
from diffpolicy.sampling.grids import DEFAULT_STEPS, SPACINGS

from ..config import DelaysConfig, EvalConfig, SweepConfig
from .description import Budget, describe
from .evaluator import policy_of
from .run import Run, run_of


def load_budget(config: EvalConfig | DelaysConfig) -> Budget:
    """The policy of a command that evaluates one budget."""
    if config.policy is not None:
        return External(config.policy, config.ddim_steps or DEFAULT_STEPS)
    return policy_of(config, load_policy(run_of(config)), sampling_of(config))


def load_budgets(config: SweepConfig) -> list[Budget]:
    """One policy for each budget; regression first, ancestral DDPM over all T steps last."""
    if config.policy is not None:
        return [External(config.policy, steps) for steps in sorted(set(config.ddim_steps))]
    return [*_of_run(config, load_policy(run_of(config)))]  # a list of a wider type


def _of_run(config: SweepConfig, checkpoint: Checkpoint) -> list[Policy]:
    own = checkpoint.specification.grid
    samplings = [replace(s, grid=s.grid or own) for s in combinations(config)]
    samplings = list(dict.fromkeys(samplings))
    ancestral = Sampling(checkpoint.specification.model.train_timesteps, own, eta=1.0)
    if config.ddpm and ancestral not in samplings:
        samplings.append(ancestral)
    if set(samplings) == {ancestral}:
        raise DiffpolicyError(
            "a sweep needs a budget beside ancestral sampling over all T steps; try other "
            "--ddim-steps, or another --eta"
        )
    policies = _regression(config, checkpoint)
    return policies + [policy_of(config, checkpoint, sampling) for sampling in samplings]


def describe_budgets(config: SweepConfig, policies: Sequence[Budget]) -> Iterator[str]:
    """Lines on the training of regression and diffusion, and on the chain of each budget."""
    ours = [policy for policy in policies if isinstance(policy, Policy)]
    if ours and ours[0].regression:
        yield f"regression trained for {_effort(ours[0])}; diffusion for {_effort(ours[-1])}"
    elif ours and config.regression == "auto":
        where = Run(run_of(config)).regression
        yield f"no regression policy in {where} (diffpolicy train --objective regression)"
    yield from (describe(policy).line for policy in policies)


def _regression(config: SweepConfig, checkpoint: Checkpoint) -> list[Policy]:
    """The regression policy, if any, with the data, task, horizons and network of the run."""
    if checkpoint.specification.model.regression:
        raise DiffpolicyError(
            f"{config.run} is a regression policy, which has no budgets to sweep; expected a "
            "diffusion run; try --regression for this one"
        )
    run = _regression_run(config)
    if run is None:
        return []
    found = load_policy(run)
    ours = {**_comparable(checkpoint), "regression": True}
    for part, theirs in _comparable(found).items():
        if theirs != ours[part]:
            raise DiffpolicyError(
                f"{run} cannot be the regression policy of {config.run}: its {part} is {theirs}, "
                f"not {ours[part]}"
            )
    return [policy_of(config, found, Sampling(0))]


def _regression_run(config: SweepConfig) -> Path | None:
    if config.regression != "auto":
        return None if config.regression == "none" else Path(config.regression)
    run = Run(run_of(config))
    return run.regression if run.has_regression else None


def _comparable(checkpoint: Checkpoint) -> dict[str, object]:
    """Facts that a regression policy shares with its diffusion run, and that it is one."""
    specification = checkpoint.specification
    return {
        "regression": specification.model.regression,
        "network": replace(specification.model, objective="regression"),
        "horizons": specification.horizons,
        "task": replace(specification.task, observation_keys=None),  # older runs have none
        "data": specification.training.get("fingerprint"),
    }


@dataclass(frozen=True)
class Options:
    """The part of a run's configuration that is printed."""

    batch: int
    lr: float


@dataclass(frozen=True)
class Effort:
    """The part of a run's provenance that is printed."""

    step: int
    elapsed_s: float
    config: Options


def _effort(policy: Policy) -> str:
    where = "the training provenance of the checkpoint"
    effort: Effort = validate(Effort, policy.specification.training, where, others=True)
    return (
        f"{effort.step} steps in {effort.elapsed_s / 60:.1f} min "
        f"(batch {effort.config.batch}, lr {effort.config.lr:g})"
    )


def combinations(config: SweepConfig) -> list[Sampling]:
    """Every budget with every other option of sampling, without duplicates."""
    options = {
        "sampler": config.sampler,
        "grid": config.grid or (None,),
        "start": config.start or (None,),
        "end": config.end,
        "eta": config.eta,
        "noise_scale": config.noise_scale,
        "clip": config.clip or (None,),
        "ddim_steps": sorted(set(config.ddim_steps)),
    }
    found = (
        _effective(Sampling(**dict(zip(options, values, strict=True))))
        for values in product(*options.values())
    )
    return list(dict.fromkeys(found))


def _effective(sampling: Sampling) -> Sampling:
    """Drop options that have no effect: a list fixes steps and ends; η = 0 ignores noise_scale."""
    if sampling.grid not in (None, OPTIMISED, *SPACINGS):
        sampling = replace(sampling, ddim_steps=None, start=None, end=0)
    return sampling if sampling.eta else replace(sampling, noise_scale=1.0)
