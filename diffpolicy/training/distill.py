"""`diffpolicy distill`: a student of one or two evaluations from a run's own deterministic chain.

The student predicts the end of the teacher's trajectory from its noise and from its other states
(Luhman & Luhman, arXiv 2101.02388; for policies FQL, arXiv 2502.02538). It predicts the quantity
that its teacher predicts, and begins with the teacher's weights. The student of an ε teacher
predicts x0 and begins anew: ε cannot represent the answer at T - 1, where √ᾱ nearly vanishes.
"""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from diffpolicy.checked import validate
from diffpolicy.checkpoint import (
    TRAINING_FILE,
    Checkpoint,
    load_policy,
    weights_fingerprint,
)
from diffpolicy.config import ModelConfig, Sampling
from diffpolicy.data.windows import Windows
from diffpolicy.device import choose_device
from diffpolicy.errors import DiffpolicyError
from diffpolicy.policy import Policy
from diffpolicy.sampling.chain import Chain, audit, audit_line, own_budgets
from diffpolicy.sampling.grids import OPTIMISED
from diffpolicy.sampling.noise import make_levels
from diffpolicy.terminal.output import say
from diffpolicy.training.config import DistillConfig, TrainConfig
from diffpolicy.training.distributed import check_alone
from diffpolicy.training.learner import gather
from diffpolicy.training.preparation import Prepared, prepare
from diffpolicy.training.start import check_options, started_policy, with_target
from diffpolicy.training.train import fit
from diffpolicy.training.trajectories import displaced, repeated, with_trajectories

PAIRS, VALIDATION_PAIRS = 100_000, 1024  # least numbers
MIDDLE = 0.35  # noise over signal of the second evaluation
TEACHERS = ("ddim", "dpm++")  # samplers whose every state is a sample at its level


@dataclass(frozen=True)
class Trained:
    """Options of the teacher's training, as its header has them, that the student's are."""

    data: str
    env: str | None
    env_kwargs: str | None
    obs: tuple[str, ...]
    control_dt: float | None
    position_targets: bool | None
    batch: int | None
    lr: float
    weight_decay: float
    validation_fraction: float
    seed: int
    action: str = "action"
    beta2: float = 0.999
    colour_jitter: float = 0.0
    camera: int | None = None


def distill(config: DistillConfig) -> Path:
    """Train a student of the run's chain; return the path of its policy.

    Raises DiffpolicyError for bad input, before anything is written; KeyboardInterrupt after a
    signal, once the checkpoint is saved.
    """
    check_alone("distill")
    source = load_policy(config.run)
    _check_teacher(config, source)
    options = _options(config, source)
    check_options(options)
    options = with_target(options, None)
    device = choose_device(config.device)
    torch.set_num_threads(config.threads or torch.get_num_threads())
    sampling = Sampling(config.teacher_steps, grid="trailing", sampler=config.sampler)
    teacher = Policy(source, sampling, device=str(device))
    say(f"teacher {config.run}, {audit_line(teacher.chain)}")
    prepared = _prepared(options, source, teacher, config.run)
    path = fit(options, prepared, device)
    if prepared.validation:
        rms = rms_to_teacher(load_policy(path), prepared.validation)
        found = ", ".join(f"{x:.4f} in {k} step{'s' * (k > 1)}" for k, x in rms.items())
        print(f"rms to the teacher on held-out windows with fresh noise, normalised: {found}")
    return path


def _check_teacher(config: DistillConfig, source: Checkpoint) -> None:
    specification = source.specification
    model = specification.model
    if model.objective != "denoising":
        raise DiffpolicyError(
            f"{config.run} cannot teach: its objective is {model.objective}; expected a diffusion "
            "policy (train --objective denoising)"
        )
    if model.prefix_max:
        raise DiffpolicyError(
            f"{config.run} cannot teach: it is conditioned on committed actions; expected a run "
            "without --prefix-max"
        )
    if config.teacher_steps > model.train_timesteps:
        raise DiffpolicyError(
            f"--teacher-steps must be at most {model.train_timesteps}, the timesteps of "
            f"{config.run}; got {config.teacher_steps}"
        )
    if config.sampler not in TEACHERS:
        raise DiffpolicyError(
            f"--sampler {config.sampler} cannot teach; expected one of: {', '.join(TEACHERS)}"
        )
    if "config" not in specification.training:
        raise DiffpolicyError(
            f"{config.run} cannot teach: its header does not say how it was trained; expected a "
            "run of diffpolicy train"
        )


