"""Control steps a second through the Gymnasium API: `python eval/bench/bench_env.py`.

One process and one environment at a time, with actions of a bounded random walk, because an
expert would add the time of its planning. Median of interleaved blocks.
"""

import time

import gymnasium
import numpy as np
from tqdm import tqdm

BLOCKS, STEPS = 7, 2000
IDS = tuple(f"diffpolicy.envs:{name}-v0" for name in ("PushT", "Balance", "Detour", "Catch"))


def steps_per_second(env, act) -> float:
    """Rate of one block of control steps, resets included."""
    begin, observation = time.perf_counter(), env.reset(seed=0)[0]
    for seed in range(STEPS):
        observation, _, terminated, truncated, _ = env.step(act(observation))
        if terminated or truncated:
            observation, _ = env.reset(seed=seed)
    return STEPS / (time.perf_counter() - begin)


def wandering(env):
    """Policy of a bounded random walk through the space of actions."""
    rng = np.random.default_rng(0)
    space = env.action_space
    target = (space.low + space.high) / 2

    def act(observation: np.ndarray) -> np.ndarray:
        nonlocal target
        spread = 0.05 * (space.high - space.low)
        target = np.clip(target + rng.normal(0, 1, space.shape) * spread, space.low, space.high)
        return target.astype(space.dtype)

    return act


def main() -> None:
    """Print one line for each environment."""
    envs = [gymnasium.make(name) for name in IDS]
    acts = [wandering(env) for env in envs]
    rates: list[list[float]] = [[] for _ in envs]
    for _ in tqdm(range(BLOCKS), unit="block"):
        for i, env in enumerate(envs):
            rates[i].append(steps_per_second(env, acts[i]))
    for name, rate in zip(IDS, rates, strict=True):
        low, median, high = np.percentile(rate, [0, 50, 100])
        print(f"{name}: {median:,.0f} control steps/s (from {low:,.0f} to {high:,.0f})")


if __name__ == "__main__":
    main()
