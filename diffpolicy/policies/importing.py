"""`diffpolicy import-policy`: a trained policy of another library as a run folder."""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from diffpolicy import environment
from diffpolicy.checked import parse_json, validate
from diffpolicy.checkpoint import (
    Checkpoint,
    check_finite,
    check_tensors,
    policy_path,
    save_policy,
)
from diffpolicy.config import Sampling
from diffpolicy.data.normalizer import Normalizer
from diffpolicy.denoisers import build_network
from diffpolicy.environment.fit import described
from diffpolicy.errors import DiffpolicyError
from diffpolicy.files import check_writable
from diffpolicy.policies import diffusion_policy, lerobot
from diffpolicy.policies.config import ImportPolicyConfig
from diffpolicy.policies.foreign import Foreign
from diffpolicy.sampling.chain import audit_line, make_chain
from diffpolicy.specification import (
    ACTION,
    NO_ENVIRONMENT,
    ObservationSpec,
    Specification,
    Task,
)


def import_policy(config: ImportPolicyConfig) -> None:
    """Write the run folder, and print its sampler and what the run cannot hold."""
    out = policy_path(config.out)
    if config.out.suffix == ".safetensors" or config.out.is_file() or out.exists():
        raise DiffpolicyError(f"--out {config.out} is taken; expected a new run folder")
    foreign = _reader(config.source)(config.source)
    checkpoint, notes = _checkpoint(config, foreign)
    _check(checkpoint, config.source)
    check_writable(out)
    save_policy(out, checkpoint)
    spec = checkpoint.specification
    count = sum(weight.numel() for weight in checkpoint.weights.values())
    print(f"wrote {out}: a policy of {count:,} parameters")
    chain = make_chain(
        spec.model, spec.clip_range, Sampling(), spec.grid, spec.rederive, spec.schedules
    )
    for line in (audit_line(chain), *foreign.notes, *notes):
        print(f"  {line}")


def _reader(source: Path) -> Callable[[Path], Foreign]:
    """The reader of a source, recognised by its files."""
    if (source / lerobot.CONFIG).is_file() and (source / lerobot.WEIGHTS).is_file():
        return lerobot.read
    if source.is_file():
        return diffusion_policy.read
    inside = sorted(path.parent for path in source.glob(f"*/{lerobot.CONFIG}"))
    advice = f"; try {inside[0]}" if inside else ""
    raise DiffpolicyError(
        f"{source} is not a trained policy; expected a folder of LeRobot with {lerobot.CONFIG} "
        f"and {lerobot.WEIGHTS}, or a checkpoint file of Diffusion Policy{advice}"
    )


def _checkpoint(config: ImportPolicyConfig, foreign: Foreign) -> tuple[Checkpoint, list[str]]:
    """The checkpoint of a policy for its task, and sentences about the environment."""
    facts, notes = _facts(config, foreign)
    task = Task(observations=foreign.observations, action_dim=foreign.action_dim, **facts)
    specification = Specification(
        model=foreign.model,
        horizons=foreign.horizons,
        task=task,
        clip_range=foreign.clip_range,
        training={"source": str(config.source), **foreign.origin},
        grid=foreign.grid,
        rederive=foreign.rederive,
    )
    normalizers = foreign.observation_normalizers, foreign.action_normalizer
    return Checkpoint(specification, foreign.weights, *normalizers), notes


def _facts(config: ImportPolicyConfig, foreign: Foreign) -> tuple[dict[str, Any], list[str]]:
    """Environment, control period and meaning of the actions; from the environment or options."""
    kwargs = environment.parse_kwargs(config.env_kwargs)
    dt, targets, notes = config.control_dt, config.position_targets, []
    if config.env:
        env = environment.make(config.env, kwargs)
        try:
            dt = environment.control_dt_s(env, dt)
            targets = environment.declared(env, "position_targets") if targets is None else targets
            notes = _differences(env, foreign)
        finally:
            env.close()
    asked = ["--control-dt SECONDS"] if dt is None else []
    asked += ["--position-targets True or False"] if targets is None else []
    if asked:
        raise DiffpolicyError(
            f"{config.source} does not say how long a control tick lasts, and if its actions are "
            f"targets of positions, such as joint angles; give {' and '.join(asked)}"
        )
    facts = {"env_id": config.env or NO_ENVIRONMENT, "env_kwargs": kwargs}
    return {**facts, "control_dt_s": dt, "position_targets": bool(targets)}, notes


def _differences(env: Any, foreign: Foreign) -> list[str]:
    """One sentence if the environment does not have the policy's observations and actions."""
    found, asked = env.observations, foreign.observations
    fits = all(key in found and found[key].shape == spec.shape for key, spec in asked.items())
    if fits and env.action_space.shape == (foreign.action_dim,):
        return []
    return [
        f"{env.spec.id} observes {_keys(found)}, with {env.action_space.shape[0]} actions; the "
        f"policy expects {_keys(asked)}, with {foreign.action_dim}, so it cannot be evaluated there"
    ]


def _keys(observations: dict[str, ObservationSpec]) -> str:
    return ", ".join(f"{key} ({described(spec)})" for key, spec in observations.items())


def _check(checkpoint: Checkpoint, source: Path) -> None:
    """Raise DiffpolicyError for a policy that could not be loaded again; before it is written."""
    header = parse_json(json.dumps(asdict(checkpoint.specification)), str(source))
    validate(Specification, header, str(source))
    with torch.device("meta"):
        network = build_network(checkpoint.specification)
    check_tensors(checkpoint.weights, network.state_dict(), source)
    check_finite(checkpoint.weights, source)
    for key, normalizer in checkpoint.observation_normalizers.items():
        _check_normalizer(key, normalizer, source)
    _check_normalizer(ACTION, checkpoint.action_normalizer, source)


def _check_normalizer(key: str, normalizer: Normalizer, source: Path) -> None:
    """Raise DiffpolicyError for a scale of 0 or numbers that are not finite."""
    varies = normalizer.scale != 0 if normalizer.constant is None else True
    if not (np.isfinite(normalizer.scale) & np.isfinite(normalizer.offset) & varies).all():
        raise DiffpolicyError(f"{source}: the normaliser of {key} has a scale of 0, NaN or inf")
