"""Facts of a step budget that evaluation reports: all of a run's, few of a policy of others."""

from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import torch

from diffpolicy.checked import validate
from diffpolicy.control.external import External
from diffpolicy.errors import DiffpolicyError
from diffpolicy.policy import Policy
from diffpolicy.sampling.chain import audit, audit_line
from diffpolicy.specification import Specification

from .results import Audit, Cameras, Source, Training

Budget = Policy | External  # a policy with one step budget
EXTERNAL = "external"  # engine of a policy of others


@dataclass(frozen=True)
class Seeded:
    """The part of a run's options that tells it from others of its recipe."""

    seed: int


@dataclass(frozen=True, kw_only=True)
class Description:
    """A step budget in results; None is unknown. policy: module:factory of a policy of others.

    line: the budget on the terminal. run: name of the run's folder, where there are several. cost:
    network evaluations and gradients of a chunk, else the steps. late: strategy for late chunks.
    """

    name: str
    line: str
    ddim_steps: int
    cost: int
    run: str | None = None
    policy: str | None = None
    network_evals: int | None = None
    gradient_evals: int | None = None
    late: str = "drop"
    variant: str = ""
    eta: float | None = None
    audit: Audit | None = None
    trained: Training = field(default_factory=Training)
    regression: bool = False
    parameters: int | None = None
    precision: str | None = None
    cameras: Cameras | None = None
    crop: float | None = None


def describe(budget: Budget) -> Description:
    """Facts of a budget, of the same kind for every policy."""
    return _of_others(budget) if isinstance(budget, External) else _of_run(budget)


def _of_others(policy: External) -> Description:
    steps = f"{policy.steps} step{'s' * (policy.steps > 1)}"
    name = ", ".join(filter(None, [steps, policy.variant]))
    return Description(
        name=name,
        line=f"{name}: {policy.name}",
        ddim_steps=policy.steps,
        cost=policy.steps,
        policy=policy.reference,
        late=policy.late.text,
        variant=policy.variant,
    )


def _of_run(policy: Policy) -> Description:
    prefix = f"{policy.label}: " if policy.label else ""
    return Description(
        name=prefix + policy.chain.name,
        line=prefix + audit_line(policy.chain) + _late_cost(policy),
        ddim_steps=policy.ddim_steps,
        cost=policy.network_evals + policy.gradient_evals,
        run=policy.label or None,
        network_evals=policy.network_evals,
        gradient_evals=policy.gradient_evals,
        late=policy.late.text,
        variant=policy.chain.kind,
        eta=policy.sampling.eta,
        audit=audit_of(policy),
        trained=_training(policy),
        regression=policy.regression,
        parameters=policy.parameters,
        precision=policy.precision,
        **seen_by(policy.specification),
    )


def _late_cost(policy: Policy) -> str:
    """The cost of a late chunk, if it is not that of the chain."""
    evals, gradients = policy.network_evals, policy.gradient_evals
    if (evals, gradients) == (len(policy.chain.rows), 0):
        return ""
    more = f" and {gradients} gradients" if gradients else ""
    return f"; {evals} evaluations{more} for a chunk with a plan"


def audit_of(policy: Policy) -> Audit:
    """Timesteps and coefficients of a budget, for a result."""
    return validate(Audit, audit(policy.chain), "the audit", others=True)


def _training(policy: Policy) -> Training:
    """Steps and seconds in the training provenance; None for a value of another type."""
    found = {}
    for name in ("step", "elapsed_s"):
        with suppress(DiffpolicyError):
            value = policy.specification.training.get(name)
            found[name] = getattr(validate(Training, {name: value}, name, others=True), name)
    with suppress(DiffpolicyError):
        options = policy.specification.training.get("config")
        found["training_seed"] = validate(Seeded, options, "config", others=True).seed
    return Training(**found)


def seen_by(specification: Specification) -> dict[str, Any]:
    """The fields `cameras` and `crop` of a row, which the latency depends on; none for vectors."""
    observations = specification.task.observations
    cameras = {key: list(spec.shape) for key, spec in observations.items() if spec.is_picture}
    return {"cameras": cameras, "crop": specification.model.crop} if cameras else {}


def source_of(budget: Budget) -> Source:
    """The training of a run, as its checkpoint says. Raises DiffpolicyError if damaged."""
    if isinstance(budget, External):
        return Source()
    where = "the training provenance of the checkpoint"
    return validate(Source, budget.specification.training, where, others=True)


def device_of(budget: Budget) -> torch.device:
    """The device that this process knows of; a policy of others may use more."""
    return torch.device("cpu") if isinstance(budget, External) else budget.device
