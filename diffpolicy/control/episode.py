"""One episode in closed loop: options, state while it runs, and result.

Shapes: B batch, T_o observation horizon, D_o and D_a dimensions.
"""

import math
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from diffpolicy import environment
from diffpolicy.control.chunk_source import ChunkSource, correcting, observed_by, planning
from diffpolicy.control.external import PolicyFailure
from diffpolicy.control.noise import noise_batch
from diffpolicy.control.ranges import OVERFLOW, TrainingRange, training_range
from diffpolicy.control.receding_horizon import (
    RecedingHorizon,
    new_controller,
    seam_jerks,
    seam_jumps,
)
from diffpolicy.environment.monitored import EnvironmentFailure, Monitored, place
from diffpolicy.environment.outcome import Outcome, new_outcome
from diffpolicy.errors import DiffpolicyError
from diffpolicy.late.plan import Plan


@dataclass(frozen=True)
class Episode:
    """Result of one episode.

    score: see `outcome`. success_tick: ticks until info first reported success, for every rule.
    far, lowest, highest [D_o]: of the normalised observations that the policy was given.
    delay_ticks, expected_ticks: of each chunk but one that was waited for. starved: ticks that
    applied the neutral action; ages: of the actions of the others, in ticks. begun: the tick of the
    observation of each chunk.
    """

    seed: int
    success: bool
    score: float
    ticks: int
    replans: int
    starved_ticks: int
    delay_ticks: tuple[int, ...]
    expected_ticks: tuple[int, ...]
    ages: tuple[int, ...]
    seam_jumps: tuple[float, ...]  # in units of the actions
    seam_jerks: tuple[float, ...]  # in units of the actions / s³
    failure: str | None = None
    success_tick: int | None = None
    broken: bool = False  # the environment raised, ended its process, or hung
    observed: int = 0
    far: tuple[int, ...] = ()
    lowest: tuple[float, ...] = ()
    highest: tuple[float, ...] = ()
    latency_ms: tuple[float, ...] = ()  # on the wall clock, like the next three
    late_ms: tuple[float, ...] = ()
    missed_ticks: int = 0
    evaluations: tuple[int, ...] = ()  # of the network, for each chunk that a deadline could cut
    starved: tuple[int, ...] = ()
    begun: tuple[int, ...] = ()

    @property
    def ages_by_tick(self) -> list[int | None]:
        """Age of each tick's action in ticks [ticks]; None where it was the neutral one."""
        ages, starved = iter(self.ages), set(self.starved)
        return [None if tick in starved else next(ages) for tick in range(self.ticks)]

    @property
    def prefix_misses(self) -> int:
        """Chunks that came later than expected, so after the actions that their plan counts on."""
        pairs = zip(self.delay_ticks, self.expected_ticks, strict=True)
        return sum(delay > expected for delay, expected in pairs)


@dataclass(frozen=True)
class RolloutOptions:
    """Options of episodes; part of a result's provenance."""

    control_dt_s: float
    envs: int = 64
    batch: int = 64
    cold_start: bool = False
    success_from: str | None = None
    neutral: str | None = None
    success: str = "at-any-tick"
    score_from: str | None = None
    on_env_error: str = "stop"  # or fail-episode
    step_timeout: float | None = None  # seconds; enforced by Workers
    limit: int | None = None  # ticks of an episode, for the progress bar


@dataclass
class RunningEpisode:
    """One environment in the middle of an episode.

    history: the T_o newest values of each key that the policy observes; before: those of the tick
    before, empty at the first one and where no head has corrected actions. observed: its normalised
    vectors.
    """

    env: Monitored
    seed: int
    options: RolloutOptions
    controller: RecedingHorizon
    outcome: Outcome
    trained: TrainingRange | None
    history: dict[str, deque[np.ndarray]]
    observed: list[np.ndarray] = field(default_factory=list)
    corrected: bool = False
    before: dict[str, deque[np.ndarray]] = field(default_factory=dict)
    tick: int = 0
    failure: str | None = None
    broken: bool = False

    def advance(self, corrected: np.ndarray | None = None) -> bool:
        """Apply this tick's action, or a corrected one; True at the end of the episode."""
        return self.apply(self.controller.act(self.tick, corrected))

    def apply(self, action: np.ndarray) -> bool:
        """Apply an action [D_a]; True at the end of the episode.

        An EnvironmentFailure ends the episode or, by the options, the run.
        """
        action = environment.applicable(action, self.env.env.action_space)
        try:
            observation, reward, terminated, truncated, info = self.env.step(action)
        except EnvironmentFailure as error:
            self.failure, self.broken = _forgive(error, self.env, self.options), True
            return True
        if self.corrected:
            self.before = {key: values.copy() for key, values in self.history.items()}
        for key, values in self.history.items():
            values.append(observation[key])
        self.tick += 1
        self.check_observation()
        if self.failure:
            return True
        self.outcome.see(reward, info, terminated or truncated)
        return terminated or truncated

    def check_observation(self) -> None:
        """End the episode, as the environment's failure, at an observation that is not finite."""
        for key, values in self.history.items():
            newest = values[-1]
            if newest.dtype.kind != "f" or math.isfinite(np.vdot(newest, newest)):  # quick, enough
                continue
            finite = np.isfinite(newest)
            if not finite.all():
                self.fail(f"the environment's {key} is not finite", int(np.argmin(finite)))

    def check_chunk(self, chunk: np.ndarray) -> None:
        """End the episode, as the policy's failure, at actions that are not finite.

        Raises DiffpolicyError for actions of another D_a than the environment's.
        """
        dimensions = self.env.env.action_space.shape[0]
        if chunk.shape[-1] != dimensions:
            raise DiffpolicyError(
                f"the policy gives {chunk.shape[-1]} numbers for an action; the environment takes "
                f"{dimensions}, {place(self.seed, self.tick)}"
            )
        if not np.isfinite(chunk).all():
            self.fail("the policy's actions are not finite")

    def compare(self, normalised: np.ndarray, keys: Sequence[str]) -> None:
        """Keep a normalised observation [D_o]; end the episode at one that overflows float32."""
        self.observed.append(normalised)
        dimension = int(np.abs(normalised).argmax())
        if abs(normalised[dimension]) > OVERFLOW:
            value = np.concatenate([self.history[key][-1].ravel() for key in keys])[dimension]
            self.fail(f"the environment's observation {value:g} overflows the network", dimension)

    def fail(self, what: str, dimension: int | None = None) -> None:
        """End the episode; the first failure is the one reported."""
        where = "" if dimension is None else f", dimension {dimension}"
        self.failure = self.failure or f"{what} at tick {self.tick} (seed {self.seed}{where})"

    def result(self) -> Episode:
        """The finished episode."""
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
            expected_ticks=tuple(c.expected_ticks),
            ages=tuple(c.ages),
            seam_jumps=tuple(seam_jumps(applied, c.seams)),
            seam_jerks=tuple(seam_jerks(applied, c.seams, self.options.control_dt_s)),
            failure=self.failure,
            success_tick=self.outcome.success_tick,
            broken=self.broken,
            starved=tuple(c.starved),
            begun=tuple(c.begun),
            **(self.trained.fields(self.observed) if self.trained else {}),
        )


