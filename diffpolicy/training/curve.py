"""Closed-loop curve of a training: the policy at each mark, evaluated by `diffpolicy eval`.

An evaluation runs in a process of its own beside the training, one at a time. The snapshot of its
policy, RUN/curve/step-N, is removed once the log has the result; no checkpoint is picked by it.
"""

import shutil
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from tqdm import tqdm

from diffpolicy.checked import NOT_EMPTY, Range, read_json, validate
from diffpolicy.checkpoint import POLICY_FILE, Checkpoint, save_policy
from diffpolicy.config import Sampling
from diffpolicy.errors import DiffpolicyError
from diffpolicy.files import remove_partials
from diffpolicy.sampling.chain import make_chain
from diffpolicy.specification import NO_ENVIRONMENT, Specification
from diffpolicy.training import tended
from diffpolicy.training.config import TrainConfig
from diffpolicy.training.log import Log

FOLDER, RESULT, OUTPUT = "curve", "eval.json", "eval.log"
FIRST_SEED = 700_000  # reports begin at 100,000, `optimise` at 900,000
MOST_AT_ONCE = 64  # environments, and rows of a batch
POLL_EVERY_S = 0.1


@dataclass(frozen=True)
class Figures:
    """The part of a row of `eval --json` that goes into the log."""

    success_rate: Annotated[float, Range(0, 1)]
    score_mean: float


@dataclass(frozen=True)
class Evaluated:
    """The part of a result of `eval --json` that goes into the log."""

    records: Annotated[list[Figures], NOT_EMPTY]


def check_curve(config: TrainConfig, specification: Specification) -> None:
    """Raise DiffpolicyError if a policy of this specification cannot be evaluated as asked."""
    if not config.evaluates:
        return
    if specification.task.env_id == NO_ENVIRONMENT:
        raise DiffpolicyError(
            "--eval-steps and --eval-minutes need an environment; got --env none; give --env ID"
        )
    sampling, s = Sampling(config.eval_ddim_steps), specification
    try:
        make_chain(s.model, s.clip_range, sampling, s.grid, s.rederive, s.schedules)
    except DiffpolicyError as error:
        raise DiffpolicyError(f"--eval-ddim-steps: {error}") from error


