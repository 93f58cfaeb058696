"""Sizes of the measurements of eval/gpu.py, and their JSON file."""

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from diffpolicy.files import write_text

from ..measure.provenance import machine, now
from ..world_config import EngineName, Precision

Found = dict[str, Any]  # a measurement, as it stands in JSON
ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Plan:
    """Sizes of every measurement."""

    device: Literal["cuda", "cpu"]
    engine: EngineName
    cpu_engine: EngineName
    nets: tuple[str, ...]
    image_net: str  # on the device alone, with few budgets
    image_budgets: tuple[int, ...]
    precisions: tuple[Precision, ...]
    target_precision: Precision
    budgets: tuple[int, ...]
    seconds: float  # for each budget of a net
    baseline: bool  # diffusers' loop beside float32
    targets: tuple[tuple[int, EngineName, float], ...]  # budgets of the first net, and seconds
    copied_bytes: int
    tests: str
    compiled: bool  # takes a minute to build
    models: tuple[str, ...]  # to train
    batch: int
    blocks: int
    block_steps: int
    loader_workers: int
    training: tuple[tuple[str, Any], ...]  # options of TrainConfig
    sweep_budgets: tuple[int, ...]
    episodes: tuple[int, ...]  # of one sweep after the other
    workers: int


REAL = Plan(
    device="cuda",
    engine="cuda-graph",
    cpu_engine="native",
    nets=("unet-large", "mlp", "edifice", "unet-small"),
    image_net="unet-large-image",
    image_budgets=(1, 10),
    precisions=("float32", "bfloat16", "tf32"),
    target_precision="bfloat16",
    budgets=(1, 2, 4, 8, 10, 16, 32, 100),
    seconds=0.25,
    baseline=True,
    targets=(
        *((10, "compiled", 4.0), (1, "compiled", 2.0)),
        *((10, "cuda-graph", 4.0), (1, "cuda-graph", 2.0), (100, "cuda-graph", 6.0)),
    ),
    copied_bytes=2**32,
    tests="tests",
    compiled=True,
    models=("unet-large", "default"),
    batch=256,
    blocks=5,
    block_steps=20,
    loader_workers=1,
    training=(
        *(("denoiser", "unet"), ("unet_channels", (256, 512, 1024)), ("condition", 256)),
        ("minutes", 1.5),
    ),
    sweep_budgets=(1, 2, 4, 10, 100),
    episodes=(24, 100),
    workers=8,
)
DRY = Plan(
    device="cpu",
    engine="eager",
    cpu_engine="eager",
    nets=("mlp",),
    image_net="unet-small-image",
    image_budgets=(1,),
    precisions=("float32",),
    target_precision="float32",
    budgets=(1, 2),
    seconds=0.02,
    baseline=True,
    targets=((1, "eager", 0.02),),
    copied_bytes=2**22,
    tests="tests/late",
    compiled=False,
    models=("default",),
    batch=16,
    blocks=2,
    block_steps=2,
    loader_workers=0,
    training=(("hidden", 32), ("blocks", 1), ("steps", 2)),
    sweep_budgets=(1, 2),
    episodes=(1,),
    workers=1,
)


class Result:
    """JSON file of a part, complete after every measurement; earlier measurements are kept."""

    def __init__(self, part: str, options: argparse.Namespace, plan: Plan):
        self.path = options.out / f"gpu_{part}.json"
        self.about = {**asdict(machine(torch.device(plan.device))), "part": part}
        self.dry_run, self.failed, self.found = options.dry_run, False, {}
        if self.path.exists() and not options.again:
            before = json.loads(self.path.read_text())
            if not before["complete"] and before["header"] == self.about:
                self.found = {k: v for k, v in before["found"].items() if "error" not in v}

    def once(self, name: str, measure: Callable[..., Found], *given: Any) -> None:
        """Set found[name] = measure(*given) unless it exists; record a failure and continue."""
        if name in self.found:
            return
        begin = time.monotonic()
        try:
            value = measure(*given)
        except Exception as error:  # drivers and compilers fail in many ways
            value, self.failed = {"error": f"{type(error).__name__}: {error}"}, True
        self.found[name] = {**value, "seconds": round(time.monotonic() - begin, 2)}
        said = value.get("error", "done")
        print(f"  {name}: {said} ({self.found[name]['seconds']} s)", flush=True)
        self.write(complete=False)

    def write(self, complete: bool) -> None:
        """Replace the file by the current state."""
        about = {"complete": complete, "dry_run": self.dry_run, "date": now()}
        text = json.dumps({**about, "header": self.about, "found": self.found}, indent=1)
        write_text(self.path, text)
