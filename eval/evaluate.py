"""Success of step budgets in closed loop, and the record that a result holds for each."""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from diffpolicy import environment
from diffpolicy.checkpoint import Checkpoint, load_policy
from diffpolicy.config import Sampling, sampling_of
from diffpolicy.control import latency
from diffpolicy.control.episode import Episode, RolloutOptions
from diffpolicy.control.latency import LatencyProfile
from diffpolicy.control.ranges import far_outside, training_range
from diffpolicy.control.receding_horizon import starves
from diffpolicy.control.workers import Workers, one_thread, worker_count
from diffpolicy.environment.monitored import seeds_repeat
from diffpolicy.errors import DiffpolicyError
from diffpolicy.files import check_writable, write_text
from diffpolicy.policy import Policy
from diffpolicy.sampling.chain import audit, audit_line

from .config import SOURCES, EvalConfig, Latencies, TaskConfig
from .measure import load
from .measure.facts import look
from .measure.kept import Kept, fingerprint, key_of
from .measure.profiles import check_source, profiles_of
from .measure.provenance import header, set_threads
from .report.table import print_table
from .significance import mean_interval, wilson

ROWS = 16  # in batches of a multiple of these a row's result does not depend on its place


def evaluate_budget(config: EvalConfig) -> None:
    """`diffpolicy eval`: one budget on one clock."""
    set_threads(config.threads)
    if config.json:
        check_writable(config.json)
    policy = policy_of(config, load_policy(config.run), sampling_of(config))
    print(audit_line(policy.chain))
    check_source([policy], config)
    kept = config.json and config.json.with_suffix(".episodes.jsonl")
    with World(config, policy, kept) as world:
        world.prepare(policy, [config.clock])
        [profile] = world.profiles([policy], config, [config.clock])
        record, _ = world.record(policy, config.clock, profile)
    print_records([record])
    if config.json:
        result = {"header": header(policy.device, **world.describe()), "records": [record]}
        write_text(config.json, json.dumps(result, indent=2))
        world.kept.remove()


def policy_of(config: TaskConfig, checkpoint: Checkpoint, sampling: Sampling) -> Policy:
    """The policy with one budget, on the device and engine of the options."""
    return Policy(
        checkpoint, sampling, config.device, engine=config.engine, precision=config.precision
    )


