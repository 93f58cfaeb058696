"""`diffpolicy train`: the loop around the learner, with log, checkpoints, Ctrl-C and resume."""

import json
import math
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from diffpolicy import checkpoint as checkpoints
from diffpolicy.checkpoint import Checkpoint
from diffpolicy.config import TrainConfig
from diffpolicy.device import choose_device, warn_of_busy_cores
from diffpolicy.errors import DiffpolicyError
from diffpolicy.files import write_text
from diffpolicy.learner import Learner
from diffpolicy.preparation import Prepared, prepare

DEFAULT_STEPS = 20_000
LOG_EVERY, VALIDATE_EVERY, SAVE_EVERY_S = 100, 1000, 30.0


def train(config: TrainConfig) -> Path:
    """Trains until --steps, --minutes or a signal; returns the policy's path.

    Raises DiffpolicyError on bad input, before anything is written, or where training diverges;
    KeyboardInterrupt after a signal, once the checkpoint is saved.
    """
    config = _checked(config)
    device = choose_device(config.device)
    torch.set_num_threads(config.threads or torch.get_num_threads())
    if device.type == "cpu":
        warn_of_busy_cores()
    trainer = Trainer(config, prepare(config), device)
    config.out.mkdir(parents=True, exist_ok=True)
    stopped = trainer.run()
    trainer.save()
    if stopped:
        print(f"stopped at step {trainer.learner.step}; the checkpoint is usable, --resume goes on")
        raise KeyboardInterrupt
    print(f"{config.out}: {trainer.summary()}")
    return checkpoints.policy_path(config.out)


def _checked(config: TrainConfig) -> TrainConfig:
    if config.steps is not None and config.minutes is not None:
        raise DiffpolicyError("give --steps or --minutes, not both")
    _check_run_folder(config)
    if config.steps is None and config.minutes is None:
        config = replace(config, **_target(config))
    if not 0 <= config.validation_fraction < 1:
        raise DiffpolicyError(
            f"--validation-fraction must lie in [0, 1); got {config.validation_fraction}"
        )
    return config


def _target(config: TrainConfig) -> dict[str, Any]:
    """How long to train where nobody says: as long as the run that is resumed was to."""
    if not (config.resume and checkpoints.policy_path(config.out).exists()):
        return {"steps": DEFAULT_STEPS}
    policy = checkpoints.load_policy(config.out)
    return {name: policy.specification.training["config"][name] for name in ("steps", "minutes")}


def _check_run_folder(config: TrainConfig) -> None:
    if config.out.exists() and not config.out.is_dir():
        raise DiffpolicyError(f"--out {config.out} is a file; a folder was expected")
    resumable = (config.out / checkpoints.TRAINING_FILE).exists()
    taken = resumable or checkpoints.policy_path(config.out).exists()
    if taken and not config.resume:
        raise DiffpolicyError(
            f"{config.out} already holds a run; go on with it by --resume, or choose another --out"
        )
    if config.resume and not taken:
        print(f"nothing to go on with in {config.out}: training starts from the beginning")
    if taken and not resumable:
        raise DiffpolicyError(
            f"{config.out} holds a policy without {checkpoints.TRAINING_FILE}, so it cannot be "
            "resumed; choose another --out"
        )


