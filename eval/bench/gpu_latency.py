"""Latencies of eval/gpu.py: CUDA graphs against diffusers' loop and memory bandwidth."""

import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from statistics import median

import numpy as np
import torch

from diffpolicy.config import Sampling
from diffpolicy.control.latency import LatencyProfile, percentiles
from diffpolicy.engines.stages import build_stages
from diffpolicy.policy import Policy

from ..measure.diffusers_loop import DiffusersLoop
from ..measure.nets import fresh_checkpoint
from ..measure.timing import (
    MANY_SAMPLES,
    Histories,
    Timed,
    measure_parts,
    random_observation,
    timed_policy,
)
from ..report.table import print_table
from .gpu_plan import Found, Plan, Result

TARGETS_MS = {1: (0.4, 0.08), 10: (2.5, 0.5), 100: (25.0, 4.5)}  # p50 to reach, and aim, on an H200
TAIL = 1.5  # p99.9 over p50, to reach


def latencies(result: Result, plan: Plan) -> None:
    """Measure bandwidth and targets, then every net at every precision, then the CPU."""
    result.once("bandwidth", _bandwidth, plan)
    speed = result.found["bandwidth"].get("bytes_per_s")
    for k, engine, seconds in plan.targets:
        mine = replace(plan, budgets=(k,), engine=engine, seconds=seconds, baseline=False)
        name = _target(plan, k, engine)
        result.once(name, _measured, mine, plan.nets[0], plan.target_precision, speed)
    pictures = replace(plan, budgets=plan.image_budgets)
    for precision in plan.precisions:
        for net in plan.nets:
            result.once(f"{net}, {precision}", _measured, plan, net, precision, speed)
        result.once(
            f"{plan.image_net}, {precision}", _measured, pictures, plan.image_net, precision, speed
        )
    on_cpu = replace(plan, device="cpu", engine=plan.cpu_engine, baseline=False)
    for net in reversed(plan.nets):  # the large one last
        result.once(f"{net}, cpu", _measured, on_cpu, net, "float32", None)
    _print_targets(result, plan)


def _target(plan: Plan, k: int, engine: str) -> str:
    return f"target: {plan.nets[0]}, {plan.target_precision}, {engine}, K = {k}"


def _bandwidth(plan: Plan) -> Found:
    """Bytes per second, read plus written, of a copy that is larger than the caches."""
    source = torch.ones(plan.copied_bytes // 4, device=plan.device)
    target, seconds = torch.empty_like(source), []
    for _ in range(20):
        begin = now_s(plan.device)
        target.copy_(source)
        seconds.append(now_s(plan.device) - begin)
    return {"bytes_per_s": 2 * plan.copied_bytes / median(seconds)}


def now_s(device: str) -> float:
    """Time in seconds, after synchronising the device."""
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def _measured(plan: Plan, net: str, precision: str, bytes_per_s: float | None) -> Found:
    """Measure all budgets interleaved; in float32 diffusers' loop too, with torch's defaults.

    floor_ms is the time to read the weights from memory, see `numbers_read`.
    """
    timed = list(_timed(plan, net, precision))
    profiles = measure_parts(timed, plan.seconds, 0, MANY_SAMPLES)
    pairs = list(zip(timed, profiles, strict=True))
    today = {t.ddim_steps: _p50(p) for t, p in pairs if t.engine == "diffusers"}
    weights = fresh_checkpoint(net).weights
    ms_per_number = bytes_per_s and 1000 * (2 if precision == "bfloat16" else 4) / bytes_per_s
    records = [
        {
            "ddim_steps": t.ddim_steps,
            "engine": t.engine,
            "load": profile.load,
            "latency_ms": percentiles(profile),
            "encoder_ms": profile.encoder_ms,
            "max_abs_diff": t.max_abs_diff,
            "gpu_ms": t.gpu_ms,
            "floor_ms": ms_per_number and ms_per_number * numbers_read(weights, t.ddim_steps),
            "ratio_to_baseline": today[t.ddim_steps] / _p50(profile) if today else None,
        }
        for t, profile in pairs
    ]
    return {"parameters": sum(w.numel() for w in weights.values()), "records": records}


def numbers_read(weights: Mapping[str, torch.Tensor], steps: int) -> int:
    """Weights that one call reads: those of the encoder once, all others at every step."""
    return sum(w.numel() * (1 if n.startswith("encoder.") else steps) for n, w in weights.items())


def _p50(profile: LatencyProfile) -> float:
    return float(np.median(profile.samples_ms))


def _timed(plan: Plan, net: str, precision: str) -> Iterator[Timed]:
    checkpoint, rng = fresh_checkpoint(net), np.random.default_rng(0)
    for k in plan.budgets:
        policy = Policy(
            checkpoint, Sampling(k), plan.device, engine=plan.engine, precision=precision
        )
        observation = random_observation(policy, rng)
        ours = timed_policy(
            policy,
            observation,
            max_abs_diff=_difference(policy, observation, rng),
            gpu_ms=policy.engine().gpu_ms(),
        )
        yield ours
        if plan.baseline and precision == "float32":
            loop = DiffusersLoop(checkpoint, k, policy.device)
            encode = loop.encode if ours.encode else None
            yield Timed(k, k, "diffusers", loop, observation, encode=encode)


def _difference(policy: Policy, observation: Histories, rng: np.random.Generator) -> float:
    """Largest difference of a chunk from eager in float32; the normalisers are identities."""
    job = policy.job()
    histories = {key: torch.from_numpy(history) for key, history in observation.items()}
    noise = torch.from_numpy(rng.standard_normal(job.noise_shape, np.float32))
    exact = build_stages("eager", replace(job, precision="float32"))
    found, expected = (s(s.encode(histories), noise) for s in (policy.engine(), exact))
    return float((found - expected).abs().max())


def _print_targets(result: Result, plan: Plan) -> None:
    rows = []
    for k, engine, _ in plan.targets:
        for r in result.found[_target(plan, k, engine)].get("records", []):
            ms, (reach, aim) = r["latency_ms"], TARGETS_MS[k]
            tail = ms["p99.9"] and ms["p99.9"] / ms["p50"]
            rows.append([k, r["engine"], ms["p50"], reach, aim, r["floor_ms"], tail, TAIL])
    titles = ["steps", "engine", "p50 ms", "to reach", "aim", "floor ms", "p99.9 / p50", "to reach"]
    print_table(titles, rows)
