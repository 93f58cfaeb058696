"""The start of a training: options against the run folder, its target, and its first weights."""

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from diffpolicy import checkpoint as checkpoints
from diffpolicy.checked import validate
from diffpolicy.checkpoint import Checkpoint, Target
from diffpolicy.denoisers.pretrained import Convolutions, read_convolutions
from diffpolicy.errors import DiffpolicyError
from diffpolicy.specification import Specification
from diffpolicy.training.config import TrainConfig
from diffpolicy.training.sinks import check_sinks

DEFAULT_STEPS = 20_000


def check_options(config: TrainConfig) -> None:
    """Raise DiffpolicyError for options that contradict each other or the run folder."""
    if config.steps is not None and config.minutes is not None:
        raise DiffpolicyError("give --steps or --minutes, not both")
    if not 0 <= config.validation_fraction < 1:
        raise DiffpolicyError(
            f"--validation-fraction must lie in [0, 1); got {config.validation_fraction}"
        )
    if config.eval_steps is not None and config.eval_minutes is not None:
        raise DiffpolicyError("give --eval-steps or --eval-minutes, not both")
    if config.eval_ddim_steps is not None and not config.evaluates:
        raise DiffpolicyError("--eval-ddim-steps needs --eval-steps or --eval-minutes")
    check_sinks(config.log)
    check_run_folder(config)


def started_policy(config: TrainConfig) -> Checkpoint | None:
    """The policy of the run that is resumed; None before its first checkpoint."""
    path = checkpoints.policy_path(config.out)
    return checkpoints.load_policy(path) if config.resume and path.exists() else None


def with_target(config: TrainConfig, started: Checkpoint | None) -> TrainConfig:
    """The configuration with its target, by default that of the resumed run."""
    if config.steps is not None or config.minutes is not None:
        return config
    path = config.out / checkpoints.TRAINING_FILE
    if not (config.resume and path.exists()):
        return replace(config, steps=DEFAULT_STEPS)
    target: Target = checkpoints.load_training(path)[1]
    if started and not (target.steps or target.minutes):  # format 1 has it in the policy alone
        options = started.specification.training.get("config")
        target = validate(Target, options, f"the configuration of {config.out}", others=True)
    if not (target.steps or target.minutes):
        raise DiffpolicyError(f"{path} does not say how long to train; give --steps or --minutes")
    return replace(config, steps=target.steps, minutes=target.minutes)


def encoder_weights(config: TrainConfig) -> Convolutions | None:
    """Weights that the cameras start from; None without any, or for a run that is resumed."""
    resumed = config.resume and (config.out / checkpoints.TRAINING_FILE).exists()
    if resumed or not config.encoder_weights:
        return None
    if config.encoder != "resnet18":
        raise DiffpolicyError(
            f"--encoder-weights needs --encoder resnet18; got --encoder {config.encoder}"
        )
    return read_convolutions(config.encoder_weights)


def check_run_folder(config: TrainConfig) -> None:
    """Raise DiffpolicyError for a folder that cannot become, or is not, that of this run."""
    if config.out.exists() and not config.out.is_dir():
        raise DiffpolicyError(f"--out {config.out} is a file; expected a folder")
    resumable = (config.out / checkpoints.TRAINING_FILE).exists()
    taken = resumable or checkpoints.policy_path(config.out).exists()
    if taken and not config.resume:
        raise DiffpolicyError(
            f"{config.out} already holds a run; continue it with --resume, or choose another --out"
        )
    if taken and not resumable:
        raise DiffpolicyError(
            f"{config.out} holds a policy without {checkpoints.TRAINING_FILE}, so it cannot be "
            "resumed; choose another --out"
        )


def identity(
    config: TrainConfig, specification: Specification, batch: int, precision: str
) -> dict[str, Any]:
    """Facts that a resumed run must share with the run it continues, as JSON."""
    task = asdict(specification.task)
    del task["observation_keys"]  # absent in older runs, and part of the data's fingerprint
    parts = {
        "data": specification.training["fingerprint"],
        **asdict(specification.model),
        **{f"{name}_horizon": n for name, n in asdict(specification.horizons).items()},
        "task": task,
        "batch": batch,
        "seed": config.seed,
        "precision": precision,
        "lr": config.lr,
        "beta2": config.beta2,
        "weight_decay": config.weight_decay,
        "observation_noise": config.observation_noise,
        "mirror": specification.training["config"]["mirror"],
        "validation_fraction": config.validation_fraction,
        "colour_jitter": config.colour_jitter,
    }
    if "teacher" in specification.training:
        parts["teacher"] = specification.training["teacher"]
    return json.loads(json.dumps(parts))


def check_identity(run: Path, started: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raise DiffpolicyError with every fact that is not as it was when the run was started."""
    others = [name for name in now if started.get(name) != now[name]]
    if others:
        was = ", ".join(f"{name} = {started.get(name)}" for name in others)
        given = ", ".join(str(now[name]) for name in others)
        raise DiffpolicyError(
            f"{run} was started with {was}, not {given}; resume with the data and options it was "
            "started with"
        )