class Trainer:
    """A learner, its data and its run folder."""

    def __init__(self, config: TrainConfig, prepared: Prepared, device: torch.device):
        self.config, self.prepared, self.device = config, prepared, device
        self.learner = Learner(
            prepared.specification, device, config.lr, config.weight_decay, config.seed
        )
        self.elapsed_s = 0.0
        self.windows, self.validation = prepared.training, prepared.validation
        if device.type == "cuda":
            self.windows = self.windows.to(device)
            self.validation = self.validation and self.validation.to(device)
        path = config.out / checkpoints.TRAINING_FILE
        if config.resume and path.exists():
            self._restore(path)

    @property
    def progress(self) -> float:
        """The share of the run that is done."""
        if self.config.steps is not None:
            return self.learner.step / self.config.steps
        return self.elapsed_s / (60 * (self.config.minutes or 0))

    def run(self) -> bool:
        """Trains to the end, saving now and then; True where a signal ended it early."""
        log = Log(self.config.out, self.learner.step)
        begin, saved_at = time.monotonic() - self.elapsed_s, time.monotonic()
        total, counted = torch.zeros((), device=self.device), 0
        with stop_on_signal() as stopped, self._bar() as bar:
            while (progress := self.progress) < 1 and not stopped:
                total += self.learner.learn(self.windows, self.config.batch, progress)
                counted += 1
                self.elapsed_s = time.monotonic() - begin
                bar.update(1)
                if self.learner.step % LOG_EVERY == 0:
                    record = self._report(float(total) / counted)
                    total, counted = total.zero_(), 0
                    log.write(record)
                    bar.set_postfix(_shown(record), refresh=False)
                if time.monotonic() - saved_at > SAVE_EVERY_S:
                    self.save()
                    saved_at = time.monotonic()
            return bool(stopped)

    def summary(self) -> str:
        """What training came to."""
        step, minutes = self.learner.step, self.elapsed_s / 60
        text = f"a policy after {step:,} steps in {minutes:.1f} min"
        if self.validation is None:
            return text
        return f"{text}, validation loss {self.learner.validation_loss(self.validation):.4g}"

    def _report(self, loss: float) -> dict[str, Any]:
        """One log line, with the validation loss now and then."""
        step = self.learner.step
        record: dict[str, Any] = {"step": step, "loss": loss}
        if step % VALIDATE_EVERY == 0 and self.validation is not None:
            record["validation_loss"] = self.learner.validation_loss(self.validation)
        record["lr"] = self.learner.optimizer.param_groups[0]["lr"]
        return {**record, "elapsed_s": round(self.elapsed_s, 3)}

    def _bar(self) -> tqdm:
        initial = self.learner.step
        return tqdm(total=self.config.steps, initial=initial, desc="train", unit="step")

    def save(self) -> None:
        """The resumable state first, then the policy; each file is complete by itself.

        Weights that are not finite never replace a checkpoint.
        """
        if not all(bool(p.isfinite().all()) for p in self.learner.parameters):
            raise DiffpolicyError(
                f"the weights are no longer finite at step {self.learner.step}; the last "
                "checkpoint stands. Lower --lr or look at the data"
            )
        specification = self.prepared.specification
        progress = {
            "step": self.learner.step,
            "elapsed_s": self.elapsed_s,
            "threads": torch.get_num_threads(),
        }
        path = self.config.out / checkpoints.TRAINING_FILE
        header = {**progress, "identity": self._identity()}
        checkpoints.save_tensors(path, self.learner.tensors(), header)
        policy = Checkpoint(
            replace(specification, training={**specification.training, **progress}),
            self.learner.ema,
            self.prepared.observation_normalizer,
            self.prepared.action_normalizer,
        )
        checkpoints.save_policy(checkpoints.policy_path(self.config.out), policy)

    def _restore(self, path: Path) -> None:
        tensors, header = checkpoints.load_tensors(path)
        started, now = header["identity"], self._identity()
        for name in now:
            if started.get(name) != now[name]:
                raise DiffpolicyError(
                    f"{path.parent} was started with {name} = {started.get(name)}, not "
                    f"{now[name]}; resume with the data and options it was started with"
                )
        self.learner.restore(tensors, header["step"])
        self.elapsed_s = header["elapsed_s"]

    def _identity(self) -> dict[str, Any]:
        """What must be the same for a resumed run to be the same run, as JSON has it."""
        specification, config = self.prepared.specification, self.config
        parts = {
            "data": specification.training["fingerprint"],
            **asdict(specification.model),
            **{f"{name}_horizon": n for name, n in asdict(specification.horizons).items()},
            "task": asdict(specification.task),
            "batch": config.batch,
            "seed": config.seed,
            "lr": config.lr,
            "weight_decay": config.weight_decay,
            "validation_fraction": config.validation_fraction,
        }
        return json.loads(json.dumps(parts))


@contextmanager
def stop_on_signal() -> Iterator[list[int]]:
    """Ctrl-C and kill end the loop between two steps; the list says so. A second one is final."""
    received: list[int] = []

    def stop(number: int, frame) -> None:
        received.append(number)
        signal.signal(number, previous[signal.Signals(number)])

    previous = {n: signal.signal(n, stop) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


class Log:
    """log.jsonl, cut back to the step that a resumed run starts from."""

    def __init__(self, out: Path, step: int):
        self.path = out / "log.jsonl"
        lines = self.path.read_text().splitlines() if self.path.exists() else []
        kept = [line for line in lines if _step_of(line) <= step]
        write_text(self.path, "".join(line + "\n" for line in kept))

    def write(self, record: dict[str, Any]) -> None:
        """Appends one line."""
        with self.path.open("a") as file:
            file.write(json.dumps(record) + "\n")


def _step_of(line: str) -> float:
    """The step of a log line; a line cut short by a crash counts as never written."""
    try:
        return json.loads(line)["step"]
    except (json.JSONDecodeError, KeyError, TypeError):
        return math.inf


def _shown(record: dict[str, Any]) -> dict[str, str]:
    return {k: f"{v:.4g}" for k, v in record.items() if k not in ("step", "elapsed_s")}
