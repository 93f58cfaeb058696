"""Two processes against one: `python eval/bench/bench_torchrun.py --data STORE`.

One recipe is trained by one process with two training seeds, whose difference is the noise; by two
processes of torchrun; and by two of which one is killed (SIGKILL) half-way, then resumed. The table
has the training loss (mean of the last tenth of the log) and the validation loss at the end.
"""

# diffpolicy.eval is known to Python, not to pyright.
# pyright: reportMissingImports=false

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from diffpolicy.checked import Checked, Range
from diffpolicy.eval.measure.load import descendants
from diffpolicy.eval.report.table import print_table

ALONE = (sys.executable, "-m", "diffpolicy")
TWO = (sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "diffpolicy")


@dataclass(frozen=True)
class Config(Checked):
    """Compare trainings in one and in two processes."""

    data: Path
    """Store of demonstrations."""
    steps: Annotated[int, Range(1000, 10**6)] = 3000
    """Optimiser steps of each training, in thousands: the validation loss comes every 1,000."""


def main(config: Config) -> None:
    """Train four times and print the losses."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for out, command, seed in (
            ("one process", ALONE, 0),
            ("one process, seed 1", ALONE, 1),
            ("two processes", TWO, 0),
        ):
            subprocess.run(training(config, command, folder / out, seed), check=True)
        killed = training(config, TWO, folder / "two processes, one killed", 0)
        step = killed_half_way(config, killed, folder / "two processes, one killed")
        subprocess.run([*killed, "--resume"], check=True)
        rows = [[out.name, *losses(out)] for out in sorted(folder.iterdir())]
    print_table([f"{config.steps} steps", "training loss", "validation loss"], rows)
    print(f"rank 1 was killed after step {step}")


def training(config: Config, command: tuple[str, ...], out: Path, seed: int) -> list[str]:
    """The command line of a training, in which no measurement chooses."""
    words = [*command, "train", "--data", str(config.data), "--out", str(out)]
    words += ["--steps", str(config.steps), "--seed", str(seed), "--threads", "1"]
    return [*words, "--precision", "float32", "--compile", "off"]


def killed_half_way(config: Config, command: list[str], out: Path) -> int:
    """Kill rank 1 in the middle of a training; return the last step of its log."""
    process = subprocess.Popen(command)
    while (step := last_step(out)) < config.steps // 2:
        if process.poll() is not None:
            raise SystemExit(f"the training ended early, with status {process.returncode}")
        time.sleep(0.5)
    (rank,) = [pid for pid in descendants([process.pid]) if is_rank_one(pid)]
    os.kill(rank, signal.SIGKILL)
    if process.wait() == 0:
        raise SystemExit("the training ended without an error, although a process was killed")
    return step


def is_rank_one(pid: int) -> bool:
    """True if the environment of a process has RANK=1."""
    with suppress(OSError):
        return b"RANK=1" in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    return False


def records(out: Path) -> list[dict[str, float]]:
    """Whole lines of a run's log."""
    with suppress(FileNotFoundError):
        lines = (out / "log.jsonl").read_text().split("\n")[:-1]
        return [json.loads(line) for line in lines]
    return []


def last_step(out: Path) -> int:
    """Last logged step; 0 without a log."""
    return max((int(record.get("step", 0)) for record in records(out)), default=0)


def losses(out: Path) -> tuple[str, str]:
    """Mean training loss of the last tenth of the log, and the last validation loss."""
    found = [record["loss"] for record in records(out) if "loss" in record]
    last = found[-max(1, len(found) // 10) :]
    valid = [record["validation_loss"] for record in records(out) if "validation_loss" in record]
    return f"{sum(last) / len(last):.5f}", f"{valid[-1]:.5f}"


if __name__ == "__main__":
    main(tyro.cli(Config))
