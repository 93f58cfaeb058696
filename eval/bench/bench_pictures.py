"""Pictures of Push-T a second: `python eval/bench/bench_pictures.py`.

The pictures of `observation="image"`, drawn with NumPy, against MuJoCo's camera at the same 96 × 96
pixels. One core, random states; medians of interleaved blocks.
"""

# MuJoCo's bindings have no type stubs.
# pyright: reportAttributeAccessIssue=false

import math
import os
import time
from collections.abc import Callable
from typing import Any

import gymnasium
import mujoco
import numpy as np
from tqdm import tqdm

BLOCKS, PICTURES = 7, 500
SIDE = 96  # px
LOW, HIGH = (50, 50, 100, 100, -math.pi), (450, 450, 400, 400, math.pi)


def pictures_per_second(draw: Callable[[np.ndarray], np.ndarray], states: np.ndarray) -> float:
    """Rate over one block of states [N, 5]."""
    begin = time.perf_counter()
    for state in states:
        draw(state)
    return len(states) / (time.perf_counter() - begin)


def camera(env) -> Callable[[np.ndarray], np.ndarray]:
    """Picture [96, 96, 3] of a state, by MuJoCo."""
    renderer = mujoco.Renderer(env.model, SIDE, SIDE)

    def draw(state: np.ndarray) -> np.ndarray:
        env.data.qpos[:] = env.block.qpos_from_state(state)
        mujoco.mj_kinematics(env.model, env.data)
        mujoco.mj_camlight(env.model, env.data)
        renderer.update_scene(env.data, camera=env.camera)
        return renderer.render()

    return draw


def main() -> None:
    """Print the rates and their ratio."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    env: Any = gymnasium.make("diffpolicy.envs:PushT-v0").unwrapped
    ways = {"NumPy": env.painter, "MuJoCo": camera(env)}
    states = np.random.default_rng(0).uniform(LOW, HIGH, (PICTURES, 5))
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for _ in tqdm(range(BLOCKS), unit="block"):
        for name, draw in ways.items():
            rates[name].append(pictures_per_second(draw, states))
    for name, rate in rates.items():
        low, median, high = np.percentile(rate, [0, 50, 100])
        print(f"{name}: {median:,.0f} pictures/s (from {low:,.0f} to {high:,.0f})")
    print(f"  ratio {np.median(rates['NumPy']) / np.median(rates['MuJoCo']):.1f}")


if __name__ == "__main__":
    main()
