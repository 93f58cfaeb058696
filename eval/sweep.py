"""`diffpolicy sweep`: success and latency for each step budget, and the budget to use."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from tqdm import tqdm

from diffpolicy.checkpoint import Checkpoint, load_policy, policy_path
from diffpolicy.config import SweepConfig
from diffpolicy.errors import DiffpolicyError
from diffpolicy.files import write_atomically, write_text
from diffpolicy.latency import LatencyProfile
from diffpolicy.policy import Policy

from .compare import Candidate, Recommendation, recommend
from .header import header, set_threads
from .pictures import clock_label, png, success_against_latency
from .report import write_report
from .success import World, outruns, print_records, profiles_of

MOSTLY = 0.5  # success is "rare" where no budget reaches this


@dataclass(frozen=True)
class Clock:
    """A clock and what each budget costs on it, in the order of the policies."""

    name: str
    profiles: Sequence[LatencyProfile]


def sweep(config: SweepConfig) -> dict[str, Any]:
    """All budgets on all clocks; writes sweep.json, sweep.png, report.html; the result."""
    policies = load_budgets(config)
    profiles = profiles_of(policies, config.ms_per_step, config.latency_seconds)
    return run_sweep(config, policies, [Clock(name, profiles) for name in config.clocks])


def load_budgets(config: SweepConfig) -> list[Policy]:
    """One policy for each budget; ancestral DDPM over all T steps last."""
    set_threads(config.threads)
    if not config.ddim_steps:
        raise DiffpolicyError("--ddim-steps needs at least one budget")
    checkpoint: Checkpoint = load_policy(config.run)
    budgets = sorted(set(config.ddim_steps))
    policies = [Policy(checkpoint, k, device=config.device) for k in budgets]
    if config.ddpm:
        timesteps = checkpoint.specification.model.train_timesteps
        policies.append(Policy(checkpoint, timesteps, eta=1.0, device=config.device))
    return policies


def run_sweep(
    config: SweepConfig, policies: Sequence[Policy], clocks: Sequence[Clock]
) -> dict[str, Any]:
    """The episodes of every budget on every clock; the recommendation is the last clock's."""
    world = World(config, policies[0])
    folder = config.out or policy_path(config.run).parent / "sweep"
    folder.mkdir(parents=True, exist_ok=True)
    records, recommendations = [], []
    with tqdm(total=len(clocks) * len(policies), desc="sweep", unit="budget") as bar:
        for clock in clocks:
            rows = []
            for policy, profile in zip(policies, clock.profiles, strict=True):
                rows.append(world.record(policy, clock.name, profile))
                bar.update(1)
            advice = _advise(config, world, policies, clock, rows)
            recommendations.append(_as_json(clock, advice))
            records += rows
    result = {
        "header": header(policies[0].device, **world.describe()),
        "records": records,
        "recommendations": recommendations,
        "recommendation": recommendations[-1],
    }
    write_text(folder / "sweep.json", json.dumps(result, indent=1))
    _print(result)
    films = _films(policies, clocks[-1], recommendations[-1]) if config.pictures else []
    plot = png(success_against_latency(result))
    write_atomically(folder / "sweep.png", lambda path: path.write_bytes(plot))
    write_report(folder / "report.html", result, world, plot, films)
    print(f"wrote sweep.json, sweep.png and report.html to {folder}")
    return result


def _print(result: dict[str, Any]) -> None:
    print_records(result["records"])
    for advice in result["recommendations"]:
        chosen = advice["ddim_steps"]
        verdict = f"use ddim_steps {chosen}" if chosen else "no recommendation"
        print(f"{clock_label(advice)}: {verdict}: {advice['reason']}")


def _films(
    policies: Sequence[Policy], clock: Clock, advice: dict[str, Any]
) -> list[tuple[Policy, str, LatencyProfile]]:
    """The cheapest budget, the recommended one and the dearest, on the last clock."""
    ddim = [i for i, policy in enumerate(policies) if policy.eta == 0]
    wanted = {policies[ddim[0]].ddim_steps, advice["ddim_steps"], policies[ddim[-1]].ddim_steps}
    chosen = [i for i in ddim if policies[i].ddim_steps in wanted]
    return [(policies[i], clock.name, clock.profiles[i]) for i in chosen]


def _as_json(clock: Clock, advice: Recommendation) -> dict[str, Any]:
    return {
        "clock": clock.name,
        "latency_source": clock.profiles[0].source,
        "ddim_steps": advice.ddim_steps,
        "margin": advice.margin,
        "reason": advice.reason,
    }


def _advise(
    config: SweepConfig,
    world: World,
    policies: Sequence[Policy],
    clock: Clock,
    records: Sequence[dict[str, Any]],
) -> Recommendation:
    """On a paused clock latency is no obstacle: the world waits."""
    noun = config.outcome
    if noun == "auto":
        noun = "success" if max(r["success_rate"] for r in records) >= MOSTLY else "score"
    kind = bool if noun == "success" else float
    dt = world.options.control_dt_s
    candidates = [
        Candidate(
            name=record["name"],
            ddim_steps=policy.ddim_steps,
            network_evals=policy.network_evals,
            meets_deadline=clock.name == "paused" or not outruns(policy, profile, dt),
            outcomes=np.array(record["outcomes"][noun], dtype=kind),
        )
        for policy, profile, record in zip(policies, clock.profiles, records, strict=True)
    ]
    return recommend(candidates, config.margin, config.floor, noun)
