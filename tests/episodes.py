"""Whole episodes of an environment."""

from collections.abc import Callable
from typing import Any, NamedTuple

import gymnasium
import numpy as np


class Episode(NamedTuple):
    """Arrays of an episode of T ticks, and its end."""

    observations: np.ndarray  # [T + 1, D_o]
    rewards: np.ndarray  # [T]
    infos: list[dict[str, Any]]  # T + 1, that of the reset first
    terminated: bool
    truncated: bool


def play(env: gymnasium.Env, policy: Callable[[Any], Any], seed: int) -> Episode:
    """Play one episode until it is terminated or truncated."""
    observation, info = env.reset(seed=seed)
    observations, rewards, infos = [observation], [], [info]
    terminated = truncated = False
    while not (terminated or truncated):
        observation, reward, terminated, truncated, info = env.step(policy(observation))
        observations.append(observation)
        rewards.append(reward)
        infos.append(info)
    return Episode(np.array(observations), np.array(rewards), infos, terminated, truncated)
