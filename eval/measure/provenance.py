"""What a result must say about where it came from."""

import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

import diffpolicy


def set_threads(threads: int | None) -> None:
    """CPU threads for torch, where episodes do not run."""
    if threads:
        torch.set_num_threads(threads)


def header(device: torch.device, **more: Any) -> dict[str, Any]:
    """Device, versions, threads and commit, and whatever the caller adds."""
    return {
        "device": device_name(device),
        "threads": torch.get_num_threads(),
        "versions": {
            "diffpolicy": diffpolicy.__version__,
            "python": platform.python_version(),
            **{name: version(name) for name in ("torch", "numpy", "gymnasium", "mujoco")},
        },
        "commit": commit(),
        **more,
    }


def device_name(device: torch.device) -> str:
    """The accelerator's own name, or the processor's."""
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
    """The commit of this source tree, with "+" where it was changed; None outside a checkout."""
    here = Path(__file__).parent
    try:
        _git(here, "ls-files", "--error-unmatch", Path(__file__).name)  # ours, not the user's own
        name = _git(here, "rev-parse", "--short=12", "HEAD")
        return name + ("+" if _git(here, "status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "--no-optional-locks", "-C", str(folder), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
