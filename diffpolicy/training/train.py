"""`diffpolicy train`: the loop around the learner, with log, checkpoints, signals and resume."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from diffpolicy import checkpoint as checkpoints
from diffpolicy.checked import parse_json, validate
from diffpolicy.checkpoint import Checkpoint, TrainingState
from diffpolicy.device import busy_cores_warning, check_memory
from diffpolicy.errors import DiffpolicyError
from diffpolicy.files import alone_in, remove_partials
from diffpolicy.specification import Specification
from diffpolicy.terminal.progress import progress_bar
from diffpolicy.training.choices import choose_ways
from diffpolicy.training.config import ABSENT, TrainConfig
from diffpolicy.training.curve import Curve, check_curve
from diffpolicy.training.distributed import ALONE, Ranks, processes
from diffpolicy.training.learner import WARMUP_STEPS, Learner, bytes_needed
from diffpolicy.training.log import Log
from diffpolicy.training.objective import check_objective
from diffpolicy.training.precision import AUTO, FLOAT32, PRECISIONS
from diffpolicy.training.preparation import Prepared, prepare
from diffpolicy.training.signals import stop_on_signal
from diffpolicy.training.start import (
    check_identity,
    check_options,
    check_run_folder,
    encoder_weights,
    identity,
    started_policy,
    with_target,
)

LOG_EVERY, VALIDATE_EVERY, SAVE_EVERY_S = 100, 1000, 30.0


def train(config: TrainConfig) -> Path:
    """Train until --steps, --minutes or a signal; return the path of the policy.

    Raises DiffpolicyError for bad input, before anything is written, or if training diverges;
    KeyboardInterrupt after a signal, once the checkpoint is saved. Under torchrun its processes
    train together.
    """
    with processes() as ranks:
        return fit(*ready(config, ranks), ranks)


def ready(config: TrainConfig, ranks: Ranks = ALONE) -> tuple[TrainConfig, Prepared, torch.device]:
    """The options with their target, the prepared data, and the device; torch's threads are set."""
    check_options(config)
    check_objective(config)
    started = started_policy(config)
    config = with_target(config, started)
    start = encoder_weights(config)
    if config.resume and not (config.out / checkpoints.TRAINING_FILE).exists():
        print(f"warning: --resume: {config.out} holds no checkpoint; training from scratch")
    device = ranks.device(config.device)
    torch.set_num_threads(config.threads or torch.get_num_threads())
    return config, prepare(config, started, start), device


def fit(
    config: TrainConfig, prepared: Prepared, device: torch.device, ranks: Ranks = ALONE
) -> Path:
    """Train on prepared data, into --out; see `train`."""
    tell_start(prepared, device)
    trainer = Trainer(config, prepared, device, ranks)
    if start := prepared.start:
        print(f"{start.path}: convolutions for every camera; BatchNorm and fc are ignored")
    with run_folder(config) if ranks.first else nullcontext():
        trainer.restore()
        trainer.check_same()
        choose_ways(config, trainer.learner, trainer.gradient, trainer.progress)
        stopped = trainer.run()
        trainer.save()
        ranks.sum(0)  # wait for the checkpoint
    if stopped:
        print(f"stopped at step {trainer.learner.step}; checkpoint saved, --resume continues")
        raise KeyboardInterrupt
    if ranks.first:
        tell_end(trainer)
    return checkpoints.policy_path(config.out)


def tell_start(prepared: Prepared, device: torch.device) -> None:
    """Warn of busy cores and of what was found in the data; tell of mirror images."""
    if device.type == "cpu" and (warning := busy_cores_warning()):
        print(f"warning: {warning}")
    for note in prepared.notes:
        print(f"warning: {note}")
    if prepared.specification.training["config"]["mirror"] == "auto":
        print("training on the demonstrations and their mirror images")


def tell_end(trainer: "Trainer") -> None:
    """Summarise a training, and warn of one that was short."""
    print(f"{trainer.config.out}: {trainer.summary()}")
    if trainer.learner.step < WARMUP_STEPS:
        print(f"warning: fewer than {WARMUP_STEPS} steps, the warm-up; train longer for a result")


