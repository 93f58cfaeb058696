"""Latency and misses of a chain with and without a deadline cut: `bench_deadline.py --run RUN`.

Each with idle cores and while twice as many busy loops as cores run beside it.
"""

# diffpolicy.eval is known to Python, not to pyright.
# pyright: reportMissingImports=false

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import tyro

from diffpolicy.eval.report.table import print_table
from diffpolicy.policy import Policy


@dataclass(frozen=True)
class Config:
    """Latency and misses of a chain with and without a deadline cut."""

    run: Path
    """Run folder of a policy."""
    ddim_steps: int = 100
    """Denoising steps per chunk."""
    deadline_ms: float = 20.0
    """Deadline of a chunk in milliseconds."""
    seconds: float = 8.0
    """Seconds of each measurement."""


@contextmanager
def busy_cores(count: int) -> Iterator[None]:
    """So many busy loops in other processes."""
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        time.sleep(0.5 if count else 0)
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def latencies_ms(policy: Policy, seconds: float) -> np.ndarray:
    """Milliseconds of each call, one after the other."""
    start, found = time.perf_counter(), []
    history = policy.horizons.observation
    specs = policy.observations.items()
    seen = {key: np.zeros((1, history, *spec.shape), spec.dtype) for key, spec in specs}
    while (begun := time.perf_counter()) - start < seconds:
        policy(seen)
        found.append(1000 * (time.perf_counter() - begun))
    return np.array(found)


def main(config: Config) -> None:
    """Print a line for each strategy, idle and under load."""
    torch.set_num_threads(1)
    rows = []
    for late in ("drop", f"cut:{config.deadline_ms:g}"):
        policy = Policy.load(config.run, ddim_steps=config.ddim_steps, late=late)
        policy.prepare()
        for count in (0, 2 * (os.cpu_count() or 1)):
            policy.evaluations_made.clear()
            with busy_cores(count):
                found = latencies_ms(policy, config.seconds)
            made = np.array(policy.evaluations_made or [policy.network_evals])
            missed, cut = np.mean(found > config.deadline_ms), np.mean(made < policy.network_evals)
            figures = [*np.percentile(found, (50, 95, 99)), missed, made.mean(), cut]
            rows.append([late, count, len(found), *(round(float(x), 3) for x in figures)])
    titles = ["late", "busy loops", "calls", "p50 ms", "p95 ms", "p99 ms", "missed"]
    print_table([*titles, "evaluations", "cut"], rows)


if __name__ == "__main__":
    main(tyro.cli(Config))
