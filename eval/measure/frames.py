"""Frames of one episode, rendered in the process of its environment; nothing is drawn here."""

from collections.abc import Callable, MutableSequence
from functools import partial
from typing import Any, NamedTuple

import gymnasium
import numpy as np

from diffpolicy import environment
from diffpolicy.control.chunk_source import ChunkSource, on_one_engine
from diffpolicy.control.episode import Episode, RolloutOptions
from diffpolicy.control.latency import LatencyProfile
from diffpolicy.control.rollout import episodes
from diffpolicy.control.workers import one_thread
from diffpolicy.environment.boundary import Boundary
from diffpolicy.environment.monitored import by_key
from diffpolicy.environment.pictures import made_to_render, to_rgb

from .description import Budget
from .evaluator import Evaluator

KEPT = 24  # frames of the longest episode, at least


class Frames(NamedTuple):
    """One episode: frames {tick: image}, observed vectors, and the reason if rendering failed.

    The frames of a failed rendering are those of the first observed picture, if there is one.
    ticks: those of the frames, also where there are none. Tick t is the state after t actions.
    actions: as applied, one for each tick.
    """

    episode: Episode
    frames: dict[int, np.ndarray]
    observations: list[np.ndarray]
    trouble: str | None
    ticks: list[int]
    actions: list[np.ndarray]


def frames_of(
    evaluator: Evaluator, policy: Budget, profile: LatencyProfile, seed: int, kept: int = KEPT
) -> Frames:
    """Frames of the seed's episode, run as the evaluator runs it. Raises DiffpolicyError.

    kept: frames of the longest episode, at least.
    """
    options = evaluator.options
    with one_thread():
        fixed = on_one_engine(policy, options.batch)  # as the episodes were run
    given = (fixed, evaluator.make, seed, profile, options)
    render = partial(render_episode, kept=kept)
    return evaluator.workers.call(render, *given, timeout_s=options.step_timeout)


class _Rendered(gymnasium.Wrapper):
    """Keep frames {tick: image} and vectors: rendering every tick would take minutes."""

    def __init__(self, env: Boundary, kept: int):
        super().__init__(env)
        self.every = max(1, environment.episode_limit(env) // kept)
        self.ticks: list[int] = []
        self.frames: dict[int, np.ndarray] = {}
        self.observations: list[np.ndarray] = []
        self.actions: list[np.ndarray] = []
        sees = any(spec.is_picture for spec in env.observations.values())
        self.trouble: str | None = None
        if not (env.render_mode or sees):
            self.trouble = "it has no rgb_array mode"

    def reset(self, **options):
        outcome = self.env.reset(**options)
        self._keep(outcome[0], last=False)
        return outcome

    def step(self, action):
        outcome = self.env.step(action)
        self.actions.append(np.array(action))
        self._keep(outcome[0], last=outcome[2] or outcome[3])
        return outcome

    def _keep(self, observation: Any, last: bool) -> None:
        tick = len(self.observations)
        self.observations.append(_vector(observation))
        if tick % self.every and not last:
            return
        self.ticks.append(tick)
        if self.env.render_mode and not self.trouble:
            try:
                self.frames[tick] = to_rgb(np.asarray(self.env.render()))
                return
            except Exception as error:  # drivers fail in many ways; the caption gives the reason
                self.trouble = str(error) or type(error).__name__
                self.frames.clear()
        if seen := [value for value in by_key(observation).values() if value.ndim == 3]:
            self.frames[tick] = seen[0]


def _vector(observation: Any) -> np.ndarray:
    """The vectors of an observation, joined [D_o]; pictures are left out."""
    vectors = [value for value in by_key(observation).values() if value.ndim == 1]
    return np.concatenate(vectors) if vectors else np.zeros(0)


def render_episode(
    policy: ChunkSource,
    make_env: Callable[..., Any],
    seed: int,
    profile: LatencyProfile,
    options: RolloutOptions,
    at: MutableSequence[int],
    kept: int = KEPT,
) -> Frames:
    """Run the seed's episode, with frames if the environment can render."""
    envs: list[_Rendered] = []

    def make_rendered() -> _Rendered:
        envs.append(_Rendered(_renderable(make_env), kept))
        return envs[-1]

    [episode] = [
        episode
        for advance in episodes(policy, make_rendered, [seed], profile, options, at)
        for episode in advance.episodes
    ]
    env = envs[0]
    trouble = env.trouble or (None if env.frames else episode.failure)
    return Frames(episode, env.frames, env.observations, trouble, env.ticks, env.actions)


def _renderable(make_env: Callable[..., Any]) -> Any:
    """The environment, which renders if it can.

    A MuJoCo model is rendered without multisampling, in less than half the time on a CPU: films
    are halved, which smooths as well. Not where the policy may see what is rendered.
    """
    env = made_to_render(make_env)  # names EGL where no display is, before MuJoCo is imported
    from mujoco import MjModel  # pyright: ignore[reportAttributeAccessIssue]

    model: Any = getattr(env.unwrapped, "model", None)
    if isinstance(model, MjModel) and not any(s.is_picture for s in env.observations.values()):
        model.vis.quality.offsamples = 0
    return env
