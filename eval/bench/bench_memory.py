"""Peak memory of a training and of sweeps: `python eval/bench/bench_memory.py --run R --data S`.

Each command is a process of its own with its worker processes, on Linux. "largest process" is the
largest peak of a resident set (VmHWM); pages that are shared, such as torch's code, count in full.
"all together" is the largest sum of proportional set sizes (PSS: a page that n processes share
counts 1/n in each), sampled every half second.
"""

# diffpolicy.eval is known to Python, not to pyright.
# pyright: reportMissingImports=false

import subprocess
import sys
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from diffpolicy.checked import NOT_EMPTY, Checked, Range
from diffpolicy.errors import DiffpolicyError
from diffpolicy.eval.measure.load import descendants
from diffpolicy.eval.report.table import print_table

EVERY_S = 0.5
COMMAND = (sys.executable, "-c", "from diffpolicy.cli import main; main()")
TRAINING_MB, SWEEP_MB = 900, 1200


@dataclass(frozen=True)
class Config(Checked):
    """Peak memory of training and of a paused sweep at several numbers of episodes."""

    run: Path
    """Run folder, for the sweeps."""
    data: Path
    """Store of demonstrations, for the training."""
    steps: Annotated[int, Range(1, 10**6)] = 500
    """Optimiser steps of the training."""
    episodes: Annotated[tuple[int, ...], NOT_EMPTY, Range(1, 10**6)] = (1_000, 10_000)
    """Episodes of each budget of a sweep."""
    ddim_steps: Annotated[tuple[int, ...], NOT_EMPTY, Range(1, 1000)] = (1, 4)
    """Budgets of the sweeps."""
    max_steps: Annotated[int | None, Range(1, 10**6)] = None
    """Longest episode in control ticks; by default the limit of the environment."""
    workers: Annotated[int | None, Range(1, 256)] = None
    """Worker processes of the sweeps; by default one for each core."""


@dataclass(frozen=True)
class Peak:
    """Peak memory in MB: of the largest process, and of all processes at one time."""

    largest: float
    together: float


def peak(arguments: list[str], folder: Path) -> Peak:
    """Run a command of diffpolicy to its end; its output goes to a file in the folder.

    Raises DiffpolicyError with its last line if it fails.
    """
    largest = together = 0.0
    with (folder / "output").open("w+b") as output:
        process = subprocess.Popen([*COMMAND, *arguments], stdout=output, stderr=output)
        while process.poll() is None:
            found = [memory(pid) for pid in (process.pid, *descendants([process.pid]))]
            largest = max([largest, *(alone for alone, _ in found)])
            together = max(together, sum(share for _, share in found))
            with suppress(subprocess.TimeoutExpired):
                process.wait(EVERY_S)
        if process.returncode:
            output.seek(0)
            last = output.read().decode(errors="replace").strip().rpartition("\n")[2]
            raise DiffpolicyError(f"{arguments[0]} failed: {last}")
    return Peak(largest, together)


def memory(pid: int) -> tuple[float, float]:
    """(peak resident set, present proportional set) of a process in MB; 0 if it has ended."""
    found = {}
    for name in ("status", "smaps_rollup"):
        with suppress(OSError):
            lines = Path(f"/proc/{pid}/{name}").read_text().splitlines()
            found |= {line.split()[0]: line.split()[1] for line in lines if line.endswith(" kB")}
    return 1.024e-3 * int(found.get("VmHWM:", 0)), 1.024e-3 * int(found.get("Pss:", 0))


def training(config: Config, folder: Path) -> list[str]:
    """The command line of the training."""
    out = str(folder / "run")
    return ["train", "--data", str(config.data), "--out", out, "--steps", str(config.steps)]


def sweep(config: Config, episodes: int, folder: Path) -> list[str]:
    """The command line of a paused sweep."""
    words = ["sweep", "--run", str(config.run), "--out", str(folder / "sweep")]
    words += ["--episodes", str(episodes), "--clocks", "paused", "--latency-ms", "1"]
    words += ["--no-ddpm", "--no-pictures"]
    words += ["--ddim-steps", *map(str, config.ddim_steps), "--regression", "none"]
    for name in ("max_steps", "workers"):
        if (value := getattr(config, name)) is not None:
            words += [f"--{name.replace('_', '-')}", str(value)]
    return words


def main(config: Config) -> None:
    """Print a line for the training and for each number of episodes."""
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        found = peak(training(config, folder), folder)
        rows.append(
            [
                f"train, {config.steps} steps",
                round(found.largest),
                round(found.together),
                TRAINING_MB,
            ]
        )
        for episodes in config.episodes:
            found = peak(sweep(config, episodes, folder), folder)
            rows.append(
                [
                    f"sweep, {episodes} episodes",
                    round(found.largest),
                    round(found.together),
                    SWEEP_MB,
                ]
            )
    print_table(["MB", "largest process", "all together", "aim"], rows)


if __name__ == "__main__":
    main(tyro.cli(Config))
