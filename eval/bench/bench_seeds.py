"""Training steps of several seeds at once against those of one: `python eval/bench/bench_seeds.py`.

Whole steps, from the windows to EMA, of the default network and of narrower ones on random windows
of Push-T's sizes: medians of interleaved blocks of one run, in each precision.
"""

# diffpolicy.eval is known to Python, not to pyright.
# pyright: reportMissingImports=false

import os
import time
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
import tyro

from diffpolicy.checked import NOT_EMPTY, Checked, Range
from diffpolicy.config import BATCH, ModelConfig
from diffpolicy.data.windows import Windows, make_windows
from diffpolicy.device import busy_cores_warning
from diffpolicy.eval.bench.bench_training import HORIZONS, Block, medians_s
from diffpolicy.eval.report.table import print_table
from diffpolicy.specification import FLAT, Specification, Task, flat_observation
from diffpolicy.training.learner import Learner
from diffpolicy.training.precision import PRECISIONS
from diffpolicy.training.together import Together

ROWS, LENGTH, OBSERVED, ACTIONS = 11_250, 125, 20, 2


@dataclass(frozen=True)
class Config(Checked):
    """Time of a training step of several seeds at once, as a multiple of that of one."""

    seeds: Annotated[int, Range(2, 1000)] = 8
    """Training seeds."""
    hidden: Annotated[tuple[int, ...], NOT_EMPTY, Range(4, 8192)] = (32, 64, 128, 256)
    """Widths of the network; 256 is the default of train."""
    batch: Annotated[int, Range(1, 10**6)] = BATCH
    """Windows of a step, for each seed."""
    threads: Annotated[int, Range(1, 1024)] = len(os.sched_getaffinity(0))
    """Threads of torch."""
    rounds: Annotated[int, Range(1, 10**4)] = 9
    """Blocks of each side that count."""
    steps: Annotated[int, Range(1, 10**6)] = 20
    """Steps of a block."""


def random_windows() -> Windows:
    """Windows of random episodes."""
    rng = np.random.default_rng(0)
    observation = rng.uniform(-1, 1, (ROWS, OBSERVED)).astype(np.float32)
    action = rng.uniform(-1, 1, (ROWS, ACTIONS)).astype(np.float32)
    ends = np.arange(LENGTH, ROWS + 1, LENGTH)
    return make_windows({FLAT: observation}, action, ends, HORIZONS)


def learner(hidden: int, seed: int, precision: str) -> Learner:
    """A new network on the CPU."""
    task = Task("none", 0.1, True, flat_observation(OBSERVED), ACTIONS)
    specification = Specification(ModelConfig(hidden=hidden), HORIZONS, task, 1.0, {})
    found = Learner(specification, torch.device("cpu"), seed=seed)
    found.precision = precision
    return found


def one(hidden: int, precision: str, windows: Windows, batch: int) -> Block:
    """Blocks of steps of one seed."""
    alone = learner(hidden, 0, precision)

    def block(steps: int) -> float:
        begin = time.perf_counter()
        float(sum(alone.learn(windows, batch, 0.5) for _ in range(steps)))
        return time.perf_counter() - begin

    return block


def several(config: Config, hidden: int, precision: str, windows: Windows) -> Block:
    """Blocks of steps of all seeds at once."""
    together = Together([learner(hidden, seed, precision) for seed in range(config.seeds)])
    of_all = [windows] * config.seeds

    def block(steps: int) -> float:
        begin = time.perf_counter()
        float(sum(together.learn(of_all, config.batch, 0.5).sum() for _ in range(steps)))
        return time.perf_counter() - begin

    return block


def main(config: Config) -> None:
    """Print a row for each width and precision."""
    torch.set_num_threads(config.threads)
    print(f"{config.threads} threads, batch {config.batch} for each seed")
    if warning := busy_cores_warning():
        print(f"warning: {warning}")
    windows, rows = random_windows(), []
    for hidden in config.hidden:
        for precision in PRECISIONS:
            sides = {
                "one": one(hidden, precision, windows, config.batch),
                "several": several(config, hidden, precision, windows),
            }
            found = medians_s(sides, config.rounds, config.steps)
            times = [round(1e3 * found[side], 2) for side in sides]
            rows.append([hidden, precision, *times, round(found["several"] / found["one"], 2)])
    names = ["ms, one seed", f"ms, {config.seeds} at once", "times as long"]
    print_table(["hidden", "precision", *names], rows)


if __name__ == "__main__":
    main(tyro.cli(Config))
