"""`diffpolicy latency`: latency of one control step, numpy in, numpy out, batch 1."""

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from diffpolicy import environment
from diffpolicy.checkpoint import Checkpoint, load_policy
from diffpolicy.config import Sampling
from diffpolicy.control.external import External
from diffpolicy.control.latency import LatencyProfile
from diffpolicy.control.workers import Workers
from diffpolicy.device import choose_device
from diffpolicy.engines.auto import verify_stages
from diffpolicy.errors import DiffpolicyError
from diffpolicy.policy import Policy
from diffpolicy.sampling.chain import audit_line, own_budgets
from diffpolicy.terminal.output import say, wrapped

from .config import LatencyConfig
from .measure.description import Description, describe
from .measure.diffusers_loop import DiffusersLoop, scheduler_class
from .measure.facts import first_look
from .measure.load import descendants
from .measure.nets import fresh_checkpoint
from .measure.provenance import provenance, set_threads
from .measure.result_files import LatencyFile, LatencyProvenance
from .measure.results import LatencyResult
from .measure.rows import percentiles_of
from .measure.steps import steps_of
from .measure.timing import (
    MANY_SAMPLES,
    Timed,
    measure_parts,
    random_observation,
    timed_external,
    timed_policy,
)
from .report.products import check_outputs, save


@dataclass(frozen=True)
class Plan:
    """The calls to measure, a budget that shares their network, and the control tick, if known.

    ours: processes that compute for the policy.
    """

    timed: Sequence[Timed]
    about: Description
    tick_ms: float | None
    ours: Sequence[int] = ()


def latency(config: LatencyConfig) -> None:
    """Print a table and the budgets that meet the deadline; write JSON and CSV on request."""
    set_threads(config.threads)
    if config.json:
        check_outputs(LatencyFile, config.json)
    plan = _plan_of_run(config) if config.policy is None else _plan_of_others(config)
    with _busy_cores(config.stress) as loops:
        ours = [*loops, *plan.ours]
        profiles = measure_parts(plan.timed, config.seconds, config.seed, MANY_SAMPLES, ours)
    timed, profiles = _fastest(plan.timed, profiles)
    rows = _rows(config, plan.about, timed, profiles)
    save(LatencyFile(provenance=_provenance(config, plan.tick_ms), rows=rows), config.json)


def _plan_of_run(config: LatencyConfig) -> Plan:
    """Every budget of a run or a net; without an environment, a net has no control tick."""
    checkpoint = _checkpoint(config)
    steps = steps_of(config.ddim_steps, checkpoint.specification)
    budgets = [_engines_of(config, checkpoint, k) for k in steps]
    tick_ms = None if config.net else 1000 * checkpoint.specification.task.control_dt_s
    return Plan([*_timed(config, checkpoint, budgets)], describe(budgets[0][0]), tick_ms)


def _engines_of(config: LatencyConfig, checkpoint: Checkpoint, steps: int) -> list[Policy]:
    """One budget on every engine."""
    sampling = Sampling(steps, grid=config.grid, sampler=config.sampler, late=config.late)
    return [
        Policy(checkpoint, sampling, config.device, engine=name, precision=config.precision)
        for name in dict.fromkeys(config.engine)
    ]


def _plan_of_others(config: LatencyConfig) -> Plan:
    """Every budget of a policy of others, at the first observation of its environment."""
    assert config.policy and config.env
    policies = [External(config.policy, steps) for steps in sorted(set(config.ddim_steps))]
    for policy in policies:
        say(wrapped(describe(policy).line))
    kwargs = environment.parse_kwargs(config.env_kwargs)
    make = partial(environment.make, config.env, kwargs)
    with closing(Workers(1)) as workers:
        looked = workers.call(first_look, policies[0], make, config.seed, timeout_s=None)
    first, dt_s = looked
    rng = np.random.default_rng(config.seed)
    timed = [timed_external(policy, first, rng) for policy in policies]
    return Plan(timed, describe(policies[0]), dt_s and 1000 * dt_s, descendants())