@contextmanager
def run_folder(config: TrainConfig) -> Iterator[None]:
    """Make and lock --out."""
    config.out.mkdir(parents=True, exist_ok=True)
    with alone_in(config.out):
        check_run_folder(config)  # again: another training may have ended meanwhile
        remove_partials(config.out)
        yield


class Trainer:
    """A learner, its data and its run folder, which rank 0 alone writes."""

    def __init__(
        self, config: TrainConfig, prepared: Prepared, device: torch.device, ranks: Ranks = ALONE
    ):
        self.config, self.prepared, self.device, self.ranks = config, prepared, device, ranks
        self._check()
        self.learner = Learner(
            prepared.specification,
            device,
            lr=config.lr,
            beta2=config.beta2,
            weight_decay=config.weight_decay,
            seed=config.seed,
            normalizers=prepared.observation_normalizers,
            colour_jitter=config.colour_jitter,
            observation_noise=config.observation_noise,
            encoder_weights=prepared.start,
            weights=prepared.weights,
            teacher_times=prepared.teacher_times,
        )
        self.learner.ranks = ranks
        if config.precision != AUTO:
            self.learner.precision = config.precision
        self.elapsed_s, self.cost = 0.0, ""
        self.windows, self.validation = prepared.training, prepared.validation
        if device.type == "cuda" and self.windows.in_memory:
            self.windows = self.windows.to(device)
            shared = {"observations": self.windows.observations, "actions": self.windows.actions}
            self.validation = self.validation and replace(self.validation, **shared).to(device)

    def _check(self) -> None:
        """Raise now what would otherwise fail at the first step or the first save."""
        specification, batch = self.prepared.specification, self.prepared.batch
        self.ranks.check_batch(batch)
        header, name = json.dumps(asdict(specification)), "the policy's header"
        validate(Specification, parse_json(header, name), name)
        what = f"training this network with --batch {batch}"
        needed = bytes_needed(specification, batch) + self.prepared.training.nbytes
        check_memory(needed, self.device, what)
        check_curve(self.config, specification)

    def check_same(self) -> None:
        """Raise DiffpolicyError unless all processes go on from one state to one target."""
        options, target = self._identity, (self.config.steps, self.config.minutes)
        data = options.pop("data")
        self.ranks.check_same(demonstrations=data, options=options, targets=target)
        self.ranks.check_same(checkpoints=(self.learner.step, self.elapsed_s))

    @property
    def _identity(self) -> dict[str, Any]:
        about = self.config, self.prepared.specification, self.prepared.batch
        return identity(*about, self.learner.precision)

    def gradient(self) -> float:
        """The loss of this step's batch, with its gradients; nothing is learnt."""
        return float(self.learner.backward(self.windows, self.prepared.batch))

    @property
    def progress(self) -> float:
        """The part of the run that is done, in [0, 1]."""
        if self.config.steps is not None:
            return self.learner.step / self.config.steps
        return self.elapsed_s / (60 * (self.config.minutes or 0))

    def run(self) -> bool:
        """Train to the end, saving now and then; True if a signal ended it early.

        The clock of rank 0, and a signal to any process, hold for all.
        """
        log = Log(self.config, self.learner.step) if self.ranks.first else None
        curve = Curve(self.config, self.device, log, self._policy) if log else None
        begin, saved_at = time.monotonic() - self.elapsed_s, time.monotonic()
        signals, total, counted = 0.0, torch.zeros((), device=self.device), 0
        bar = progress_bar(
            total=self.config.steps, initial=self.learner.step, desc="train", unit="step"
        )
        with stop_on_signal() as received, bar, log or nullcontext(), curve or nullcontext():
            if curve:
                curve.tend(self.learner.step, self.elapsed_s)
            while (progress := self.progress) < 1 and not signals:
                total += self.learner.learn(self.windows, self.prepared.batch, progress)
                counted += 1
                now = self.ranks.first * (time.monotonic() - begin)
                self.elapsed_s, signals = self.ranks.sum(now, len(received))
                bar.update(1)
                if log and self.learner.step % LOG_EVERY == 0:
                    record = self.report(float(total) / counted)
                    total, counted = total.zero_(), 0
                    log.write(record)
                    bar.set_postfix(_shown(record), refresh=False)
                if curve and self.progress < 1:
                    curve.tend(self.learner.step, self.elapsed_s)
                if time.monotonic() - saved_at > SAVE_EVERY_S:
                    self.save()
                    saved_at = time.monotonic()
            if curve and self.config.evaluates and not signals:
                self.save()
                curve.finish(self.learner.step, received)
                self.cost = curve.summary
            return bool(signals or received)

    def summary(self) -> str:
        """One-line training summary."""
        step, minutes = self.learner.step, self.elapsed_s / 60
        text = f"a policy after {step:,} steps in {minutes:.1f} min"
        if self.validation is not None:
            text += f", validation loss {self.learner.validation_loss(self.validation):.4g}"
        return text + self.cost

    def report(self, loss: float) -> dict[str, Any]:
        """One log line, with the validation loss every VALIDATE_EVERY steps."""
        step = self.learner.step
        record: dict[str, Any] = {"step": step, "loss": loss}
        if step % VALIDATE_EVERY == 0 and self.validation is not None:
            record["validation_loss"] = self.learner.validation_loss(self.validation)
        record["lr"] = self.learner.optimizer.param_groups[0]["lr"]
        return {**record, "elapsed_s": round(self.elapsed_s, 3)}

    def save(self) -> None:
        """Write the resumable state, then the policy; each file is complete by itself.

        Weights that are not finite never replace a checkpoint. Of several processes rank 0 writes.
        """
        if not self.ranks.first:
            return
        tensors = self.learner.tensors()
        if not all(bool(tensor.isfinite().all()) for tensor in tensors.values()):
            raise DiffpolicyError(
                f"the weights are no longer finite at step {self.learner.step}; the last "
                "checkpoint is kept. Lower --lr or check the data"
            )
        config, identity = self.config, self._identity
        state = TrainingState(config.steps, config.minutes, **self._reached(), identity=identity)
        checkpoints.save_tensors(config.out / checkpoints.TRAINING_FILE, tensors, asdict(state))
        checkpoints.save_policy(checkpoints.policy_path(config.out), self._policy())

    def _policy(self) -> Checkpoint:
        """The policy of the present step."""
        specification = self.prepared.specification
        ways = {
            "precision": self.learner.precision,
            "compiled": self.learner.compiled,
            "cuda_graph": self.learner.graph is not None,
        }
        about = {**specification.training, **self._reached(), **ways}
        return Checkpoint(
            replace(specification, training=about),
            self.learner.ema,
            self.prepared.observation_normalizers,
            self.prepared.action_normalizer,
        )

    def _reached(self) -> dict[str, Any]:
        return {
            "step": self.learner.step,
            "elapsed_s": self.elapsed_s,
            "threads": torch.get_num_threads(),
        }

    def restore(self) -> None:
        """Continue from the run's last checkpoint, if there is one."""
        path = self.config.out / checkpoints.TRAINING_FILE
        if not (self.config.resume and path.exists()):
            return
        tensors, state = checkpoints.load_training(path)
        started = {"precision": FLOAT32, **ABSENT, **state.identity}
        if self.config.precision == AUTO and started["precision"] in PRECISIONS:
            self.learner.precision = started["precision"]
        check_identity(path.parent, started, self._identity)
        checkpoints.check_tensors(tensors, self.learner.restorable(state.step), path)
        checkpoints.check_finite(tensors, path)
        self.learner.restore(tensors, state.step)
        self.elapsed_s = state.elapsed_s


def _shown(record: dict[str, Any]) -> dict[str, str]:
    return {k: f"{v:.4g}" for k, v in record.items() if k not in ("step", "elapsed_s")}
