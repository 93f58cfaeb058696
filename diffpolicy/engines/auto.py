"""`engine="auto"`: the fastest engine that works here and gives what eager gives.

Every candidate is built, held against eager on random inputs and timed for a moment. The choice is
kept beside the checkpoint, for the same weights, chain, machine and versions only.
"""

import contextlib
import hashlib
import json
import os
import shutil
import time
from dataclasses import asdict, dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch

from diffpolicy.checked import Range, read_json, validate
from diffpolicy.engines import Engine, build_engine
from diffpolicy.engines.eager import EagerEngine
from diffpolicy.engines.job import Job
from diffpolicy.engines.native import SOURCE, processor
from diffpolicy.errors import DiffpolicyError
from diffpolicy.files import write_text

CANDIDATES = {"cpu": ("native", "onnx", "eager"), "cuda": ("cuda-graph", "eager")}
UNTRIED = {"compiled": "not tried (minutes to build)"}
TOLERANCE = {"float32": 1e-4, "tf32": 0.01, "bfloat16": 0.05, "float64": 1e-4}
SECONDS, FEWEST, CHECKED = 0.25, 5, 4
STALE = 1.5  # a kept choice that has become slower or faster than this is made again
FEW = 4  # samples of a batch that may go one after the other
CACHE_FILE = "engines.json"


@dataclass(frozen=True)
class Tried:
    """What became of a candidate: its median, or why it is out."""

    name: str
    threads: int
    ms: float | None
    reason: str

    def __str__(self) -> str:
        if self.ms is None:
            return f"{self.name} {self.reason}"
        return f"{self.name} on {self.threads} thread{'s' * (self.threads > 1)} {self.ms:.3g} ms"


@dataclass(frozen=True)
class Choice:
    """The kept part of a choice."""

    engine: str
    threads: int
    ms: Annotated[float, Range(1e-6, 1e9)]
    why: str


def choose(job: Job, folder: Path | None = None) -> tuple[Engine, str]:
    """The engine, and one sentence that says why it was taken."""
    cache, key = (folder / CACHE_FILE if folder else None), _key(job)
    if (known := _read(cache).get(key)) is not None:
        with contextlib.suppress(DiffpolicyError):  # damaged, or works no longer: choose again
            choice: Choice = validate(Choice, known, CACHE_FILE)
            _check_candidate(choice, job)
            engine = build_engine(choice.engine, replace(job, threads=choice.threads))
            verify(engine, job)
            if 1 / STALE < _median_ms(engine, job) / choice.ms < STALE:
                return engine, choice.why + " (kept from before)"
    engine, best, why = _try_all(job)
    if cache:
        choice = Choice(engine.name, best.threads, best.ms or 0.0, why)
        with contextlib.suppress(OSError):  # a run that cannot be written to can still be run
            write_text(cache, json.dumps({**_read(cache), key: asdict(choice)}, indent=1))
    return engine, why


def _check_candidate(choice: Choice, job: Job) -> None:
    """A file says nothing but what could have been chosen here, in plain text."""
    candidates = CANDIDATES[job.denoiser.device.type]
    plain = choice.why.isprintable()
    if choice.engine not in candidates or choice.threads not in (1, job.threads) or not plain:
        raise DiffpolicyError(f"{CACHE_FILE} holds a choice that was not made here")


def _try_all(job: Job) -> tuple[Engine, Tried, str]:
    """The fastest engine, how it did, and why it was taken."""
    tried, working = [], []
    for name in CANDIDATES[job.denoiser.device.type]:
        if name == "native" and job.batch > FEW:
            tried.append(Tried(name, 1, None, f"not tried (for batches up to {FEW})"))
            continue
        counts = {"native": {1, job.threads}, "onnx": {1}}.get(name, {job.threads})
        for threads in sorted(counts):  # on a busy machine one is faster than all
            try:
                engine = build_engine(name, replace(job, threads=threads))
                if name != "eager":
                    verify(engine, job)
            except DiffpolicyError as error:
                tried.append(Tried(name, threads, None, f"is out: {error}"))
                break
            tried.append(Tried(name, threads, _median_ms(engine, job), ""))
            working.append((tried[-1], engine))
    best, engine = min(working, key=lambda pair: pair[0].ms)
    losers = [str(t) for t in tried if t is not best]
    losers += [f"{name} {reason}" for name, reason in UNTRIED.items()]
    why = f"{best} a chunk at batch {job.batch}; {'; '.join(losers)}"
    return engine, best, why


def verify(engine: Engine, job: Job) -> float:
    """The largest difference from eager on random inputs; DiffpolicyError beyond the tolerance.

    1e-4, or ten times what float32 itself costs the chain: one step from t = T - 1 under
    ε-prediction multiplies rounding errors by 1/√ᾱ, 2029 times on the squaredcos schedule.
    """
    eager = EagerEngine(replace(job, precision="float32"))
    exact = EagerEngine(replace(job, precision="float64"))
    worst = allowed = 0.0
    for seed in range(CHECKED):
        observation, noise = inputs = _inputs(job, seed)
        expected = eager(*inputs)
        difference = (engine(*inputs) - expected).abs().max().item()
        rounding = (exact(observation.double(), noise.double()) - expected).abs().max().item()
        allowed = max(allowed, TOLERANCE[job.precision], 10 * rounding)
        worst = max(worst, difference if difference == difference else float("inf"))
    if worst > allowed:
        raise DiffpolicyError(
            f"its actions differ from eager's by {worst:.2g}, more than {allowed:.2g}"
        )
    return worst


def _inputs(job: Job, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(seed)
    observation = rng.uniform(-1, 1, job.observation_shape).astype(np.float32)
    noise = rng.standard_normal(job.noise_shape, np.float32)
    return torch.from_numpy(observation), torch.from_numpy(noise)


def _median_ms(engine: Engine, job: Job) -> float:
    inputs, samples = _inputs(job, 0), []
    engine(*inputs)
    begin = time.perf_counter()
    while len(samples) < FEWEST or time.perf_counter() - begin < SECONDS:
        start = time.perf_counter_ns()
        engine(*inputs)
        samples.append((time.perf_counter_ns() - start) / 1e6)
    return float(np.median(samples))


def _key(job: Job) -> str:
    """Everything that a choice depends on."""
    weights = hashlib.sha256()
    for name, value in job.denoiser.state_dict().items():
        weights.update(name.encode() + value.detach().float().cpu().numpy().tobytes())
    device = job.denoiser.device
    machine = [torch.cuda.get_device_name(device)] if device.type == "cuda" else []
    machine += [processor(), shutil.which("cc"), os.environ.get("CC"), SOURCE.read_bytes()]
    versions = [f"{name} {_version(name)}" for name in ("diffpolicy", "torch", "onnxruntime")]
    parts = [
        weights.hexdigest(),
        job.chain,
        job.batch,
        job.threads,
        job.precision,
        machine,
        versions,
    ]
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:32]


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "absent"


def _read(cache: Path | None) -> dict[str, Any]:
    """The cache; a damaged or missing one is an empty one."""
    try:
        return validate(dict[str, Any], read_json(cache), str(cache)) if cache else {}
    except (OSError, DiffpolicyError):
        return {}
