"""`diffpolicy sweep`: success and latency for each step budget, and the budget to use."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from diffpolicy.checkpoint import policy_path
from diffpolicy.control.latency import LatencyProfile, delay_ticks, slow_ms
from diffpolicy.errors import DiffpolicyError
from diffpolicy.files import check_writable, write_bytes, write_text
from diffpolicy.policy import Policy

from .compare import Candidate, Recommendation, compare, recommend
from .config import SweepConfig
from .evaluate import World, outruns, print_records
from .measure.budgets import combinations, load_budgets
from .measure.profiles import check_source
from .measure.provenance import header
from .report.plots import clock_label, png, success_against_latency
from .report.sweep_page import headline, write_report
from .report.table import print_table
from .significance import ALPHA, episodes_needed

DISCORDANCES = (0.05, 0.1, 0.2, 0.4)
MOSTLY = 0.5  # success is "rare" where no budget reaches this


@dataclass(frozen=True)
class Clock:
    """A clock and what each budget costs on it, in the order of the policies."""

    name: str
    profiles: Sequence[LatencyProfile]


def sweep(config: SweepConfig) -> dict[str, Any]:
    """All budgets on all clocks; writes sweep.json, sweep.png, report.html; the result."""
    if config.plan:
        return print_plan(config.margin, len(combinations(config)) + (config.regression != "none"))
    if not config.clocks:
        raise DiffpolicyError("--clocks needs at least one of paused and simulated")
    policies = load_budgets(config)
    check_source(policies, config)
    with open_world(config, policies) as world:
        profiles = world.profiles(policies, config, config.clocks)
        clocks = [Clock(name, profiles) for name in config.clocks]
        return run_sweep(config, world, policies, clocks)


def print_plan(margin: float, budgets: int) -> dict[str, Any]:
    """Paired episodes that establish non-inferiority of equals, {discordant share: counts}.

    The counts are for a power of 80 % and 90 % at ALPHA, which the last of several budgets is
    tested at, and for 90 % at ALPHA / budgets, which the first one is tested at.
    """
    aims = [(0.8, ALPHA), (0.9, ALPHA), (0.9, ALPHA / budgets)]
    plan = {
        share: [episodes_needed(share, margin, power, level) for power, level in aims]
        for share in DISCORDANCES
    }
    print(f"paired episodes that establish non-inferiority of two equals at margin {margin:g}:")
    titles = ["discordant pairs", *(f"power {power:.0%}, α {level:.2g}" for power, level in aims)]
    print_table(titles, [[f"{share:.0%}", *counts] for share, counts in plan.items()])
    print(f"{budgets} budgets share α = {ALPHA}: the first is tested at {ALPHA / budgets:.2g}")
    return {"margin": margin, "budgets": budgets, "episodes": plan}


def open_world(config: SweepConfig, policies: Sequence[Policy]) -> World:
    """Whatever can be wrong with the environment or the folder shows here, before measuring."""
    diffusion = next(policy for policy in policies if not policy.regression)
    world = World(config, diffusion, _folder(config) / "episodes.jsonl")
    for policy in policies:
        world.prepare(policy, config.clocks)
    for name in ("sweep.json", "sweep.png", "report.html"):
        check_writable(_folder(config) / name)
    return world


def _folder(config: SweepConfig) -> Path:
    return config.out or policy_path(config.run).parent / "sweep"


def run_sweep(
    config: SweepConfig, world: World, policies: Sequence[Policy], clocks: Sequence[Clock]
) -> dict[str, Any]:
    """The episodes of every budget on every clock; the recommendation is the last clock's."""
    rows, clocks = _episodes(world, policies, clocks)
    noun = _outcome(config, rows)
    advice = [
        _advise(config, world, policies, clock, records, noun)
        for clock, records in zip(clocks, rows, strict=True)
    ]
    about = {"outcome": noun, "margin": config.margin, "floor": config.floor}
    result = {
        "header": header(policies[0].device, **world.describe(), **about),
        "records": [record for records in rows for record in records],
        "profiles": _profiles(policies, clocks),
        "recommendations": advice,
        "recommendation": advice[-1],
    }
    folder = _folder(config)
    _print(result)
    films = _films(policies, clocks[-1], advice[-1]) if config.pictures else []
    plot = png(success_against_latency(result))
    write_bytes(folder / "sweep.png", plot)
    write_report(folder / "report.html", result, world, plot, films)
    write_text(
        folder / "sweep.json", json.dumps(result, indent=1)
    )  # last: it says that all is there
    world.kept.remove()
    print(f"wrote sweep.json, sweep.png and report.html to {folder}")
    return result


