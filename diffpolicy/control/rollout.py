"""Seeded episodes in closed loop: many environments, one batched policy call a replan.

An episode depends on its seed, not on its neighbours: the policy always sees one fixed, padded
batch (matrix products differ in the last bit between batch sizes), noise is keyed by (seed, tick),
latencies by the seed.
"""

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, MutableSequence, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from diffpolicy import environment
from diffpolicy.control.latency import LatencyProfile
from diffpolicy.control.ranges import FAR, OVERFLOW, Extent, normalise
from diffpolicy.control.receding_horizon import RecedingHorizon, seam_jerks, seam_jumps
from diffpolicy.environment.outcome import Outcome, new_outcome
from diffpolicy.environment.watched import EnvironmentFailure, Watched
from diffpolicy.errors import DiffpolicyError
from diffpolicy.policy import Policy

# NumPy pads seeds with zeros, so [seed, 0] would be the environment's own stream.
NOISE_STREAM = 0x401


@dataclass(frozen=True)
class Episode:
    """What one episode came to.

    score: see `outcome`. success_tick: ticks until info first told of success, whatever the rule.
    far, lowest, highest [D_o]: of the normalised observations that the policy was given.
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
    broken: bool = False  # the environment raised, ended its process, or hung
    observed: int = 0
    far: tuple[int, ...] = ()
    lowest: tuple[float, ...] = ()
    highest: tuple[float, ...] = ()
    latency_ms: tuple[float, ...] = ()  # on the wall clock, as the next two
    late_ms: tuple[float, ...] = ()
    missed_ticks: int = 0


class Advance(NamedTuple):
    """Control ticks done, or no longer needed, and the episodes that ended."""

    ticks: int
    episodes: list[Episode]


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
    on_env_error: str = "stop"  # or fail-episode
    step_timeout: float | None = None  # seconds; held by Workers
    limit: int | None = None  # ticks of an episode, for the bar


@dataclass
class Slot:
    """One environment in the middle of an episode."""

    env: Watched
    seed: int
    history: deque
    controller: RecedingHorizon
    outcome: Outcome
    extent: Extent
    tick: int = 0
    failure: str | None = None
    broken: bool = False

    def check_observation(self, observation: np.ndarray) -> None:
        """An observation that is not finite ends the episode, as the environment's failure."""
        if math.isfinite(np.dot(observation, observation)):  # quick, and enough
            return
        finite = np.isfinite(observation)
        if not finite.all():
            self.fail("the environment's observation is not finite", int(np.argmin(finite)))

    def check(self, chunk: np.ndarray) -> None:
        """Actions that are not finite end the episode, as the policy's failure."""
        if not np.isfinite(chunk).all():
            self.fail("the policy's actions are not finite")

    def fail(self, what: str, dimension: int | None = None) -> None:
        """The episode is over; the first failure is the one that is told."""
        where = "" if dimension is None else f", dimension {dimension}"
        self.failure = self.failure or f"{what} at tick {self.tick} (seed {self.seed}{where})"

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
            broken=self.broken,
            **self.extent.fields(),
        )


def forgive(error: EnvironmentFailure, env: Watched, options: RolloutOptions) -> str:
    """The failure of one episode, where options say so; a new environment is made for the next."""
    if options.on_env_error == "stop":
        raise error
    env.renew()
    return str(error)


def failed_episode(seed: int, tick: int, failure: str) -> Episode:
    """An episode of which nothing is known but that the environment broke it."""
    return Episode(seed, False, 0.0, tick, 0, 0, (), (), (), (), failure, broken=True)


def run_episodes(
    policy: Policy,
    make_env: Callable[[], Any],
    seeds: Sequence[int],
    profile: LatencyProfile,
    options: RolloutOptions,
    description: str = "episodes",
) -> list[Episode]:
    """One Episode for each seed, in the order of the seeds; every one is counted."""
    return collect(episodes(policy, make_env, seeds, profile, options), seeds, options, description)


def collect(
    advances: Iterable[Advance],
    seeds: Sequence[int],
    options: RolloutOptions,
    description: str,
    keep: Callable[[Episode], None] = lambda episode: None,
) -> list[Episode]:
    """The episodes in the order of the seeds, each given to `keep` as it ends; a bar of ticks."""
    done: dict[int, Episode] = {}
    total = options.limit and options.limit * len(seeds)
    with tqdm(total=total, desc=description, unit="tick", leave=False) as bar:
        for ticks, ended in advances:
            for episode in ended:
                done[episode.seed] = episode
                keep(episode)
            bar.set_postfix_str(f"{len(done)} of {len(seeds)} episodes", refresh=False)
            bar.update(ticks)
    return [done[seed] for seed in seeds]


