"""Chunks of several budgets from noise to actions, for one observation, and what lies behind them.

Shapes: K steps, B chunks, m = T_p - T_o + 1 ticks, D_a action dimensions.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from scipy.interpolate import LinearNDInterpolator

from diffpolicy import environment
from diffpolicy.checkpoint import Checkpoint, load_policy
from diffpolicy.config import Sampling
from diffpolicy.environment.monitored import by_key
from diffpolicy.environment.pictures import made_to_render, to_rgb
from diffpolicy.errors import DiffpolicyError
from diffpolicy.policy import Policy
from diffpolicy.sampling.chain import audit_line
from diffpolicy.sampling.grids import NAMED
from diffpolicy.specification import NO_ENVIRONMENT
from diffpolicy.terminal.output import say

from ..data_config import DenoiseConfig
from .held_out import HeldOut, all_episodes, held_out
from .steps import steps_of

NEAREST = 16  # demonstrations behind the chunks
GRID = 65  # cursors along each side of a picture, to invert its map to actions
CENTRE = np.array([0.5, 0.5])  # of a picture, where an environment tells no cursor
ROUNDED = 1e5  # parts of the range of actions below which two are one
Observation = dict[str, np.ndarray]


@dataclass(frozen=True)
class Trajectory:
    """States of one budget from noise to actions, in the units of the actions."""

    name: str
    times: list[int]  # [K], the timesteps
    xs: np.ndarray  # [K + 1, B, m, D_a], the noise first
    x0s: np.ndarray  # [K, B, m, D_a]


@dataclass(frozen=True)
class Scene:
    """A picture uint8 [H, W, 3], and the places [n, 2] in it, in [0, 1], of actions [n, 2].

    Places are x from the left and y from the top; NaN for an action outside the picture.
    """

    picture: np.ndarray
    place: Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Denoising:
    """Trajectories, the actions [ticks, D_a] of the nearest demonstrations, and the scene, if any.

    ticks: m, or fewer at the end of an episode.
    """

    trajectories: list[Trajectory]
    demonstrated: list[np.ndarray]
    scene: Scene | None = None


def trace(config: DenoiseConfig) -> Denoising:
    """Every budget from one observation and the same noise."""
    checkpoint = load_policy(config.run)
    seen, scene = _start(config, checkpoint)
    before = config.chunks, checkpoint.specification.horizons.observation
    history = {key: np.broadcast_to(x, (*before, *x.shape)) for key, x in seen.items()}
    policies = _policies(config, checkpoint)
    rng = np.random.default_rng(config.seed)
    noise = rng.standard_normal(policies[0].noise_shape(config.chunks), np.float32)
    found = []
    for policy in policies:
        say(audit_line(policy.chain))
        xs, x0s = policy.states(history, noise)
        found.append(Trajectory(policy.chain.name, [t for t, _ in policy.chain.grid], xs, x0s))
    return Denoising(found, _demonstrated(config, checkpoint, seen), scene)


def _policies(config: DenoiseConfig, checkpoint: Checkpoint) -> list[Policy]:
    steps = steps_of(config.ddim_steps, checkpoint.specification)
    budgets = steps if config.grid in (None, *NAMED) else [None]  # a list fixes its steps
    return [Policy(checkpoint, Sampling(ddim_steps=k, grid=config.grid)) for k in budgets]


def _start(config: DenoiseConfig, checkpoint: Checkpoint) -> tuple[Observation, Scene | None]:
    """The first observation of the seed's episode, or of the first held-out demonstration."""
    task = checkpoint.specification.task
    if config.data or task.env_id == NO_ENVIRONMENT:
        data = held_out(config.run, checkpoint, config.data)
        row = np.concatenate([[0], data.ends])[data.episodes[0]]
        say(f"{data.path}: first observation of episode {data.episodes[0]}")
        return {key: np.asarray(data.observations[key][row]) for key in task.observations}, None
    make = partial(environment.make, task.env_id, task.env_kwargs, camera=task.camera)
    env = made_to_render(make)
    try:
        environment.check_fit(env, task)
        seen = by_key(env.reset(seed=config.seed)[0])
        return {key: seen[key] for key in task.observations}, scene_of(env)
    finally:
        env.close()


def scene_of(env: Any) -> Scene | None:
    """The rendered state, if actions [2] belong to places in it (`action_from_cursor`)."""
    action_of = environment.declared(env, "action_from_cursor")
    if action_of is None or env.action_space.shape != (2,) or not env.render_mode:
        return None
    cursor = environment.declared(env, "cursor")
    try:
        picture = to_rgb(np.asarray(env.render()))
        return Scene(picture, inverse(action_of, CENTRE if cursor is None else np.asarray(cursor)))
    except Exception as error:  # drivers and environments fail in many ways
        say(f"no scene behind the chunks: {error}")
        return None


def inverse(
    action_of: Callable[[np.ndarray], np.ndarray], near: np.ndarray
) -> Callable[[np.ndarray], np.ndarray]:
    """Cursors [n, 2] of actions [n, 2]; of several with one action that which is nearest to `near`.

    Interpolated on a grid of cursors, so NaN outside their actions.
    """
    side = np.linspace(0, 1, GRID)
    cursors = np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 2)
    cursors = cursors[np.argsort(np.linalg.norm(cursors - near, axis=1), kind="stable")]
    actions = np.array([action_of(cursor) for cursor in cursors], np.float64)
    unit = np.ptp(actions, axis=0) / ROUNDED
    _, first = np.unique(np.round(actions / unit), axis=0, return_index=True)
    return LinearNDInterpolator(actions[first], cursors[first], rescale=True)


def _demonstrated(
    config: DenoiseConfig, checkpoint: Checkpoint, seen: Observation
) -> list[np.ndarray]:
    """Actions of the nearest demonstrations; without them a line says why."""
    try:
        data = all_episodes(config.run, checkpoint, config.data)
    except (DiffpolicyError, OSError) as error:
        say(f"no demonstrations behind the chunks: {error}")
        return []
    return nearest(data, seen, checkpoint.specification.horizons.usable)


def nearest(data: HeldOut, seen: Observation, ticks: int) -> list[np.ndarray]:
    """Actions [≤ ticks, D_a] from the row of each episode that is nearest to an observation.

    Of the NEAREST nearest episodes. Distances are of the vectors, each number in its standard
    deviation; without vectors there is none.
    """
    keys = [key for key, value in seen.items() if value.ndim == 1]
    if not keys:
        say("no demonstrations behind the chunks: the policy observes pictures alone")
        return []
    rows = np.concatenate([np.asarray(data.observations[key]) for key in keys], axis=1)
    newest = np.concatenate([seen[key] for key in keys])
    far = np.square((rows - newest) / (rows.std(axis=0) + 1e-6)).sum(axis=1)
    starts = np.concatenate([[0], data.ends[:-1]])
    best = [
        first + int(far[first:end].argmin()) for first, end in zip(starts, data.ends, strict=True)
    ]
    chosen = np.argsort(far[best], kind="stable")[:NEAREST]
    return [np.asarray(data.actions[best[i] : min(best[i] + ticks, data.ends[i])]) for i in chosen]