def _episodes(
    world: World, policies: Sequence[Policy], clocks: Sequence[Clock]
) -> tuple[list[list[dict[str, Any]]], list[Clock]]:
    """For each clock, one record for each policy; the clocks with the latencies met on them."""
    rows, met = [[] for _ in clocks], [[] for _ in clocks]
    with tqdm(total=len(clocks) * len(policies), desc="sweep", unit="budget") as bar:
        for i, policy in enumerate(policies):  # one after the other: workers keep its engine
            for clock, records, profiles in zip(clocks, rows, met, strict=True):
                record, profile = world.record(policy, clock.name, clock.profiles[i])
                records.append(record)
                profiles.append(profile)
                bar.update(1)
    return rows, [Clock(c.name, profiles) for c, profiles in zip(clocks, met, strict=True)]


def _outcome(config: SweepConfig, rows: Sequence[Sequence[dict[str, Any]]]) -> str:
    """What all clocks are judged by: success, or the score where success is rare."""
    if config.outcome != "auto":
        return config.outcome
    best = max(record["success_rate"] for records in rows for record in records)
    return "success" if best >= MOSTLY else "score"


def _profiles(policies: Sequence[Policy], clocks: Sequence[Clock]) -> list[dict[str, Any]]:
    """Every latency that was measured or declared, once, so that it can be looked at again."""
    found = {
        (policy.chain.name, profile.source): np.round(profile.samples_ms, 4).tolist()
        for clock in clocks
        for policy, profile in zip(policies, clock.profiles, strict=True)
    }
    return [{"name": n, "source": s, "samples_ms": ms} for (n, s), ms in found.items()]


def _advise(
    config: SweepConfig,
    world: World,
    policies: Sequence[Policy],
    clock: Clock,
    records: Sequence[dict[str, Any]],
    noun: str,
) -> dict[str, Any]:
    """The recommendation on one clock. On the paused one latency is no obstacle."""
    dt = world.options.control_dt_s
    candidates = [
        Candidate(
            name=record["name"],
            ddim_steps=policy.ddim_steps,
            network_evals=policy.network_evals,
            meets_deadline=clock.name == "paused" or not outruns(policy, profile, dt),
            outcomes=np.array(record["outcomes"][noun], bool if noun == "success" else float),
            rival_only=policy.chain.ddpm or policy.regression,
        )
        for policy, profile, record in zip(policies, clock.profiles, records, strict=True)
    ]
    disturbed = clock.name != "paused" and any(p.disturbed for p in clock.profiles)
    withheld = _withheld(config) if disturbed and not config.accept_disturbed else None
    advice = withheld or recommend(candidates, config.margin, config.floor, noun, world.paired)
    best = max(
        (c for c in candidates if not c.rival_only), key=lambda c: float(np.mean(c.outcomes))
    )
    reference = next((c for c in candidates if c.name == advice.name), best)
    others = [c for c in candidates if c is not reference]
    return {
        "clock": clock.name,
        "latency_source": clock.profiles[0].source,
        "ddim_steps": advice.ddim_steps,
        "name": advice.name,
        "margin": advice.margin,
        "reason": advice.reason
        + _plain(others)
        + _fit(clock, dt)
        + ("; latencies are disturbed" if disturbed and not withheld else ""),
        "regression_suffices": advice.regression_suffices,
        "comparisons": [compare(reference, other, config.margin, world.paired) for other in others],
    }


def _withheld(config: SweepConfig) -> Recommendation:
    """No budget, for no recommendation rests on disturbed latencies unasked."""
    reason = (
        "other processes were in the way while latencies were measured; measure again on a quiet "
        "machine, or take them as they are by `diffpolicy sweep --accept-disturbed`"
    )
    return Recommendation(None, None, config.margin, reason)


def _plain(others: Sequence[Candidate]) -> str:
    """Regression's mean outcome, as a clause."""
    found = [float(np.mean(c.outcomes)) for c in others if c.ddim_steps == 0]
    return f"; regression, without denoising, reaches {found[0]:.2f}" if found else ""


def _fit(clock: Clock, control_dt_s: float) -> str:
    """Says where latency cannot tell budgets apart."""
    fits = all(delay_ticks(slow_ms(p), control_dt_s) <= 1 for p in clock.profiles)
    if clock.name == "paused" or not fits:
        return ""
    return f"; all budgets fit in one control tick ({1000 * control_dt_s:g} ms)"


def _print(result: dict[str, Any]) -> None:
    print_records(result["records"])
    for advice in result["recommendations"]:
        print(f"{clock_label(advice)}: {headline(advice)}: {advice['reason']}")


def _films(
    policies: Sequence[Policy], clock: Clock, advice: dict[str, Any]
) -> list[tuple[Policy, str, LatencyProfile]]:
    """The cheapest budget, the recommended one and the dearest, on the last clock."""
    ddim = [i for i, p in enumerate(policies) if not (p.chain.ddpm or p.regression)]
    ends = {f(ddim, key=lambda i: policies[i].network_evals) for f in (min, max)}
    chosen = [i for i in ddim if i in ends or policies[i].chain.name == advice["name"]]
    return [(policies[i], clock.name, clock.profiles[i]) for i in chosen]
