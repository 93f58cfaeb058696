"""Training steps of several seeds at once against those of one: `python eval/bench/bench_seeds.py`.

Whole steps, from the windows to EMA, of the default network and of narrower ones on random windows
of Push-T's sizes: medians of interleaved blocks of one run, in each precision.
"""

# diffpolicy.eval is known to Python, not to pyright.
# pyright: reportMissingImports=false

import os
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
import tyro

from diffpolicy.checked import NOT_EMPTY, Checked, Range
from diffpolicy.config import BATCH, ModelConfig
from diffpolicy.data.windows import Windows, make_windows
from diffpolicy.device import busy_cores_warning
from diffpolicy.eval.bench.bench_training import HORIZONS, Block, block_of, learner, medians_s
from diffpolicy.eval.report.table import print_table
from diffpolicy.specification import FLAT
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


def sides(config: Config, hidden: int, precision: str, windows: Windows) -> dict[str, Block]:
    """Blocks of steps of one seed, and of all seeds at once."""
    model = ModelConfig(hidden=hidden)
    alone = learner(model, precision)
    together = Together([learner(model, precision, seed) for seed in range(config.seeds)])
    of_all = [windows] * config.seeds
    return {
        "one": block_of(lambda: alone.learn(windows, config.batch, 0.5)),
        "several": block_of(lambda: together.learn(of_all, config.batch, 0.5).sum()),
    }


def main(config: Config) -> None:
    """Print a row for each width and precision."""
    torch.set_num_threads(config.threads)
    print(f"{config.threads} threads, batch {config.batch} for each seed")
    if warning := busy_cores_warning():
        print(f"warning: {warning}")
    windows, rows = random_windows(), []
    for hidden in config.hidden:
        for precision in PRECISIONS:
            blocks = sides(config, hidden, precision, windows)
            found = medians_s(blocks, config.rounds, config.steps)
            times = [round(1e3 * found[side], 2) for side in blocks]
            rows.append([hidden, precision, *times, round(found["several"] / found["one"], 2)])
    names = ["ms, one seed", f"ms, {config.seeds} at once", "times as long"]
    print_table(["hidden", "precision", *names], rows)


if __name__ == "__main__":
    main(tyro.cli(Config))