class World:
    """The environment that a run is evaluated in, checked against its checkpoint.

    No environment is ever made in this process. kept: the file of finished episodes, by which a
    run that was stopped goes on.
    """

    def __init__(self, config: TaskConfig, policy: Policy, kept: Path | None = None):
        task = policy.task
        self.config, self.training = config, policy.specification.training
        about = header(policy.device)
        self.machine = [about[name] for name in ("device", "threads", "versions", "commit")]
        self.env_id = config.env or task.env_id
        same = config.env in (None, task.env_id)
        self.kwargs = task.env_kwargs if same else {}
        if config.env_kwargs is not None:
            self.kwargs = environment.parse_kwargs(config.env_kwargs)
        self.make = partial(environment.make, self.env_id, self.kwargs, config.max_steps)
        self.workers = Workers(worker_count(config.workers, config.episodes, policy.device))
        override = config.control_dt or (task.control_dt_s if same else None)
        self.facts = self.workers.call(
            look, policy, self.make, config, override, timeout_s=config.step_timeout
        )
        self.unrepeatable = self._unrepeatable()
        self.paired = self.unrepeatable is None
        self.options = RolloutOptions(
            control_dt_s=self.facts.control_dt_s,
            envs=config.envs,
            batch=ROWS * -(-config.batch // ROWS),
            cold_start=config.cold_start,
            success_from=config.success_from,
            neutral=config.neutral,
            success=config.success,
            score_from=config.score_from,
            on_env_error=config.on_env_error,
            step_timeout=config.step_timeout,
            limit=self.facts.limit,
        )
        self.seeds = range(config.seed, config.seed + config.episodes)
        self.kept = Kept(kept)
        self._fingerprints: dict[str, str] = {}

    def _unrepeatable(self) -> str | None:
        """Evidence that seeds do not repeat, also printed; None where they do."""
        config = self.config
        try:
            found = self.workers.call(
                seeds_repeat, self.make, config.seed, timeout_s=config.step_timeout
            )
        except DiffpolicyError as error:  # perhaps at actions that no policy would give
            found = f"seeds may not repeat: {error}"
        if found:
            print(f"warning: {found}; episodes cannot be compared in pairs")
        return found

    def __enter__(self) -> "World":
        return self

    def __exit__(self, error: type[BaseException] | None, *_) -> None:
        self.workers.close()
        if error and self.kept.path and self.kept.count:
            where = f"{self.kept.count} finished episodes are kept in {self.kept.path}"
            print(f"{where}; the same command goes on with them")

    def prepare(self, policy: Policy, clocks: Sequence[str]) -> None:
        """Builds the engines that the clocks need, so that what cannot be built shows early."""
        if set(clocks) != {"wall"}:
            with one_thread():
                policy.engine(self.options.batch)
        if "wall" in clocks:
            policy.engine()

    def profiles(
        self, policies: Sequence[Policy], config: Latencies, clocks: Sequence[str]
    ) -> list[LatencyProfile]:
        """profiles_of the policies, by whose latencies a run that was stopped goes on."""

        def find() -> list[LatencyProfile]:
            return profiles_of(policies, config, self.options.control_dt_s, clocks)

        given = any(getattr(config, source) is not None for source in SOURCES)
        return find() if given or set(clocks) == {"wall"} else self.measured(policies, config, find)

    def measured(
        self,
        policies: Sequence[Policy],
        config: Latencies,
        measure: Callable[[], list[LatencyProfile]],
    ) -> list[LatencyProfile]:
        """The latencies that a run which was stopped has measured; else they are measured now."""
        key = self._key(
            policies=[self._fingerprint(policy) for policy in policies],
            engine=self.config.engine,
            seconds=config.latency_seconds,
        )
        found = self.kept.profiles(key)
        if found:
            print(f"latencies as measured before, from {self.kept.path}")
            return found
        found = measure()
        self.kept.add_profiles(key, found)
        return found

    def record(
        self, policy: Policy, clock: str, profile: LatencyProfile
    ) -> tuple[dict[str, Any], LatencyProfile]:
        """Every seed once on the clock: the budget's record, and what inference took there.

        That is `profile`, but on the wall clock, which measures its own latencies. Warns first of
        starvation.
        """
        if clock == "wall":
            return self._wall_record(policy)
        dt = self.options.control_dt_s
        if clock == "simulated":
            warn_of_starvation(policy, profile, dt)
        felt = profile if clock == "simulated" else latency.PAUSED
        with one_thread():
            engine = policy.engine(self.options.batch).name
        run = partial(self.workers.run_episodes, policy, self.make, profile=felt)
        episodes = self._episodes(run, policy, clock, engine, felt.samples_ms.tolist())
        return make_record(policy, clock, profile, episodes, dt, engine), profile

    def _wall_record(self, policy: Policy) -> tuple[dict[str, Any], LatencyProfile]:
        dt, engine = self.options.control_dt_s, policy.engine().name
        minutes = len(self.seeds) * self.facts.limit * dt / 60
        print(f"real time, one episode after the other: {minutes:.1f} min at most")
        run = partial(self.workers.run_on_wall_clock, policy, self.make)
        pids, kept = self.workers.pids, self.kept.episodes(self.key(policy, "wall", engine, ()))
        before = load.snapshot(pids)
        episodes = self._episodes(run, policy, "wall", engine)
        whole = pids == self.workers.pids and not kept  # else the load of a part is not known
        between = load.load_between(before, load.snapshot(pids)) if whole else None
        latency_ms = [ms for e in episodes for ms in e.latency_ms]
        if not latency_ms:
            raise DiffpolicyError("the episodes are too short for an inference on the wall clock")
        profile = LatencyProfile(
            np.array(latency_ms), "wall clock", engine=engine, load=load.verdict([between])
        )
        record = make_record(policy, "wall", profile, episodes, dt, engine)
        return {**record, **timing_record(episodes, policy)}, profile

    def _episodes(
        self,
        run: Callable[..., list[Episode]],
        policy: Policy,
        clock: str,
        engine: str,
        latencies_ms: Sequence[float] = (),
    ) -> list[Episode]:
        """Every seed once; those that were finished before are not run again."""
        key = self.key(policy, clock, engine, latencies_ms)
        done = self.kept.episodes(key)
        left = [seed for seed in self.seeds if seed not in done]
        keep = partial(self.kept.add_episode, key)
        label = f"{policy.chain.name}, {clock}"
        new = run(seeds=left, options=self.options, description=label, keep=keep) if left else []
        done |= {episode.seed: episode for episode in new}
        return [done[seed] for seed in self.seeds]

    def key(self, policy: Policy, clock: str, engine: str, latencies_ms: Sequence[float]) -> str:
        """A name for everything that determines an episode beside its seed."""
        options = asdict(self.options)
        for name in ("envs", "on_env_error", "step_timeout"):
            del options[name]
        return self._key(
            policy=self._fingerprint(policy), clock=clock, engine=engine, ms=latencies_ms, **options
        )

    def _fingerprint(self, policy: Policy) -> str:
        if policy.name not in self._fingerprints:
            self._fingerprints[policy.name] = fingerprint(policy)
        return self._fingerprints[policy.name]

    def _key(self, **facts: Any) -> str:
        """A name for everything that determines what is kept."""
        env = [self.env_id, self.kwargs, self.config.max_steps, self.facts.source]
        return key_of(machine=self.machine, env=env, **facts)

    def describe(self) -> dict[str, Any]:
        """The part of a result's header that says what was run."""
        return {
            "env": self.env_id,
            "env_kwargs": self.kwargs,
            "run": str(self.config.run),
            "checkpoint": {k: self.training.get(k) for k in ("fingerprint", "step", "episodes")},
            "seeds": [self.seeds.start, self.seeds.stop - 1],
            "padded_batch": self.options.batch,
            "workers": self.workers.count,
            "max_steps": self.config.max_steps,
            "paired": self.paired,
            "seeds_repeat": self.paired,
            "seeds_evidence": self.unrepeatable,
            **asdict(self.options),
            "neutral": self.config.neutral or "declared by the environment, else hold",
            "score_from": self.facts.score_key or "success, as 0 or 1",
        }


def warn_of_starvation(policy: Policy, profile: LatencyProfile, control_dt_s: float) -> None:
    """Says before the run where inference outruns the chunk."""
    if outruns(policy, profile, control_dt_s):
        h = policy.horizons
        print(
            f"warning: {policy.chain.name} can take {latency.slow_ms(profile):.1f} ms; the "
            f"chunk's {h.usable} usable actions run out before the next one arrives"
        )


def outruns(policy: Policy, profile: LatencyProfile, control_dt_s: float) -> bool:
    """Whether a slow inference (p99) starves the controller."""
    delay = latency.delay_ticks(latency.slow_ms(profile), control_dt_s)
    return starves(delay, policy.horizons.action, policy.horizons.usable)


def make_record(
    policy: Policy,
    clock: str,
    profile: LatencyProfile,
    episodes: Sequence[Episode],
    control_dt_s: float,
    engine: str,
) -> dict[str, Any]:
    """One budget on one clock, as it stands in the result; engine: what ran the episodes."""
    successes = sum(e.success for e in episodes)
    worst = min(0.0, *(e.score for e in episodes))  # a failed episode gains nothing by its end
    scores = np.array([worst if e.failure else e.score for e in episodes])
    ages = [age for e in episodes for age in e.ages]
    delays = [delay for e in episodes for delay in e.delay_ticks]
    age_ticks = float(np.median(ages)) if ages else None
    return {
        "name": policy.chain.name,
        "ddim_steps": policy.ddim_steps,
        "network_evals": policy.network_evals,
        "trained": {k: policy.specification.training.get(k) for k in ("step", "elapsed_s")},
        "variant": policy.chain.kind,
        "audit": audit(policy.chain),
        "eta": policy.sampling.eta,
        "clock": clock,
        "latency_source": profile.source,
        "engine": engine,
        "latency_engine": profile.engine,
        "load": profile.load,
        "episodes": len(episodes),
        "successes": successes,
        "success_rate": successes / len(episodes),
        "success_ci": wilson(successes, len(episodes)),
        "score_mean": float(scores.mean()),
        "score_ci": mean_interval(scores),
        "latency_ms": latency.percentiles(profile),
        "delay_ticks": float(np.mean(delays)) if delays else 0.0,
        "deadline_misses": sum(delay > 1 for delay in delays),
        "starved_ticks": sum(e.starved_ticks for e in episodes),
        "action_age_ms_p50": None if age_ticks is None else age_ticks * 1000 * control_dt_s,
        "replans": sum(e.replans for e in episodes),
        "seam_jump": _mean([j for e in episodes for j in e.seam_jumps]),
        "seam_jerk": _mean([j for e in episodes for j in e.seam_jerks]),
        "failures": [e.failure for e in episodes if e.failure],
        "far_observations": far_outside(episodes, training_range(policy)),
        "outcomes": {
            "success": [int(e.success) for e in episodes],
            "score": [round(float(score), 6) for score in scores],
            "success_tick": [e.success_tick for e in episodes],
        },
    }


def timing_record(episodes: Sequence[Episode], policy: Policy) -> dict[str, Any]:
    """What the wall clock adds to a record; its samples can be replayed."""
    late_ms = np.array([ms for e in episodes for ms in e.late_ms] or [0.0])
    return {
        "tick_late_ms": {"p50": float(np.median(late_ms)), "max": float(late_ms.max())},
        "missed_ticks": sum(e.missed_ticks for e in episodes),
        "parameters": policy.parameters,
        "precision": policy.precision,
        "samples_ms": np.round([ms for e in episodes for ms in e.latency_ms], 5).tolist(),
    }


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None


def print_records(records: Sequence[dict[str, Any]]) -> None:
    """The table on the terminal, and what is remarkable of it."""
    titles = ["budget", "clock", "latency", "success", "95 % interval", "score", "p50 ms"]
    titles += ["delay ticks", "age ms", "starved"]
    rows = [_row(record) for record in records]
    if any(record["failures"] for record in records):
        titles.append("failed")
        rows = [[*row, len(r["failures"])] for row, r in zip(rows, records, strict=True)]
    print()  # apart from what the engines said
    print_table(titles, rows)
    for record in records:
        for remark in remarks(record):
            print(f"warning: {record['name']}, {record['clock']}: {remark}")


def remarks(record: dict[str, Any]) -> list[str]:
    """Failed episodes with their culprits, and observations far outside of training's."""
    found = []
    if failures := record["failures"]:
        kinds = {re.sub(r"[-+.\d]+", "", text): text for text in reversed(failures)}
        culprits = "; ".join(reversed(kinds.values()))
        found.append(f"{len(failures)} of {record['episodes']} episodes failed: {culprits}")
    if far := record["far_observations"]:
        worst = max(far, key=lambda f: f["share"])
        others = f" (and {len(far) - 1} more)" if len(far) > 1 else ""
        found.append(
            "observations far outside of training's: dimension {dimension}{others} in {share:.0%} "
            "of those given to the policy; it goes from {seen[0]:.3g} to {seen[1]:.3g}, in "
            "training from {training[0]:.3g} to {training[1]:.3g}".format(others=others, **worst)
        )
    return found


def _row(r: dict[str, Any]) -> list[Any]:
    low, high = r["success_ci"]
    return [
        r["name"],
        r["clock"],
        r["latency_source"] + (", disturbed" if r["load"] == "disturbed" else ""),
        f"{r['success_rate']:.2f}",
        f"{low:.2f} to {high:.2f}",
        f"{r['score_mean']:.3f}",
        f"{r['latency_ms']['p50']:.2f}",
        f"{r['delay_ticks']:.1f}",
        r["action_age_ms_p50"],
        r["starved_ticks"],
    ]
