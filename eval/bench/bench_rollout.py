"""Episodes a second in one process and in workers: `python eval/bench/bench_rollout.py`."""

# diffpolicy.eval is known to Python, not to pyright.
# pyright: reportMissingImports=false

import time
from dataclasses import dataclass

import numpy as np
import tyro

from diffpolicy.control.latency import PAUSED
from diffpolicy.control.workers import Workers
from diffpolicy.eval.config import EvalConfig
from diffpolicy.eval.measure.budgets import load_budget
from diffpolicy.eval.measure.evaluator import Evaluator
from diffpolicy.eval.report.table import print_table


@dataclass(frozen=True)
class Config(EvalConfig):
    """Episodes a second in one process and in workers, interleaved."""

    episodes: int = 200
    """Episodes of each round."""
    ddim_steps: int = 4
    """Denoising steps per chunk."""
    workers: int | None = 2
    """Number of worker processes compared with one process."""
    rounds: int = 3
    """Interleaved rounds of one process and of the workers; medians are compared."""


def main(config: Config) -> None:
    """Print a line for each number of workers."""
    policy = load_budget(config)
    with Evaluator(config, policy) as evaluator:
        crews = {1: Workers(1), config.workers: evaluator.workers}
        times: dict[int | None, list[float]] = {count: [] for count in crews}
        for crew in crews.values():  # started, engines built
            crew.run_episodes(
                policy, evaluator.make, evaluator.seeds[:8], PAUSED, evaluator.options
            )
        for _ in range(config.rounds):
            for count, crew in crews.items():
                start = time.perf_counter()
                crew.run_episodes(
                    policy, evaluator.make, evaluator.seeds, PAUSED, evaluator.options
                )
                times[count].append(time.perf_counter() - start)
    alone = float(np.median(times[1]))
    rows = []
    for count, seconds in times.items():
        median = float(np.median(seconds))
        rows.append([evaluator.env_id, count, median, config.episodes / median, alone / median])
    print_table(["environment", "workers", "seconds", "episodes/s", "× one process"], rows)


if __name__ == "__main__":
    main(tyro.cli(Config))