def _options(config: DistillConfig, source: Checkpoint) -> TrainConfig:
    """The options of the teacher's training, with those of the student."""
    specification = source.specification
    where = f"the training provenance of {config.run}"
    trained: Trained = validate(Trained, specification.training["config"], where, others=True)
    resumed = config.resume and (config.out / TRAINING_FILE).exists()
    steps = config.steps
    if steps is None and config.minutes is None and not resumed:
        steps = _steps(specification.training, where)
    return TrainConfig(
        **{k: v for k, v in vars(trained).items() if k != "data"},
        **vars(_student(specification.model)),
        **{f"{name}_horizon": n for name, n in asdict(specification.horizons).items()},
        data=config.data or Path(trained.data),
        out=config.out,
        steps=steps,
        minutes=config.minutes,
        device=config.device,
        threads=config.threads,
        resume=config.resume,
    )


def _steps(training: dict[str, Any], where: str) -> int:
    steps = training.get("step")
    if not isinstance(steps, int) or steps < 1:
        raise DiffpolicyError(f"{where} names no number of steps; give --steps or --minutes")
    return steps


def _student(model: ModelConfig) -> ModelConfig:
    prediction = "x0" if model.prediction == "epsilon" else model.prediction
    return replace(model, objective="distilled", prediction=prediction, time_sampling="uniform")


def _prepared(options: TrainConfig, source: Checkpoint, teacher: Policy, run: Path) -> Prepared:
    """The teacher's data, split and normalised as it was, with its trajectories."""
    prepared = prepare(options, source)
    training, taught = prepared.specification.training, source.specification.training
    if training["fingerprint"] != taught.get("fingerprint"):
        raise DiffpolicyError(
            f"{options.data} are not the demonstrations that {run} was trained on; give these with "
            "--data"
        )
    about = {
        "fingerprint": weights_fingerprint(source.weights),
        "sampler": teacher.sampling.sampler,
        "chain": audit(teacher.chain),
    }
    _check_resumed(options, about)
    windows = with_trajectories(
        displaced(prepared.training, PAIRS, options.seed), teacher, options.seed
    )
    held_out = prepared.validation and with_trajectories(
        repeated(prepared.validation, VALIDATION_PAIRS),
        teacher,
        options.seed + 1,
        states=False,
    )
    model = source.specification.model
    student = _student(model)
    specification = replace(
        source.specification,
        model=student,
        grid=OPTIMISED,
        rederive=True,
        schedules=schedules(model, teacher.chain),
        training={**training, "teacher": about, "teacher_run": str(run), "pairs": len(windows)},
    )
    return replace(
        prepared,
        specification=specification,
        training=windows,
        validation=held_out,
        weights=source.weights if student.prediction == model.prediction else None,
        teacher_times=tuple(t for t, _ in teacher.chain.grid),
    )


def _check_resumed(options: TrainConfig, about: dict[str, Any]) -> None:
    """Refuse to continue the student of another teacher or chain, before pairs are made."""
    student = started_policy(options)
    if student and student.specification.training.get("teacher") != about:
        raise DiffpolicyError(
            f"{options.out} holds a student of another teacher or of another chain; resume it with "
            "the --run, --teacher-steps and --sampler that it was started with, or choose another "
            "--out"
        )


def schedules(model: ModelConfig, chain: Chain) -> tuple[tuple[int, ...], ...]:
    """Timesteps of the student's one and two evaluations: the first of the teacher, and one more.

    The second is the one of the teacher's with noise over signal nearest to 0.35.
    """
    levels = make_levels(model.schedule, model.train_timesteps)
    first, *others = (t for t, _ in chain.grid)
    middle = min(others, key=lambda t: abs(levels[t].sigma - MIDDLE))
    return (first,), (first, middle)


def rms_to_teacher(student: Checkpoint, windows: Windows) -> dict[int, float]:
    """Root mean squared distance {steps: rms} of a student's chunks to the ends of trajectories.

    On at most 1,024 windows, evenly spaced.
    """
    found, count = {}, min(len(windows), VALIDATION_PAIRS)
    index = torch.linspace(0, len(windows) - 1, count).long()
    observations, trajectories, _ = gather(windows, index)
    noise, wanted = (trajectories[:, k].float() for k in (0, -1))
    for steps in own_budgets(student.specification) or ():
        engine = Policy(student, Sampling(steps)).engine(count)
        error = engine(engine.encode(observations), noise[None]) - wanted
        found[steps] = float(error.square().mean().sqrt())
    return found
