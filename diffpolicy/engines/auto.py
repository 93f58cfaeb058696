"""`engine="auto"`: the fastest engine that works here and gives the actions of eager.

Every candidate is built, compared with eager on random inputs and timed for a moment; the encoder
of pictures is chosen apart from the loop, and both together are compared with eager. A choice is
kept beside the checkpoint, for the same weights, chain, machine and versions only.
"""

import contextlib
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from diffpolicy.checked import Range, read_json, validate
from diffpolicy.engines import ENGINES, build_encoder, build_engine
from diffpolicy.engines.job import Job
from diffpolicy.engines.native import SOURCE, processor
from diffpolicy.engines.stages import Stages, build_stages
from diffpolicy.errors import DiffpolicyError, EngineUnavailable
from diffpolicy.files import write_text

TOLERANCE = {"float32": 1e-4, "tf32": 0.01, "bfloat16": 0.05, "float64": 1e-4}
SECONDS, FEWEST, CHECKED = 0.25, 5, 4
STALE = 1.5  # ratio of times at which a kept choice is made again
CACHE_FILE = "engines.json"


@dataclass(frozen=True)
class Choice:
    """The engine of a job with its median time, and the reason in one sentence."""

    engine: str
    threads: int
    ms: Annotated[float, Range(1e-6, 1e9)]
    why: str


class Stage(NamedTuple):
    """A stage of an engine: its builder, random inputs of a job, and names of what it makes."""

    build: Callable[[str, Job], Callable[..., Tensor]]
    inputs: Callable[[Job, int], tuple[Any, ...]]
    call: str
    results: str


def _noise(job: Job, seed: int) -> tuple[Tensor, Tensor]:
    """An encoded observation and noise."""
    rng = np.random.default_rng(seed)
    observation = rng.uniform(-1, 1, job.observation_shape).astype(np.float32)
    noise = rng.standard_normal(job.noise_shape, np.float32)
    return torch.from_numpy(observation), torch.from_numpy(noise)


def _pictures(job: Job, seed: int) -> tuple[dict[str, Tensor]]:
    """An observation of noise."""
    rng = np.random.default_rng(seed)

    def draw(like: Tensor) -> Tensor:
        low, high = (0, 256) if like.dtype == torch.uint8 else (-1, 1)
        return torch.from_numpy(rng.uniform(low, high, like.shape)).to(like.dtype)

    return ({key: draw(zeros) for key, zeros in job.no_observation().items()},)


LOOP = Stage(build_engine, _noise, "a chunk", "actions")
ENCODER = Stage(build_encoder, _pictures, "an observation", "features")
WHOLE = Stage(
    lambda name, job: _whole(build_stages(name, job)),
    lambda job, seed: (*_pictures(job, seed), _noise(job, seed)[1]),
    "a call",
    "actions",
)


def _whole(stages: Stages) -> Callable[..., Tensor]:
    """A call of both stages: an observation and noise to a chunk."""
    return lambda observation, noise: stages(stages.encode(observation), noise)


def choose_stages(job: Job, folder: Path | None = None) -> tuple[Stages, str]:
    """Both stages, each chosen on its own, and the reasons; eager if together they are off."""
    loop, why = choose(job, folder)
    if not job.pictures:
        return Stages(build_encoder(loop.name, job), loop), why
    encode, first = choose(job, folder, ENCODER)
    stages = Stages(encode, loop)
    try:
        if stages.name != "eager":
            verify(_whole(stages), job, WHOLE)
    except EngineUnavailable as error:
        return build_stages("eager", job), f"eager; {stages.name} is out: {error}"
    return stages, f"{first}; then {why}"


def choose(job: Job, folder: Path | None = None, stage: Stage = LOOP) -> tuple[Any, str]:
    """The engine of one stage, by default the loop, and one sentence with the reason.

    It is kept in `folder` if one is given.
    """
    cache, key = (folder / CACHE_FILE if folder else None), _key(job, stage)
    if (known := _read(cache).get(key)) is not None:
        with contextlib.suppress(DiffpolicyError):  # damaged, or works no longer: choose again
            choice: Choice = validate(Choice, known, CACHE_FILE)
            _check_candidate(choice, job, stage)
            engine = stage.build(choice.engine, replace(job, threads=choice.threads))
            verify(engine, job, stage)
            if 1 / STALE < _median_ms(engine, stage.inputs(job, 0)) / choice.ms < STALE:
                return engine, choice.why + " (kept from before)"
    engine, choice = _try_all(job, stage)
    if cache:
        with contextlib.suppress(OSError):  # a run that cannot be written to can still be run
            write_text(cache, json.dumps({**_read(cache), key: asdict(choice)}, indent=1))
    return engine, choice.why


def candidates(job: Job, stage: Stage) -> dict[str, list[int]]:
    """Numbers of threads to try, by engine; none for an engine that is not tried."""
    device, found, encoders = job.denoiser.device.type, {}, set()
    for name, home in ENGINES.items():
        if device not in home.devices or (stage is ENCODER and home.encoder in encoders):
            continue
        encoders.add(home.encoder)
        threads = home.encoder_threads if stage is ENCODER else home.threads
        counts = sorted({count or job.threads for count in threads})
        found[name] = counts if job.batch <= home.largest_batch else []
    return found