def _provenance(config: LatencyConfig, tick_ms: float | None) -> LatencyProvenance:
    """Provenance with the deadline: the control tick, unless another is given."""
    return LatencyProvenance(
        **vars(provenance(choose_device(config.device))),
        run=config.run and str(config.run),
        net=config.net,
        policy=config.policy,
        env=config.env,
        stress=config.stress,
        deadline_ms=config.deadline_ms or tick_ms,
    )


def _checkpoint(config: LatencyConfig) -> Checkpoint:
    if config.baseline:
        scheduler_class()  # fail before anything is measured
    if config.net:
        return fresh_checkpoint(config.net)
    assert config.run
    checkpoint = load_policy(config.run)
    if config.baseline and own_budgets(checkpoint.specification):
        objective = checkpoint.specification.model.objective
        raise DiffpolicyError(
            f"a {objective} policy has no denoising loop to compare with --baseline"
        )
    return checkpoint


def _timed(
    config: LatencyConfig, checkpoint: Checkpoint, budgets: Sequence[Sequence[Policy]]
) -> Iterator[Timed]:
    """Every budget on every engine, each verified against eager, and on the baseline."""
    rng = np.random.default_rng(config.seed)
    for policies in budgets:
        k = policies[0].ddim_steps
        say(wrapped(audit_line(policies[0].chain)))
        observation = random_observation(policies[0], rng)
        for policy in {p.engine().name: p for p in policies}.values():
            yield timed_policy(
                policy,
                observation,
                max_abs_diff=verify_stages(policy.engine(), policy.job()),
                gpu_ms=policy.engine().gpu_ms(),
            )
        if config.baseline:
            loop = DiffusersLoop(checkpoint, k, policies[0].device)
            counts = {1} if loop.device.type == "cpu" else set()  # several threads can be slower
            for threads in sorted(counts | {torch.get_num_threads()}):
                encode = loop.encode if policies[0].job().pictures else None
                facts = {"threads": threads, "encode": encode, "gradient_evals": 0}
                yield Timed(k, k, config.baseline, loop, observation, **facts)


def _fastest(
    timed: Sequence[Timed], profiles: Sequence[LatencyProfile]
) -> tuple[list[Timed], list[LatencyProfile]]:
    """One call of each budget and engine: the faster one if both thread counts were timed."""
    best: dict[tuple[int, str], tuple[Timed, LatencyProfile]] = {}
    for pair in zip(timed, profiles, strict=True):
        key = pair[0].ddim_steps, pair[0].engine
        best[key] = min(best.get(key, pair), pair, key=lambda p: np.median(p[1].samples_ms))
    return [t for t, _ in best.values()], [profile for _, profile in best.values()]


def _rows(
    config: LatencyConfig,
    about: Description,
    timed: Sequence[Timed],
    profiles: Sequence[LatencyProfile],
) -> list[LatencyResult]:
    pairs = list(zip(timed, profiles, strict=True))
    medians = {(t.ddim_steps, t.engine): float(np.median(p.samples_ms)) for t, p in pairs}
    rows = []
    for t, profile in pairs:
        baseline = medians.get((t.ddim_steps, config.baseline or ""))
        found = percentiles_of(profile)
        rows.append(
            LatencyResult(
                net=config.net,
                policy=about.policy,
                ddim_steps=t.ddim_steps,
                network_evals=t.network_evals,
                gradient_evals=t.gradient_evals,
                parameters=about.parameters,
                engine=t.engine,
                threads=t.threads,
                load=profile.load,
                p50_ms=found.p50,
                p99_ms=found.p99,
                ratio_to_baseline=baseline and baseline / found.p50,
                max_abs_diff=t.max_abs_diff,
                gpu_ms=t.gpu_ms,
                precision=about.precision or "unknown",
                latency_ms=found,
                encoder_ms=profile.encoder_ms,
                head_ms=profile.head_ms,
                cameras=about.cameras,
                crop=about.crop,
                samples_ms=np.round(profile.samples_ms, 5).tolist(),
            )
        )
    return rows


@contextmanager
def _busy_cores(wanted: bool) -> Iterator[list[int]]:
    """Keep all cores but one busy with processes that only loop; yields their ids."""
    loops = []
    if wanted:
        command = [sys.executable, "-c", "while True: pass"]
        loops = [subprocess.Popen(command) for _ in range((os.cpu_count() or 1) - 1)]
    try:
        yield [loop.pid for loop in loops]
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()