def begin_episode(
    env: Monitored,
    seed: int,
    source: ChunkSource,
    delays: Iterator[int] | None,
    options: RolloutOptions,
    first_delay: int = 0,
) -> RunningEpisode | Episode:
    """Reset the environment; its first observation fills the whole history.

    first_delay: ticks that are expected before any delay has passed. A reset that fails is a failed
    Episode or, by the options, an EnvironmentFailure.
    """
    try:
        observation, horizons = env.reset(seed), source.horizons
    except EnvironmentFailure as error:
        return failed_episode(seed, 0, _forgive(error, env, options))
    neutral = environment.neutral_rule(env.env, options.neutral)
    controller = new_controller(source, delays, neutral, options.cold_start, first_delay)
    outcome = new_outcome(env.env, options.success_from, options.success, options.score_from)
    length = horizons.observation
    given = observed_by(source, observation)
    history = {key: deque([value] * length, length) for key, value in given.items()}
    trained = training_range(source)
    episode = RunningEpisode(env, seed, options, controller, outcome, trained, history)
    episode.corrected = correcting(source) is not None
    episode.check_observation()
    return episode


def _forgive(error: EnvironmentFailure, env: Monitored, options: RolloutOptions) -> str:
    """The failure of one episode, with a new environment for the next; else the error itself."""
    if options.on_env_error == "stop":
        raise error
    env.renew()
    return str(error)


def failed_episode(seed: int, tick: int, failure: str) -> Episode:
    """An episode of which nothing is known but that the environment broke it."""
    return Episode(seed, False, 0.0, tick, 0, 0, (), (), (), (), (), failure, broken=True)


def observe(episodes: Sequence[RunningEpisode], batch: int) -> dict[str, np.ndarray]:
    """Histories {key: [batch, T_o, …]} for the policy; rows without an episode are zero.

    Floats become float32, other types stay. Observations beyond float32 end their episodes.
    """
    keys, trained = episodes[0].history, episodes[0].trained
    histories = {key: stacked([e.history[key] for e in episodes], batch) for key in keys}
    if trained:
        newest = {key: history[: len(episodes), -1] for key, history in histories.items()}
        for episode, normalised in zip(episodes, trained.normalise(newest), strict=True):
            episode.compare(normalised, trained.keys)
    return histories


def stacked(histories: Sequence[deque[np.ndarray]], batch: int) -> np.ndarray:
    """Histories of T_o values as one array [batch, T_o, …]; rows beyond them are zero."""
    newest = histories[0][-1]
    dtype = np.float32 if newest.dtype.kind == "f" else newest.dtype
    stacked = np.zeros((batch, len(histories[0]), *newest.shape), dtype)
    with np.errstate(over="ignore"):  # beyond float32 is infinite, which `compare` reports
        for row, history in zip(stacked, histories, strict=False):
            for tick, value in enumerate(history):
                row[tick] = value
    return stacked


def ask(
    source: ChunkSource,
    observation: dict[str, np.ndarray],
    keys: Sequence[tuple[int, int]],
    batch: int,
    plans: Sequence[Plan | None] = (),
) -> np.ndarray:
    """Chunks [batch, T_p - T_o + 1, D_a]; keys, plans: (seed, tick) and plan of each episode's row.

    Raises DiffpolicyError with the place where a policy of others failed.
    """
    try:
        noise = noise_batch(source, keys, batch)
        if (planner := planning(source)) is None:
            return source(observation, noise)
        last = plans[-1] if plans else None  # for rows without an episode: nothing more is run
        return planner(observation, noise, [*plans, *[last] * (batch - len(plans))])
    except PolicyFailure as error:
        more = f", or in one of {len(keys) - 1} other episodes" if len(keys) > 1 else ""
        raise DiffpolicyError(f"{error}, {place(*keys[0])}{more}") from error