def _check_candidate(choice: Choice, job: Job, stage: Stage) -> None:
    """DiffpolicyError unless the choice could have been made here, with a reason in plain text."""
    tried = candidates(job, stage).get(choice.engine, [])
    if choice.threads not in tried or not choice.why.isprintable():
        raise DiffpolicyError(f"{CACHE_FILE} holds a choice that was not made here")


def _try_all(job: Job, stage: Stage) -> tuple[Any, Choice]:
    """Build, check and time every candidate; the fastest."""
    working: list[tuple[float, int, str, Any, str]] = []
    out: list[str] = []
    for name, counts in candidates(job, stage).items():
        home = ENGINES[name]
        if not counts:
            out.append(
                f"{name} not tried ({home.untried or f'for batches up to {home.largest_batch}'})"
            )
        try:
            for threads in counts:  # on a busy machine one is faster than all
                engine = stage.build(name, replace(job, threads=threads))
                if name != "eager":
                    verify(engine, job, stage)
                ms = _median_ms(engine, stage.inputs(job, 0))
                told = f"{name} on {threads} thread{'s' * (threads > 1)} {ms:.3g} ms"
                working.append((ms, threads, name, engine, told))
        except EngineUnavailable as error:
            out.append(f"{name} is out: {error}")
    best, *others = sorted(working, key=lambda each: each[0])
    ms, threads, name, engine, told = best
    losers = [*(each[-1] for each in others), *out]
    why = f"{told} {stage.call} at batch {job.batch}; {'; '.join(losers)}"
    return engine, Choice(name, threads, ms, why)


def verify(engine: Callable[..., Tensor], job: Job, stage: Stage = LOOP) -> float:
    """The largest difference from eager on random inputs; EngineUnavailable beyond the tolerance.

    The tolerance is 1e-4, or ten times the rounding error of the chain in float32: one step from
    t = T - 1 under ε-prediction multiplies it by 1/√ᾱ, 2029 on the squaredcos schedule.
    """
    eager = stage.build("eager", replace(job, precision="float32"))
    exact = stage.build("eager", replace(job, precision="float64"))
    worst = allowed = 0.0
    for seed in range(CHECKED):
        inputs = stage.inputs(job, seed)
        expected = eager(*inputs)
        difference = (engine(*inputs) - expected).abs().max().item()
        rounding = rounding_error(exact, inputs, expected)
        allowed = max(allowed, TOLERANCE[job.precision], 10 * rounding)
        worst = max(worst, difference if difference == difference else float("inf"))
    if worst > allowed:
        raise EngineUnavailable(
            f"its {stage.results} differ from eager's by {worst:.2g}, more than {allowed:.2g}"
        )
    return worst


def rounding_error(exact: Callable[..., Tensor], inputs: Iterable[Any], expected: Tensor) -> float:
    """The largest difference of a result in float32 from that of an engine in float64."""
    doubled = [x.double() if isinstance(x, Tensor) else x for x in inputs]
    return (exact(*doubled) - expected).abs().max().item()


def verify_stages(stages: Stages, job: Job) -> float:
    """The largest difference of both stages and of whole calls from eager, as of `verify`.

    The chain can multiply differences of features that are within the tolerance.
    """
    loop = verify(stages.loop, job)
    if not job.pictures:
        return loop
    encoder = verify(stages.encode, job, ENCODER)
    return max(loop, encoder, verify(_whole(stages), job, WHOLE))


def _median_ms(engine: Callable[..., Tensor], inputs: tuple[Any, ...]) -> float:
    """Median time of a call, its result on the CPU."""
    samples = []
    engine(*inputs)
    begin = time.perf_counter()
    while len(samples) < FEWEST or time.perf_counter() - begin < SECONDS:
        start = time.perf_counter_ns()
        engine(*inputs).cpu()
        samples.append((time.perf_counter_ns() - start) / 1e6)
    return float(np.median(samples))


def _key(job: Job, stage: Stage = LOOP) -> str:
    """A digest of all that a choice depends on."""
    weights = hashlib.sha256()
    network = job.denoiser.encoder if stage is ENCODER else job.denoiser
    for name, value in network.state_dict().items():
        weights.update(name.encode() + value.detach().float().cpu().numpy().tobytes())
    device = job.denoiser.device
    machine = [torch.cuda.get_device_name(device)] if device.type == "cuda" else []
    machine += [processor(), shutil.which("cc"), os.environ.get("CC"), SOURCE.read_bytes()]
    versions = [f"{name} {_version(name)}" for name in ("diffpolicy", "torch", "onnxruntime")]
    work = [job.observations, job.horizons.observation] if stage is ENCODER else job.chain
    settings = [work, job.batch, job.threads, job.precision]
    parts = [weights.hexdigest(), *settings, machine, versions]
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:32]


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "absent"


def _read(cache: Path | None) -> dict[str, Any]:
    """The cache; empty if it is damaged or missing."""
    try:
        return validate(dict[str, Any], read_json(cache), str(cache)) if cache else {}
    except (OSError, DiffpolicyError):
        return {}
