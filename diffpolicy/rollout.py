"""Seeded episodes in closed loop: many environments, one batched policy call a replan.

An episode depends on its seed, not on its neighbours: the policy always sees one fixed, padded
batch (matrix products differ in the last bit between batch sizes), noise is keyed by (seed, tick),
latencies by the seed.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from tqdm import tqdm

from diffpolicy import environment
from diffpolicy.control import RecedingHorizon, seam_jerks, seam_jumps
from diffpolicy.errors import DiffpolicyError
from diffpolicy.latency import LatencyProfile
from diffpolicy.outcome import Outcome, new_outcome
from diffpolicy.policy import Policy

# NumPy pads seeds with zeros, so [seed, 0] would be the environment's own stream.
NOISE_STREAM = 0x401


@dataclass(frozen=True)
class Episode:
    """What one episode came to.

    score: see `outcome`. success_tick: ticks until info first told of success, whatever the rule.
    """

    seed: int
    success: bool
    score: float
    ticks: int
    replans: int
    starved_ticks: int
    delay_ticks: tuple[int, ...]
    ages: tuple[int, ...]
    seam_jumps: tuple[float, ...]  # in units of the actions
    seam_jerks: tuple[float, ...]  # in those a second cubed
    failure: str | None = None
    success_tick: int | None = None


@dataclass(frozen=True)
class RolloutOptions:
    """How episodes are run; stands in the result's header."""

    control_dt_s: float
    envs: int = 64
    batch: int = 64
    cold_start: bool = False
    success_from: str | None = None
    neutral: str | None = None
    success: str = "at-any-tick"
    score_from: str | None = None


@dataclass
class Slot:
    """One environment in the middle of an episode."""

    env: Any
    seed: int
    history: deque
    controller: RecedingHorizon
    outcome: Outcome
    tick: int = 0
    failure: str | None = None

    def check(self, chunk: np.ndarray) -> None:
        """Actions that are not finite end the episode, as a failure."""
        if not np.isfinite(chunk).all():
            self.failure = f"the policy's actions are not finite at tick {self.tick}"

    def episode(self, control_dt_s: float) -> Episode:
        """What it came to."""
        c = self.controller
        applied = np.array(c.applied)
        return Episode(
            seed=self.seed,
            success=self.outcome.success and self.failure is None,
            score=0.0 if self.failure else self.outcome.score,
            ticks=self.tick,
            replans=len(c.delay_ticks) + (not c.cold_start),
            starved_ticks=c.starved_ticks,
            delay_ticks=tuple(c.delay_ticks),
            ages=tuple(c.ages),
            seam_jumps=tuple(seam_jumps(applied, c.seams)),
            seam_jerks=tuple(seam_jerks(applied, c.seams, control_dt_s)),
            failure=self.failure,
            success_tick=self.outcome.success_tick,
        )


def run_episodes(
    policy: Policy,
    make_env: Callable[[], Any],
    seeds: Sequence[int],
    profile: LatencyProfile,
    options: RolloutOptions,
    description: str = "episodes",
) -> list[Episode]:
    """One Episode for each seed, in the order of the seeds; every one is counted."""
    done: dict[int, Episode] = {}
    waiting = iter(seeds)
    envs = [make_env() for _ in range(min(options.envs, len(seeds)))]
    try:
        slots = [_next(env, next(waiting), policy, profile, options) for env in envs]
        with tqdm(total=len(seeds), desc=description, unit="episode", leave=False) as bar:
            while slots:
                slots = _tick(slots, waiting, done, policy, profile, options, bar)
    finally:
        for env in envs:
            env.close()
    return [done[seed] for seed in seeds]


def _next(env, seed: int, policy: Policy, profile: LatencyProfile, options: RolloutOptions) -> Slot:
    return begin(env, seed, policy, profile.delays(seed, options.control_dt_s), options)


def begin(env, seed: int, policy: Policy, delays: Iterator[int], options: RolloutOptions) -> Slot:
    """A reset environment and its controller; the first observation fills the whole history."""
    observation, _ = env.reset(seed=seed)
    length = policy.horizons.observation
    controller = RecedingHorizon(
        action_horizon=policy.horizons.action,
        delays=delays,
        neutral=environment.neutral_rule(env, options.neutral),
        cold_start=options.cold_start,
    )
    history = deque([observation] * length, maxlen=length)
    outcome = new_outcome(env, options.success_from, options.success, options.score_from)
    return Slot(env, seed, history, controller, outcome)


def _tick(
    slots: list[Slot],
    waiting: Iterator[int],
    done: dict[int, Episode],
    policy: Policy,
    profile: LatencyProfile,
    options: RolloutOptions,
    bar: tqdm,
) -> list[Slot]:
    """One control tick of every running episode; finished ones give their place to the next."""
    for slot in slots:
        slot.controller.deliver(slot.tick)
    observing = [slot for slot in slots if slot.controller.wants_observation(slot.tick)]
    for i in range(0, len(observing), options.batch):
        _replan(observing[i : i + options.batch], policy, options.batch)
    running = []
    for slot in slots:
        if not (slot.failure or act(slot)):
            running.append(slot)
            continue
        done[slot.seed] = slot.episode(options.control_dt_s)
        bar.update(1)
        seed = next(waiting, None)
        if seed is not None:
            running.append(_next(slot.env, seed, policy, profile, options))
    return running


def _replan(slots: list[Slot], policy: Policy, batch: int) -> None:
    """One policy call for all that observe now, padded to the fixed batch."""
    history = np.zeros((batch, *np.shape(slots[0].history)), np.float32)
    count, _, *chunk = policy.noise_shape(1)
    noise = np.zeros((count, batch, *chunk), np.float32)
    for row, slot in enumerate(slots):
        history[row] = slot.history
        noise[:, row] = episode_noise(slot.seed, slot.tick, (count, *chunk))
    actions = policy(history, noise)
    for slot, chunk in zip(slots, actions, strict=False):
        slot.check(chunk)
        slot.controller.start(slot.tick, chunk)


def episode_noise(seed: int, tick: int, shape: tuple[int, ...]) -> np.ndarray:
    """Standard normal noise of one replan, from (episode seed, tick) alone.

    x_T comes first, so budgets and samplers with more draws share it.
    """
    return np.random.default_rng([seed, tick, NOISE_STREAM]).standard_normal(shape, np.float32)


def act(slot: Slot) -> bool:
    """Applies this tick's action; True where the episode is over."""
    action = environment.applicable(slot.controller.act(slot.tick), slot.env.action_space)
    observation, reward, terminated, truncated, info = slot.env.step(action)
    slot.history.append(observation)
    slot.tick += 1
    slot.outcome.see(reward, info, terminated or truncated)
    return terminated or truncated


def check_fit(policy: Policy, env) -> None:
    """The environment's spaces against what the checkpoint was trained for."""
    task = policy.task
    found = (env.observation_space.shape[0], env.action_space.shape[0])
    if found != (task.observation_dim, task.action_dim):
        raise DiffpolicyError(
            f"{env.spec.id} has {found[0]} observations and {found[1]} actions; the checkpoint "
            f"was trained for {task.observation_dim} and {task.action_dim} ({task.env_id})"
        )
    environment.fitting_keys(env, task.observation_keys)
