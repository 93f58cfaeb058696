"""Evaluator: an environment, and step budgets of a policy evaluated in it."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from diffpolicy import environment
from diffpolicy.checkpoint import Checkpoint
from diffpolicy.config import Sampling
from diffpolicy.control import latency
from diffpolicy.control.chunk_source import build_engine
from diffpolicy.control.episode import Episode, RolloutOptions
from diffpolicy.control.external import External
from diffpolicy.control.latency import LatencyProfile
from diffpolicy.control.workers import Workers, one_thread, worker_count
from diffpolicy.environment.monitored import seeds_repeat
from diffpolicy.errors import DiffpolicyError
from diffpolicy.policy import Policy
from diffpolicy.terminal.output import say
from diffpolicy.terminal.progress import EpisodeBar

from ..config import SOURCES, Latencies, TaskConfig
from ..world_config import WorldConfig
from . import load
from .cautions import tell_memory, warn_of_starvation
from .description import EXTERNAL, Budget, describe, device_of, source_of
from .facts import look, world_of
from .kept import Kept, fingerprint, key_of
from .profiles import profiles_of
from .provenance import machine, provenance
from .result_files import EvalProvenance
from .results import BudgetResult
from .rows import make_row, wall_row
from .tally import Tally

OPTIONS = (  # of RolloutOptions, as the provenance tells them
    *("control_dt_s", "envs", "batch", "cold_start", "success_from", "success", "on_env_error"),
    *("step_timeout", "limit"),
)
ROWS = 16  # in a batch of a multiple of 16 a row's result does not depend on its place


def batch_of(policy: Budget, wanted: int) -> int:
    """The fixed batch, a multiple of ROWS; 1 stays 1 for a policy of others, perhaps without B."""
    return 1 if isinstance(policy, External) and wanted == 1 else ROWS * -(-wanted // ROWS)


def policy_of(config: WorldConfig, checkpoint: Checkpoint, sampling: Sampling) -> Policy:
    """Build the policy with one budget, on the device and engine of the options."""
    return Policy(
        checkpoint, sampling, config.device, engine=config.engine, precision=config.precision
    )


class Evaluator:
    """Evaluates budgets of a policy in one environment, checked against the policy.

    No environment is ever made in this process. kept: the file of finished episodes, from which a
    stopped run continues. stream: runs episodes as Workers.stream_episodes, which is the default.
    """

    def __init__(
        self,
        config: TaskConfig,
        policy: Budget,
        kept: Path | None = None,
        stream: Callable[..., None] | None = None,
    ):
        self.config, self.source, self.device = config, source_of(policy), device_of(policy)
        self.machine = machine(self.device)
        self.env_id, self.kwargs, override, camera = world_of(config, policy)
        self.make = partial(
            environment.make, self.env_id, self.kwargs, config.max_steps, camera=camera
        )
        self.workers = Workers(worker_count(config.workers, config.episodes, self.device))
        self.stream = stream or self.workers.stream_episodes
        self.facts = self.workers.call(
            look, policy, self.make, config, override, timeout_s=config.step_timeout
        )
        self.unrepeatable = self._unrepeatable()
        self.paired = self.unrepeatable is None
        self.options = RolloutOptions(
            control_dt_s=self.facts.control_dt_s,
            envs=config.envs,
            batch=batch_of(policy, config.batch),
            cold_start=config.cold_start,
            success_from=config.success_from,
            neutral=config.neutral,
            success=config.success,
            score_from=config.score_from,
            on_env_error=config.on_env_error,
            step_timeout=config.step_timeout,
            limit=self.facts.limit,
        )
        tell_memory(policy, self.options, self.workers.count)
        self.seeds = range(config.seed, config.seed + config.episodes)
        self.kept = Kept(kept)
        self._fingerprints: dict[str, str] = {}  # by the identity of a policy
        self._engines: dict[tuple[str, int], None] = {}  # name, batch
        self._bar: EpisodeBar | None = None

    def _unrepeatable(self) -> str | None:
        """Evidence that seeds do not repeat, also printed; None if they do."""
        config = self.config
        try:
            found = self.workers.call(
                seeds_repeat, self.make, config.seed, timeout_s=config.step_timeout
            )
        except DiffpolicyError as error:  # perhaps at actions outside the policy's range
            found = f"seeds may not repeat: {error}"
        if found:
            print(f"warning: {found}; episodes cannot be compared in pairs")
        return found

    def __enter__(self) -> "Evaluator":
        return self

    def __exit__(self, error: type[BaseException] | None, *_) -> None:
        self.workers.close()
        if error and self.kept.path and self.kept.count:
            where = f"{self.kept.count} finished episodes are kept in {self.kept.path}"
            say(f"{where}; repeat the command to continue from them")

    @contextmanager
    def progress(self, rows: int) -> Iterator[None]:
        """Show one line of progress for so many rows, instead of one for each."""
        self._bar = EpisodeBar("episodes", rows * len(self.seeds), self.options.limit, leave=True)
        with self._bar:
            yield
        self._bar = None

    def prepare(self, policy: Budget, clocks: Sequence[str]) -> None:
        """Build the engines that the clocks need, so that a failure shows before any episode."""
        if set(clocks) != {"wall"}:
            with one_thread():
                name = build_engine(policy, self.options.batch)
            self._engines[name or EXTERNAL, self.options.batch] = None
        if "wall" in clocks:
            self._engines[build_engine(policy) or EXTERNAL, 1] = None

    def tell_engines(self) -> None:
        """Print the engines of the policies that are prepared, in one line."""
        names = [f"{name} (batch {batch})" for name, batch in self._engines]
        say(f"engines: {', '.join(names)}")

    def profiles(
        self, policies: Sequence[Budget], config: Latencies, clocks: Sequence[str]
    ) -> list[LatencyProfile]:
        """Latency profiles of the policies; a stopped run continues with those it measured."""

        def find() -> list[LatencyProfile]:
            dt_s, first = self.options.control_dt_s, self.facts.first
            return profiles_of(policies, config, dt_s, clocks, first)

        given = any(getattr(config, source) is not None for source in SOURCES)
        return find() if given or set(clocks) == {"wall"} else self.measured(policies, config, find)

    def measured(
        self,
        policies: Sequence[Budget],
        config: Latencies,
        measure: Callable[[], list[LatencyProfile]],
    ) -> list[LatencyProfile]:
        """Latency profiles that a stopped run has kept, else those of `measure`, which are kept."""
        key = self._key(
            policies=[self._fingerprint(policy) for policy in policies],
            engine=self.config.engine,
            seconds=config.latency_seconds,
        )
        found = self.kept.profiles(key)
        if found:
            say(f"latencies measured earlier, from {self.kept.path}")
            return found
        found = measure()
        self.kept.add_profiles(key, found)
        return found

    def evaluate(
        self, policy: Budget, clock: str, profile: LatencyProfile
    ) -> tuple[BudgetResult, LatencyProfile]:
        """Run every seed once on `clock`, after a warning if the budget starves the controller.

        Returns the result row and the latency profile used (measured, if `clock` is wall).
        """
        if clock == "wall":
            return self._on_wall_clock(policy)
        dt = self.options.control_dt_s
        if clock == "simulated":
            warn_of_starvation(policy, profile, dt)
        simulated = profile if clock == "simulated" else latency.PAUSED
        with one_thread():
            engine = build_engine(policy, self.options.batch) or EXTERNAL
        run = partial(self.stream, policy, self.make, profile=simulated)
        tally = self._tally(run, policy, clock, engine, simulated.samples_ms.tolist())
        return make_row(policy, clock, profile, tally, dt, engine), profile

    def _on_wall_clock(self, policy: Budget) -> tuple[BudgetResult, LatencyProfile]:
        dt, engine = self.options.control_dt_s, build_engine(policy) or EXTERNAL
        minutes = len(self.seeds) * self.facts.limit * dt / 60
        say(f"real time, one episode at a time: at most {minutes:.1f} min")
        run = partial(self.workers.stream_on_wall_clock, policy, self.make)
        kept = any(self.kept.episodes(self.key(policy, "wall", engine, ())))
        pids = self.workers.pids
        before = load.snapshot(pids)
        tally = self._tally(run, policy, "wall", engine)
        whole = pids == self.workers.pids and not kept  # else part of the load is unknown
        whole &= not (isinstance(policy, External) and load.descendants(pids))
        between = load.load_between(before, load.snapshot(pids)) if whole else None
        latency_ms = tally.numbers("latency_ms")
        if not latency_ms.size:
            raise DiffpolicyError(
                "no inference finished on the wall clock; expected episodes that outlast one; try "
                "fewer steps or a larger --max-steps"
            )
        profile = LatencyProfile(
            latency_ms, "wall clock", engine=engine, load=load.verdict([between])
        )
        row = make_row(policy, "wall", profile, tally, dt, engine)
        return wall_row(row, policy, tally), profile

    def _tally(
        self,
        run: Callable[..., None],
        policy: Budget,
        clock: str,
        engine: str,
        latencies_ms: Sequence[float] = (),
    ) -> Tally:
        """Run every seed once; episodes that were kept are not run again, and none is held."""
        key, tally = self.key(policy, clock, engine, latencies_ms), Tally(self.seeds)
        for episode in self.kept.episodes(key):
            tally.add(episode)

        def keep(episode: Episode) -> None:
            self.kept.add_episode(key, episode)
            tally.add(episode)

        left, whole = tally.left, len(self.seeds)
        with (
            nullcontext(self._bar)
            if self._bar
            else EpisodeBar("", whole, self.options.limit) as bar
        ):
            bar.describe(f"{describe(policy).name}, {clock}")
            bar.skip(whole - len(left))
            if left:
                run(seeds=left, options=self.options, keep=keep, bar=bar)
        return tally

    def key(self, policy: Budget, clock: str, engine: str, latencies_ms: Sequence[float]) -> str:
        """Key of everything that determines an episode except its seed."""
        options = asdict(self.options)
        for name in ("envs", "on_env_error", "step_timeout"):
            del options[name]
        return self._key(
            policy=self._fingerprint(policy), clock=clock, engine=engine, ms=latencies_ms, **options
        )

    def _fingerprint(self, policy: Budget) -> str:
        if policy.name not in self._fingerprints:
            self._fingerprints[policy.name] = fingerprint(policy)
        return self._fingerprints[policy.name]

    def _key(self, **facts: Any) -> str:
        """Key of everything that determines kept episodes or latencies."""
        env = [self.env_id, self.kwargs, self.config.max_steps, self.facts.source]
        return key_of(machine=asdict(self.machine), env=env, **facts)

    def provenance(self) -> EvalProvenance:
        """Provenance of the results of this evaluator."""
        options = {name: getattr(self.options, name) for name in OPTIONS}
        return EvalProvenance(
            **vars(provenance(self.device)),
            env=self.env_id,
            env_kwargs=self.kwargs,
            run=self.config.run and str(self.config.run),
            runs=[str(run) for run in getattr(self.config, "runs", ())] or None,
            policy=self.config.policy,
            checkpoint=self.source,
            seeds=(self.seeds.start, self.seeds.stop - 1),
            padded_batch=self.options.batch,
            workers=self.workers.count,
            max_steps=self.config.max_steps,
            paired=self.paired,
            seeds_repeat=self.paired,
            seeds_evidence=self.unrepeatable,
            neutral=self.config.neutral or "declared by the environment, else hold",
            score_from=self.facts.score_from or "success, as 0 or 1",
            **options,
        )
