"""A rollout with pictures of it, in whatever process; matplotlib is for those who draw."""

from collections.abc import Callable, MutableSequence
from typing import Any, NamedTuple

import gymnasium
import numpy as np

from diffpolicy import environment
from diffpolicy.control.episode import Episode, RolloutOptions
from diffpolicy.control.latency import LatencyProfile
from diffpolicy.control.rollout import episodes
from diffpolicy.errors import DiffpolicyError
from diffpolicy.policy import Policy

FRAMES = 6  # of a film strip


class _Filmed(gymnasium.Wrapper):
    """Keeps pictures {tick: image} and observations: rendering every tick would take minutes."""

    def __init__(self, env):
        super().__init__(env)
        self.every = max(1, environment.episode_limit(env) // (4 * FRAMES))
        self.frames: dict[int, np.ndarray] = {}
        self.observations: list[np.ndarray] = []
        self.trouble: str | None = None if env.render_mode else "it has no rgb_array mode"

    def reset(self, **options):
        outcome = self.env.reset(**options)
        self._keep(outcome[0], last=False)
        return outcome

    def step(self, action):
        outcome = self.env.step(action)
        self._keep(outcome[0], last=outcome[2] or outcome[3])
        return outcome

    def _keep(self, observation: np.ndarray, last: bool) -> None:
        tick = len(self.observations)
        self.observations.append(observation)
        if self.trouble or (tick % self.every and not last):
            return
        try:
            frame = np.asarray(self.env.render())
            if frame.ndim != 3:
                raise ValueError(f"its pictures have the shape {frame.shape}")
            self.frames[tick] = frame
        except Exception as error:  # drivers fail in many ways; the report says which
            self.trouble = str(error)


class Film(NamedTuple):
    """One rollout: pictures {tick: image}, or the trouble in their place, and observations."""

    episode: Episode
    frames: dict[int, np.ndarray]
    observations: list[np.ndarray]
    trouble: str | None


def film(
    policy: Policy,
    make_env: Callable[..., Any],
    seed: int,
    profile: LatencyProfile,
    options: RolloutOptions,
    at: MutableSequence[int],
) -> Film:
    """The seed's episode, with pictures where the environment knows some."""
    envs: list[_Filmed] = []

    def make_filmed() -> _Filmed:
        envs.append(_Filmed(_renderable(make_env)))
        return envs[-1]

    [episode] = [
        episode
        for advance in episodes(policy, make_filmed, [seed], profile, options, at)
        for episode in advance.episodes
    ]
    shot = envs[0]
    return Film(episode, shot.frames, shot.observations, shot.trouble or _nothing(shot, episode))


def _nothing(shot: _Filmed, episode: Episode) -> str | None:
    return None if shot.frames else episode.failure


def _renderable(make_env: Callable[..., Any]) -> Any:
    """The environment with pictures, or without where it knows none."""
    try:
        return make_env(render_mode="rgb_array")
    except DiffpolicyError:
        return make_env()