class Curve:
    """Evaluations of a run's snapshots, started by `tend` and written to the log.

    policy: makes the policy of the present step. A resumed run evaluates the snapshot again whose
    evaluation was interrupted.
    """

    def __init__(
        self, config: TrainConfig, device: torch.device, log: Log, policy: Callable[[], Checkpoint]
    ):
        self.config, self.device, self.log, self.policy = config, device, log, policy
        self.folder = config.out / FOLDER
        self.marks: int | None = None  # passed so far
        self.step: int | None = None  # of the evaluation that runs
        self.process: subprocess.Popen[bytes] | None = None
        self.begun = time.monotonic()  # the session, and the present evaluation
        self.started = self.begun
        self.evaluation_s = 0.0

    def __enter__(self) -> "Curve":
        return self

    def __exit__(self, *_) -> None:
        if self.process:
            tended.stop(self.process)

    def tend(self, step: int, elapsed_s: float) -> None:
        """Take the result of an evaluation that has ended; start one at a mark."""
        if not self.config.evaluates:
            return
        if self.marks is None:
            self.marks = self._marks(step, elapsed_s)
            self._go_on(step)
        if self.process and self.process.poll() is not None:
            self._take()
        if (marks := self._marks(step, elapsed_s)) > self.marks:
            self.marks = marks
            if self.process:
                tqdm.write(f"no evaluation of step {step}: that of step {self.step} still runs")
            else:
                self._snapshot(step)

    def finish(self, step: int, stopped: list[int]) -> None:
        """Wait for the evaluation that runs and for that of the last step, or for a signal."""
        self._wait(stopped)
        if not stopped and step not in self.log.evaluated:
            self._snapshot(step)
            tqdm.write(f"evaluating step {step}, the last one")
            self._wait(stopped)

    @property
    def summary(self) -> str:
        """The cost of the evaluations since the training was started or resumed; "" without any."""
        if not self.evaluation_s:
            return ""
        whole = time.monotonic() - self.begun
        share = self.evaluation_s / whole
        return f"; evaluations ran during {self.evaluation_s:.0f} s of {whole:.0f} s ({share:.0%})"

    def _marks(self, step: int, elapsed_s: float) -> int:
        if self.config.eval_steps:
            return step // self.config.eval_steps
        return int(elapsed_s / (60 * (self.config.eval_minutes or 1)))

    def _go_on(self, step: int) -> None:
        """Start the interrupted evaluation, if there is one; remove other snapshots."""
        for folder in sorted(self.folder.glob("step-*"), key=_step_of):
            number = _step_of(folder)
            whole = (folder / POLICY_FILE).is_file()
            left = whole and 0 <= number <= step and number not in self.log.evaluated
            if left and not self.process:
                remove_partials(folder)
                self._start(number)
            else:
                shutil.rmtree(folder)

    def _snapshot(self, step: int) -> None:
        save_policy(self._at(step) / POLICY_FILE, self.policy())
        self._start(step)

    def _start(self, step: int) -> None:
        self.step, self.started = step, time.monotonic()
        self.process = tended.start(self._command(self._at(step)), self._at(step) / OUTPUT)

    def _at(self, step: int) -> Path:
        return self.folder / f"step-{step}"

    def _command(self, folder: Path) -> list[str]:
        """A seeded evaluation at zero latency, on one core beside the training."""
        episodes = self.config.eval_episodes
        at_once = str(min(episodes, MOST_AT_ONCE))
        command = ["eval", "--run", str(folder), "--json", str(folder / RESULT)]
        command += ["--episodes", str(episodes), "--seed", str(FIRST_SEED), "--latency-ms", "0"]
        command += ["--workers", "1", "--envs", at_once, "--batch", at_once, "--threads", "1"]
        command += ["--engine", "eager", "--device", self.device.type]
        if self.config.eval_ddim_steps is not None:
            command += ["--ddim-steps", str(self.config.eval_ddim_steps)]
        return command

    def _wait(self, stopped: list[int]) -> None:
        while self.process and not stopped:
            try:
                self.process.wait(POLL_EVERY_S)
                self._take()
            except subprocess.TimeoutExpired:
                continue

    def _take(self) -> None:
        """Write the result of the evaluation that has ended to the log, or a warning."""
        assert self.process is not None and self.step is not None
        tended.close(self.process)
        seconds, folder = time.monotonic() - self.started, self._at(self.step)
        self.evaluation_s += seconds
        try:
            found = _figures(self.process.returncode, folder)
        except (DiffpolicyError, OSError) as error:
            tqdm.write(f"warning: the evaluation of step {self.step} failed: {error}")
        else:
            record: dict[str, Any] = {"step": self.step, "success": found.success_rate}
            record |= {"score": found.score_mean, "evaluation_s": round(seconds, 3)}
            self.log.write(record)
            self.log.evaluated.add(self.step)
            tqdm.write(_told(record, self.config.eval_episodes))
        shutil.rmtree(folder)
        with suppress(OSError):  # not empty
            self.folder.rmdir()
        self.process = self.step = None


def _figures(status: int, folder: Path) -> Figures:
    """The result of an evaluation. Raises DiffpolicyError with the reason why there is none."""
    if status:
        lines = (folder / OUTPUT).read_text(errors="replace").replace("\r", "\n").split("\n")
        last = next((line.strip() for line in reversed(lines) if line.strip()), "no output")
        raise DiffpolicyError(f"exit status {status}: {last.removeprefix('diffpolicy: ')}")
    where = f"the result of {folder}"
    return validate(Evaluated, read_json(folder / RESULT), where, others=True).records[0]


def _told(record: dict[str, Any], episodes: int) -> str:
    return (
        f"step {record['step']}: success {record['success']:.2f}, score {record['score']:.3f} in "
        f"{episodes} episodes ({record['evaluation_s']:.0f} s)"
    )


def _step_of(folder: Path) -> int:
    """The step that a snapshot's name holds; -1 for another name."""
    number = folder.name.removeprefix("step-")
    return int(number) if number.isdecimal() else -1