def episodes(
    policy: Policy,
    make_env: Callable[[], Any],
    seeds: Sequence[int],
    profile: LatencyProfile,
    options: RolloutOptions,
    at: MutableSequence[int] | None = None,
) -> Iterator[Advance]:
    """Every seed's episode, as it ends; at: where calls of environments are put on record."""
    waiting, envs, slots = iter(seeds), [], []
    ended: list[Episode] = []
    try:
        for seed in seeds[: options.envs]:
            envs.append(Watched(make_env, seed, at))
            slots += _next(envs[-1], waiting, ended, policy, profile, options)
        while slots or ended:
            running = len(slots)
            slots = _tick(slots, waiting, ended, policy, profile, options)
            left = sum(options.limit - e.ticks for e in ended) if options.limit else 0
            yield Advance(running + left, ended)
            ended = []
    except Exception:
        yield Advance(0, ended)  # what is finished is not lost
        raise
    finally:
        for env in envs:
            env.close()


def _next(
    env: Watched,
    waiting: Iterator[int],
    ended: list[Episode],
    policy: Policy,
    profile: LatencyProfile,
    options: RolloutOptions,
) -> list[Slot]:
    """The next seed's episode in this environment, unless none is left."""
    for seed in waiting:
        try:
            return [begin(env, seed, policy, profile.delays(seed, options.control_dt_s), options)]
        except EnvironmentFailure as error:
            ended.append(failed_episode(seed, 0, forgive(error, env, options)))
    return []


def begin(
    env: Watched, seed: int, policy: Policy, delays: Iterator[int], options: RolloutOptions
) -> Slot:
    """A reset environment and its controller; the first observation fills the whole history."""
    observation = env.reset(seed)
    length = policy.horizons.observation
    controller = RecedingHorizon(
        action_horizon=policy.horizons.action,
        delays=delays,
        neutral=environment.neutral_rule(env.env, options.neutral),
        cold_start=options.cold_start,
    )
    history = deque([observation] * length, maxlen=length)
    outcome = new_outcome(env.env, options.success_from, options.success, options.score_from)
    extent = Extent(FAR[policy.specification.model.normalizer])
    slot = Slot(env, seed, history, controller, outcome, extent)
    slot.check_observation(observation)
    return slot


def _tick(
    slots: list[Slot],
    waiting: Iterator[int],
    ended: list[Episode],
    policy: Policy,
    profile: LatencyProfile,
    options: RolloutOptions,
) -> list[Slot]:
    """One control tick of every running episode; finished ones give their place to the next."""
    for slot in slots:
        slot.controller.deliver(slot.tick)
    observing = [s for s in slots if not s.failure and s.controller.wants_observation(s.tick)]
    for i in range(0, len(observing), options.batch):
        _replan(observing[i : i + options.batch], policy, options.batch)
    running = []
    for slot in slots:
        if not (slot.failure or act_or_fail(slot, options)):
            running.append(slot)
            continue
        ended.append(slot.episode(options.control_dt_s))
        running += _next(slot.env, waiting, ended, policy, profile, options)
    return running


def _replan(slots: list[Slot], policy: Policy, batch: int) -> None:
    """One policy call for all that observe now, padded to the fixed batch."""
    history = np.zeros((batch, *np.shape(slots[0].history)), np.float32)
    count, _, *chunk = policy.noise_shape(1)
    noise = np.zeros((count, batch, *chunk), np.float32)
    for row, slot in enumerate(slots):
        noise[:, row] = episode_noise(slot.seed, slot.tick, (count, *chunk))
    with np.errstate(over="ignore"):  # beyond float32 it is infinite, as `show` says
        for row, slot in enumerate(slots):
            history[row] = slot.history
    show(slots, policy, history[: len(slots), -1])
    actions = policy(history, noise)
    for slot, chunk in zip(slots, actions, strict=False):
        slot.check(chunk)
        slot.controller.start(slot.tick, chunk)


def show(slots: Sequence[Slot], policy: Policy, newest: np.ndarray) -> None:
    """Observations [B, D_o] that the policy is given; beyond float32 they end their episodes."""
    normalised = normalise(policy.observation_normalizer, newest)
    sizes = np.abs(normalised)
    huge = sizes.max(1) > OVERFLOW
    for row, slot in enumerate(slots):
        slot.extent.add(normalised[row], sizes[row])
        if huge[row]:
            dimension = int(sizes[row].argmax())
            value = slot.history[-1][dimension]
            slot.fail(f"the environment's observation {value:g} overflows the network", dimension)


def episode_noise(seed: int, tick: int, shape: tuple[int, ...]) -> np.ndarray:
    """Standard normal noise of one replan, from (episode seed, tick) alone.

    x_T comes first, so budgets and samplers with more draws share it.
    """
    return np.random.default_rng([seed, tick, NOISE_STREAM]).standard_normal(shape, np.float32)


def act_or_fail(slot: Slot, options: RolloutOptions) -> bool:
    """Act; what the environment raises ends the episode, or the run."""
    try:
        return act(slot)
    except EnvironmentFailure as error:
        slot.failure, slot.broken = forgive(error, slot.env, options), True
        return True


def act(slot: Slot) -> bool:
    """Applies this tick's action; True where the episode is over."""
    action = environment.applicable(slot.controller.act(slot.tick), slot.env.env.action_space)
    observation, reward, terminated, truncated, info = slot.env.step(action)
    slot.history.append(observation)
    slot.tick += 1
    slot.check_observation(observation)
    if slot.failure:
        return True
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
