"""Latency of one control step as a robot pays it: numpy in, numpy out, batch 1."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from diffpolicy.checkpoint import Checkpoint, load_policy
from diffpolicy.config import Sampling
from diffpolicy.control.latency import LatencyProfile, percentiles
from diffpolicy.device import choose_device
from diffpolicy.engines.auto import verify
from diffpolicy.engines.cuda_graph import CudaGraphEngine
from diffpolicy.errors import DiffpolicyError
from diffpolicy.files import check_writable, write_text
from diffpolicy.policy import Policy
from diffpolicy.sampling.chain import audit_line

from .config import LatencyConfig
from .measure.diffusers_loop import DiffusersLoop, scheduler_class
from .measure.nets import fresh_checkpoint
from .measure.provenance import header, set_threads
from .measure.timing import MANY_SAMPLES, Timed, measure_calls, random_observation
from .report.table import print_table


def latency(config: LatencyConfig) -> None:
    """`diffpolicy latency`: a table, the budget that meets the deadline, and JSON on request."""
    set_threads(config.threads)
    if config.json:
        check_writable(config.json)
    checkpoint = _checkpoint(config)
    timed = list(_timed(config, checkpoint))
    with _busy_cores(config.stress) as ours:
        profiles = measure_calls(timed, config.seconds, config.seed, MANY_SAMPLES, ours)
    timed, profiles = _fastest(timed, profiles)
    records = _records(config, checkpoint, timed, profiles)
    _print(records)
    _print_deadline(config, checkpoint, timed, profiles)
    if config.json:
        about = {"run": str(config.run), "net": config.net, "stress": config.stress}
        result = {"header": header(choose_device(config.device), **about), "records": records}
        write_text(config.json, json.dumps(result, indent=1))


def _checkpoint(config: LatencyConfig) -> Checkpoint:
    if config.baseline:
        scheduler_class()  # before anything is measured
    if config.run and not config.net:
        checkpoint = load_policy(config.run)
        if config.baseline and checkpoint.specification.model.regression:
            raise DiffpolicyError("a regression policy has no loop to be compared with --baseline")
        return checkpoint
    if config.net and not config.run:
        return fresh_checkpoint(config.net)
    raise DiffpolicyError("give --run RUN or --net NAME, one of them")


def _timed(config: LatencyConfig, checkpoint: Checkpoint) -> Iterator[Timed]:
    """Every budget on every engine, each held against eager, and on the baseline."""
    rng = np.random.default_rng(config.seed)
    for k in sorted(set(config.ddim_steps)):
        policies = [
            Policy(checkpoint, Sampling(k), config.device, engine=name, precision=config.precision)
            for name in dict.fromkeys(config.engine)
        ]
        print(audit_line(policies[0].chain))
        observation = random_observation(policies[0], rng)
        for policy in {p.engine().name: p for p in policies}.values():
            engine = policy.engine()
            gpu_ms = engine.gpu_ms() if isinstance(engine, CudaGraphEngine) else None
            difference = verify(engine, policy.job())
            evals = policy.network_evals
            yield Timed(k, evals, engine.name, policy, observation, difference, gpu_ms)
        if config.baseline:
            loop = DiffusersLoop(checkpoint, k, policies[0].device)
            counts = {1} if loop.device.type == "cpu" else set()  # threads wait for one another
            for threads in sorted(counts | {torch.get_num_threads()}):
                yield Timed(k, k, config.baseline, loop, observation, None, threads=threads)


def _fastest(
    timed: Sequence[Timed], profiles: Sequence[LatencyProfile]
) -> tuple[list[Timed], list[LatencyProfile]]:
    """One of each budget and engine: of the baseline on one thread and on all, the faster."""
    best: dict[tuple[int, str], tuple[Timed, LatencyProfile]] = {}
    for pair in zip(timed, profiles, strict=True):
        key = pair[0].ddim_steps, pair[0].engine
        best[key] = min(best.get(key, pair), pair, key=lambda p: np.median(p[1].samples_ms))
    return [t for t, _ in best.values()], [profile for _, profile in best.values()]


def _records(
    config: LatencyConfig,
    checkpoint: Checkpoint,
    timed: Sequence[Timed],
    profiles: Sequence[LatencyProfile],
) -> list[dict[str, Any]]:
    parameters = sum(w.numel() for w in checkpoint.weights.values())
    medians = {(t.ddim_steps, t.engine): p for t, p in zip(timed, profiles, strict=True)}
    records = []
    for t, profile in zip(timed, profiles, strict=True):
        baseline = medians.get((t.ddim_steps, config.baseline or ""))
        found, p50 = percentiles(profile), float(np.median(profile.samples_ms))
        records.append(
            {
                "net": config.net,
                "ddim_steps": t.ddim_steps,
                "network_evals": t.network_evals,
                "parameters": parameters,
                "engine": t.engine,
                "threads": t.threads,
                "load": profile.load,
                "p50_ms": p50,
                "p99_ms": found["p99"],
                "ratio_to_baseline": baseline and float(np.median(baseline.samples_ms)) / p50,
                "max_abs_diff": t.max_abs_diff,
                "gpu_ms": t.gpu_ms,
                "precision": config.precision,
                "latency_ms": found,
                "samples_ms": np.round(profile.samples_ms, 5).tolist(),
            }
        )
    return records


def _print(records: Sequence[dict[str, Any]]) -> None:
    kinds = ("p50", "p90", "p99", "p99.9", "max", "jitter", "samples")
    titles = ["steps", "engine", *(f"{k} ms" if k != "samples" else k for k in kinds)]
    rows = [
        [
            r["ddim_steps"],
            r["engine"] + (f", threads {r['threads']}" if r["threads"] else ""),
            *(r["latency_ms"][k] for k in kinds),
            r["ratio_to_baseline"],
            r["max_abs_diff"],
            r["gpu_ms"],
            r["load"],
        ]
        for r in records
    ]
    print_table([*titles, "× baseline", "from eager", "GPU alone ms", "load"], rows)


def _print_deadline(
    config: LatencyConfig,
    checkpoint: Checkpoint,
    timed: Sequence[Timed],
    profiles: Sequence[LatencyProfile],
) -> None:
    """The largest budget of each engine whose p99, and p99.9, meet the deadline."""
    if config.net and config.deadline_ms is None:
        return
    deadline = config.deadline_ms or 1000 * checkpoint.specification.task.control_dt_s
    for engine in dict.fromkeys(t.engine for t in timed):
        parts = []
        for kind in ("p99", "p99.9"):
            known = [
                (t.ddim_steps, percentiles(p)[kind])
                for t, p in zip(timed, profiles, strict=True)
                if t.engine == engine
            ]
            fits = [k for k, ms in known if ms is not None and ms <= deadline]
            untold = all(ms is None for _, ms in known)
            best = "too few samples to tell" if untold else max(fits, default="none")
            parts.append(f"at {kind}: {best}")
        mine = (p for t, p in zip(timed, profiles, strict=True) if t.engine == engine)
        mark = " (disturbed)" if any(profile.disturbed for profile in mine) else ""
        print(f"{engine}: largest budget within {deadline:g} ms {', '.join(parts)}{mark}")


@contextmanager
def _busy_cores(wanted: bool) -> Iterator[list[int]]:
    """All cores but one kept busy by processes that do nothing else; their ids."""
    loops = []
    if wanted:
        command = [sys.executable, "-c", "while True: pass"]
        loops = [subprocess.Popen(command) for _ in range((os.cpu_count() or 1) - 1)]
    try:
        yield [loop.pid for loop in loops]
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()
