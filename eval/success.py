"""Success of step budgets in closed loop, and the record that a result holds for each."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

import numpy as np

from diffpolicy import environment, latency
from diffpolicy.budget import audit_line, kind, sampler_name
from diffpolicy.chain import audit
from diffpolicy.checkpoint import Checkpoint, load_policy
from diffpolicy.config import Sampling, sampling_of
from diffpolicy.control import starves
from diffpolicy.errors import DiffpolicyError
from diffpolicy.files import check_writable, write_text
from diffpolicy.latency import LatencyProfile
from diffpolicy.outcome import new_outcome
from diffpolicy.policy import Policy
from diffpolicy.rollout import Episode, RolloutOptions, check_fit
from diffpolicy.wall import Timing, run_on_wall_clock
from diffpolicy.workers import Workers, one_thread, worker_count

from .config import EvalConfig, TaskConfig
from .header import header, set_threads
from .load import load_between, snapshot, verdict
from .profiles import check_source, profiles_of
from .significance import mean_interval, wilson
from .table import print_table

ROWS = 16  # in batches of a multiple of these a row's result does not depend on its place


def evaluate_budget(config: EvalConfig) -> None:
    """`diffpolicy eval`: one budget on one clock."""
    set_threads(config.threads)
    if config.json:
        check_writable(config.json)
    policy = policy_of(config, load_policy(config.run), sampling_of(config))
    print(audit_line(policy))
    check_source([policy], config)
    with World(config, policy) as world:
        world.prepare(policy, [config.clock])
        [profile] = profiles_of([policy], config, world.options.control_dt_s, [config.clock])
        record, _ = world.record(policy, config.clock, profile)
    print_records([record])
    if config.json:
        result = {"header": header(policy.device, **world.describe()), "records": [record]}
        write_text(config.json, json.dumps(result, indent=2))


def policy_of(config: TaskConfig, checkpoint: Checkpoint, sampling: Sampling) -> Policy:
    """The policy with one budget, on the device and engine of the options."""
    return Policy(
        checkpoint, sampling, config.device, engine=config.engine, precision=config.precision
    )


class World:
    """The environment that a run is evaluated in, checked against its checkpoint."""

    def __init__(self, config: TaskConfig, policy: Policy):
        task = policy.task
        self.config, self.training = config, policy.specification.training
        self.env_id = config.env or task.env_id
        same = config.env in (None, task.env_id)
        self.kwargs = task.env_kwargs if same else {}
        if config.env_kwargs is not None:
            self.kwargs = environment.parse_kwargs(config.env_kwargs)
        self.make = partial(environment.make, self.env_id, self.kwargs, config.max_steps)
        env = self.make()
        try:
            check_fit(policy, env)
            self.limit = environment.episode_limit(env)
            environment.neutral_rule(env, config.neutral)
            judged = (config.success_from, config.success, config.score_from)
            self.score_key = new_outcome(env, *judged).score_key
            override = config.control_dt or (task.control_dt_s if same else None)
            dt = environment.control_dt_s(env, override)
        finally:
            env.close()
        self.options = RolloutOptions(
            control_dt_s=dt,
            envs=config.envs,
            batch=ROWS * -(-config.batch // ROWS),
            cold_start=config.cold_start,
            success_from=config.success_from,
            neutral=config.neutral,
            success=config.success,
            score_from=config.score_from,
        )
        self.seeds = range(config.seed, config.seed + config.episodes)
        self.workers = Workers(worker_count(config.workers, config.episodes, policy.device))

    def __enter__(self) -> "World":
        return self

    def __exit__(self, *_) -> None:
        self.workers.close()

    def prepare(self, policy: Policy, clocks: Sequence[str]) -> None:
        """Builds the engines that the clocks need, so that what cannot be built shows early."""
        if set(clocks) != {"wall"}:
            with one_thread():
                policy.engine(self.options.batch)
        if "wall" in clocks:
            policy.engine()

    def record(
        self, policy: Policy, clock: str, profile: LatencyProfile
    ) -> tuple[dict[str, Any], LatencyProfile]:
        """Every seed once on the clock: the budget's record, and what inference took there.

        That is `profile`, but on the wall clock, which measures its own latencies. Warns first of
        starvation.
        """
        label = f"{sampler_name(policy)}, {clock}"
        dt = self.options.control_dt_s
        if clock == "wall":
            minutes = len(self.seeds) * self.limit * dt / 60
            print(f"real time, one episode after the other: {minutes:.1f} min at most")
            begin = snapshot()
            episodes, timing = run_on_wall_clock(policy, self.make, self.seeds, self.options, label)
            load = verdict([load_between(begin, snapshot())])
            if not timing.latency_ms:
                raise DiffpolicyError(
                    "the episodes are too short for an inference on the wall clock"
                )
            engine = policy.engine().name
            samples = np.array(timing.latency_ms)
            profile = LatencyProfile(samples, "wall clock", engine=engine, load=load)
            record = make_record(policy, clock, profile, episodes, dt, engine)
            return {**record, **timing_record(timing, policy)}, profile
        if clock == "simulated":
            warn_of_starvation(policy, profile, dt)
        felt = profile if clock == "simulated" else latency.PAUSED
        run = self.workers.run_episodes
        episodes = run(policy, self.make, self.seeds, felt, self.options, label)
        with one_thread():
            engine = policy.engine(self.options.batch).name
        return make_record(policy, clock, profile, episodes, dt, engine), profile

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
            **asdict(self.options),
            "neutral": self.config.neutral or "declared by the environment, else hold",
            "score_from": self.score_key or "success, as 0 or 1",
        }


def warn_of_starvation(policy: Policy, profile: LatencyProfile, control_dt_s: float) -> None:
    """Says before the run where inference outruns the chunk."""
    if outruns(policy, profile, control_dt_s):
        h = policy.horizons
        print(
            f"warning: {sampler_name(policy)} can take {latency.slow_ms(profile):.1f} ms; the "
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
        "name": sampler_name(policy),
        "ddim_steps": policy.ddim_steps,
        "network_evals": policy.network_evals,
        "trained": {k: policy.specification.training.get(k) for k in ("step", "elapsed_s")},
        "variant": kind(policy),
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
        "outcomes": {
            "success": [int(e.success) for e in episodes],
            "score": [round(float(score), 6) for score in scores],
            "success_tick": [e.success_tick for e in episodes],
        },
    }


def timing_record(timing: Timing, policy: Policy) -> dict[str, Any]:
    """What the wall clock adds to a record; its samples can be replayed."""
    late_ms = np.array(timing.late_ms or [0.0])
    return {
        "tick_late_ms": {"p50": float(np.median(late_ms)), "max": float(late_ms.max())},
        "missed_ticks": timing.missed,
        "parameters": policy.parameters,
        "precision": policy.precision,
        "samples_ms": np.round(timing.latency_ms, 5).tolist(),
    }


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None


def print_records(records: Sequence[dict[str, Any]]) -> None:
    """The table on the terminal."""
    titles = ["budget", "clock", "latency", "success", "95 % interval", "score", "p50 ms"]
    titles += ["delay ticks", "age ms", "starved"]
    print()  # apart from what the engines said
    print_table(titles, [_row(record) for record in records])


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
