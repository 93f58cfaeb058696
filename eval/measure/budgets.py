"""Budgets of a command: those of a policy of others, or those of a run with its comparisons."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

from diffpolicy.checked import validate
from diffpolicy.checkpoint import Checkpoint, load_policy
from diffpolicy.config import ModelConfig, Sampling, sampling_of
from diffpolicy.control.external import External
from diffpolicy.errors import DiffpolicyError
from diffpolicy.policy import Policy
from diffpolicy.sampling.chain import own_budgets
from diffpolicy.sampling.grids import DEFAULT_STEPS, NAMED

from ..config import Combinations, EvalConfig, SweepConfig
from ..delays_config import DelaysConfig
from .description import Budget, describe
from .evaluator import policy_of
from .run import Run, run_of
from .runs import budgets_of, load_runs
from .steps import steps_of


def load_budget(config: EvalConfig) -> Budget:
    """The policy of a command that evaluates one budget."""
    if config.policy is not None:
        return External(config.policy, config.ddim_steps or DEFAULT_STEPS, config.late)
    return policy_of(config, load_policy(run_of(config)), sampling_of(config))


def load_budgets(config: SweepConfig | DelaysConfig) -> list[Budget]:
    """One policy for each budget; regression first, ancestral DDPM over all T steps last.

    Of several runs the budgets of each, in the order of the runs (see `runs`).
    """
    if config.policy is not None:
        found = product(sorted(set(config.ddim_steps)), dict.fromkeys(config.late))
        return [External(config.policy, steps, late) for steps, late in found]
    if config.runs:
        return [*_of_runs(config)]
    checkpoint = load_policy(run_of(config))  # below, lists of a wider type
    if isinstance(config, SweepConfig):
        return [*_of_run(config, checkpoint)]
    return [policy_of(config, checkpoint, s) for s in _samplings(config, checkpoint)]


def _of_runs(config: SweepConfig | DelaysConfig) -> list[Policy]:
    found, labels = [], set()
    for label, checkpoint in load_runs(config.runs):
        if label in labels and not isinstance(config, SweepConfig):
            raise DiffpolicyError(
                f"{label} holds runs of several training seeds; expected a run; give one of them"
            )
        labels.add(label)
        found += budgets_of(config, label, checkpoint, _samplings(config, checkpoint))
    if not found:
        raise DiffpolicyError(f"no run fits --late {' '.join(config.late)}; try drop beside")
    return found


def _samplings(config: Combinations, checkpoint: Checkpoint) -> list[Sampling]:
    """The combinations on the grid of the run; of a run with budgets of its own, those."""
    own = checkpoint.specification.grid
    steps = steps_of(config.ddim_steps, checkpoint.specification)
    found = combinations(replace(config, ddim_steps=tuple(steps)))
    return list(dict.fromkeys(replace(s, grid=s.grid or own) for s in found))


def _of_run(config: SweepConfig, checkpoint: Checkpoint) -> list[Policy]:
    own, samplings = checkpoint.specification.grid, _samplings(config, checkpoint)
    ancestral = Sampling(checkpoint.specification.model.train_timesteps, own, eta=1.0)
    any_budget = own_budgets(checkpoint.specification) is None
    if config.ddpm and any_budget and ancestral not in samplings:
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
    if config.runs:
        first = {(p.label, describe(p).trained.training_seed): p for p in reversed(ours)}
        yield from (f"{p.label} trained for {_effort(p)}" for p in reversed(first.values()))
    elif ours and ours[0].regression:
        yield f"regression trained for {_effort(ours[0])}; diffusion for {_effort(ours[-1])}"
    elif ours and config.regression == "auto":
        where = Run(run_of(config)).regression
        yield f"no regression policy in {where} (`diffpolicy train --objective regression`)"
    yield from dict.fromkeys(describe(policy).line for policy in policies)


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
        "network": replace(specification.model, **_unused_by_regression()),
        "horizons": specification.horizons,
        "task": replace(specification.task, observation_keys=None),  # older runs have none
        "data": specification.training.get("fingerprint"),
    }


def _unused_by_regression() -> dict[str, object]:
    """Options of a model that training and use of regression do not depend on, at one value."""
    names = ("schedule", "prediction", "mip_timestep", "time_sampling")
    return {"objective": "regression", **{name: getattr(ModelConfig, name) for name in names}}


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


def combinations(config: Combinations) -> list[Sampling]:
    """Every budget with every other option of sampling, without duplicates."""
    options = {
        "sampler": config.sampler,
        "grid": config.grid or (None,),
        "start": config.start or (None,),
        "end": config.end,
        "eta": config.eta,
        "noise_scale": config.noise_scale,
        "start_scale": config.start_scale,
        "clip": config.clip or (None,),
        "late": config.late,
        "ddim_steps": sorted(set(config.ddim_steps)),
    }
    found = (
        _effective(Sampling(**dict(zip(options, values, strict=True))))
        for values in product(*options.values())
    )
    return list(dict.fromkeys(found))


def _effective(sampling: Sampling) -> Sampling:
    """Drop options that have no effect: a list fixes steps and ends; η = 0 ignores noise_scale."""
    if sampling.grid not in (None, *NAMED):
        sampling = replace(sampling, ddim_steps=None, start=None, end=0)
    return sampling if sampling.eta else replace(sampling, noise_scale=1.0)
