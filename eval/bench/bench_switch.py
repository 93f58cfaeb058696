"""Headroom of switching between budgets by need: `python eval/bench/bench_switch.py --run RUN`.

A rule may take a fast budget where something unforeseen has happened, and a slow one else. Even an
oracle cannot do better than chunks as good as those of the best budget that arrive as early as
those of the fastest one. The gap between this ceiling and the best fixed budget is the headroom.
"""

# diffpolicy.eval is known to Python, not to pyright.
# pyright: reportMissingImports=false

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro

from diffpolicy.checkpoint import load_policy
from diffpolicy.control.latency import delay_ticks
from diffpolicy.eval.delays import delays
from diffpolicy.eval.delays_config import DelaysConfig
from diffpolicy.eval.report.table import print_table
from diffpolicy.eval.significance import difference_interval


@dataclass(frozen=True)
class Config:
    """Print the headroom of switching between budgets."""

    run: Path
    """Run folder of a policy."""
    out: Path
    """Folder to write the results of `delays`."""
    ms_per_step: float = 10.0
    """Milliseconds of a denoising step."""
    ddim_steps: tuple[int, ...] = (1, 2, 4, 8)
    """Budgets to switch between."""
    episodes: int = 400
    """Episodes for each budget and delay."""


def main(config: Config) -> None:
    """Evaluate every budget at every delay of the menu."""
    dt = load_policy(config.run).specification.task.control_dt_s
    ticks = {k: delay_ticks(k * config.ms_per_step, dt) for k in config.ddim_steps}
    about = {"episodes": config.episodes, "ddim_steps": config.ddim_steps, "out": config.out}
    asked = tuple(sorted(set(ticks.values())))
    rows = delays(DelaysConfig(run=config.run, ticks=asked, **about)).rows
    found = {(row.ddim_steps, row.ticks): np.array(row.outcomes.success, float) for row in rows}
    menu = {k: found[k, d] for k, d in ticks.items()}
    first = min(ticks.values())
    best = max(menu, key=lambda k: menu[k].mean())
    top = max(ticks, key=lambda k: found[k, first].mean())
    ceiling = found[top, first]
    print_table(["steps", "delay", "success"], [[k, ticks[k], menu[k].mean()] for k in menu])
    interval = difference_interval(ceiling, menu[best], paired=True)
    print(
        f"ceiling: {top} steps at {first} ticks, {ceiling.mean():.3f}; best fixed budget: {best} "
        f"steps, {menu[best].mean():.3f}; headroom {ceiling.mean() - menu[best].mean():+.3f}, "
        f"95 % interval {interval or 'not told: fewer than 10 episodes differ'}"
    )


if __name__ == "__main__":
    main(tyro.cli(Config))
