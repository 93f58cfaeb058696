"""Provenance of a result: device, versions, threads, commit, command and date."""

import platform
import shlex
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import torch

import diffpolicy

from .computer import Provenance


def set_threads(threads: int | None) -> None:
    """Set the CPU threads of torch in this process; episodes run in others."""
    if threads:
        torch.set_num_threads(threads)


PROGRAM, AS_MODULE = "diffpolicy", ("diffpolicy", "__main__.py")


def provenance(device: torch.device) -> Provenance:
    """The machine, the command of this process and the date, as they are now."""
    return replace(machine(device), command=command(), date=now())


def now() -> str:
    """Date and time, in UTC."""
    return datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")


def command() -> str | None:
    """The command line of this process as for a shell; None if it is of another program."""
    program, *words = sys.argv
    ours = Path(program).parts[-1:] == (PROGRAM,) or Path(program).parts[-2:] == AS_MODULE
    return shlex.join([PROGRAM, *words]) if ours else None


def machine(device: torch.device) -> Provenance:
    """Device, versions, threads and commit, as they are now."""
    names = ("torch", "numpy", "gymnasium", "mujoco")
    ours = {"diffpolicy": diffpolicy.__version__, "python": platform.python_version()}
    return Provenance(
        device=device_name(device),
        threads=torch.get_num_threads(),
        versions=ours | {name: version(name) for name in names},
        commit=commit(),
    )


def device_name(device: torch.device) -> str:
    """Name of the accelerator, or of the processor."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"cpu, {_processor()}"


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def commit() -> str | None:
    """Commit of this source tree, with "+" if it has changes; None outside a checkout."""
    here = Path(__file__).parent
    try:
        _git(
            here, "ls-files", "--error-unmatch", Path(__file__).name
        )  # only if tracked: not an enclosing repository
        name = _git(here, "rev-parse", "--short=12", "HEAD")
        return name + ("+" if _git(here, "status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "--no-optional-locks", "-C", str(folder), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
