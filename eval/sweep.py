"""`diffpolicy sweep`: success and latency of each step budget, and the budget to use."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from diffpolicy.cluster.episodes import stream_episodes
from diffpolicy.control.latency import PAUSED, LatencyProfile, delay_ticks, slow_ms
from diffpolicy.files import check_writable
from diffpolicy.terminal.output import say, wrapped

from .compare import Candidate, compare, recommend
from .config import SweepConfig
from .measure.budgets import combinations, describe_budgets, load_budgets
from .measure.cautions import outruns
from .measure.decisions import Decision, Recommendation
from .measure.description import Budget, describe
from .measure.evaluator import Evaluator
from .measure.profiles import check_source
from .measure.provenance import set_threads
from .measure.result_files import SweepProvenance, SweepResult
from .measure.results import COMPARATORS, BudgetResult, Metric, Profile
from .measure.run import results_folder
from .measure.runs import curves_of
from .measure.seeds import by_budget, firsts, held_over_seeds, over_seeds, values_of
from .report.products import check_outputs, print_json, save
from .report.sentences import reason
from .report.table import print_table
from .significance import ALPHA, episodes_needed
from .videos.evaluation import check_folder
from .videos.pictures import FOLDER, Shown
from .videos.sweep import see

DISCORDANCES = (0.05, 0.1, 0.2, 0.4)
FREQUENT = 0.5  # success is compared if the best budget reaches this rate, else the score


@dataclass(frozen=True)
class Clock:
    """A clock and the latency profile of each budget on it, in the order of the policies."""

    name: str
    profiles: Sequence[LatencyProfile]


def command(config: SweepConfig) -> None:
    """Sweep, or only print the plan."""
    if config.plan and config.runs:
        print_plan(config.margin, len(load_budgets(config)))
    elif config.plan:
        regression = config.regression != "none" and config.run is not None
        print_plan(config.margin, len(combinations(config)) + regression)
    else:
        sweep(config)


def sweep(config: SweepConfig) -> SweepResult:
    """Run all budgets on all clocks; write sweep.json, sweep.png, report.html and CSV."""
    policies = prepare_budgets(config)
    check_source(policies, config)
    with open_evaluator(config, policies) as evaluator:
        profiles = evaluator.profiles(firsts(policies), config, config.clocks)
        clocks = [Clock(name, profiles) for name in config.clocks]
        return run_sweep(config, evaluator, policies, clocks)


def prepare_budgets(config: SweepConfig) -> list[Budget]:
    """Set torch's threads, load the budgets and print what they are."""
    set_threads(config.threads)
    policies = load_budgets(config)
    for line in describe_budgets(config, policies):
        say(wrapped(line))
    return policies


def print_plan(margin: float, budgets: int) -> dict[float, list[int]]:
    """Paired episodes that establish non-inferiority of equals, {discordant share: counts}.

    The counts are for a power of 80 % and 90 % at ALPHA, the level of the last of several budgets,
    and for 90 % at ALPHA / budgets, the level of the first one.
    """
    aims = [(0.8, ALPHA), (0.9, ALPHA), (0.9, ALPHA / budgets)]
    plan = {
        share: [episodes_needed(share, margin, power, level) for power, level in aims]
        for share in DISCORDANCES
    }
    print(f"paired episodes that establish non-inferiority of two equals at margin {margin:g}:")
    titles = ["discordant pairs", *(f"power {power:.0%}, α {level:.2g}" for power, level in aims)]
    print_table(titles, [[f"{share:.0%}", *counts] for share, counts in plan.items()])
    print("discordant pair: an episode where exactly one of two budgets succeeds")
    print(f"{budgets} budgets share α = {ALPHA}: the first is tested at {ALPHA / budgets:.2g}")
    return plan


def open_evaluator(config: SweepConfig, policies: Sequence[Budget]) -> Evaluator:
    """The evaluator of all policies; checks environment, engines and folder before measuring."""
    diffusion = next((p for p in policies if not describe(p).regression), policies[0])
    out = results_folder(config, "sweep")
    stream = stream_episodes if config.on == "ray" else None
    evaluator = Evaluator(config, diffusion, out / "episodes.jsonl", stream)
    for policy in policies:
        evaluator.prepare(policy, config.clocks)
    evaluator.tell_engines()
    check_outputs(SweepResult, out / "sweep.json")
    if config.pictures and (out / FOLDER).exists():
        check_writable(out / FOLDER / "1.png")
    if config.videos:
        check_folder(out)
    return evaluator


def run_sweep(
    config: SweepConfig, evaluator: Evaluator, policies: Sequence[Budget], clocks: Sequence[Clock]
) -> SweepResult:
    """Run every budget on every clock; the recommendation is the one of the last clock.

    clocks: with a profile for each of the `firsts` of the policies.
    """
    out = results_folder(config, "sweep")
    rows, clocks = _episodes(evaluator, policies, clocks)
    if not config.pictures and not config.videos:
        evaluator.workers.close()  # the statistics need their memory
    policies = firsts(policies)
    metric = metric_of(config.outcome, [row for of_clock in rows for row in of_clock])
    advice = [
        _advise(config, evaluator, policies, clock, of_clock, metric)
        for clock, of_clock in zip(clocks, rows, strict=True)
    ]
    shown = _shown(policies, clocks[-1], rows[-1], advice[-1])
    seen = see(evaluator, shown, metric, config, out)
    about = {"outcome": metric, "margin": config.margin, "floor": config.floor, "on": config.on}
    result = SweepResult(
        provenance=SweepProvenance(**vars(evaluator.provenance()), **about),
        rows=[row for of_clock in rows for row in of_clock],
        profiles=_profiles(rows, clocks),
        recommendations=advice,
        recommendation=advice[-1],
        pictures=[each.picture for each in seen.pictured],
        videos=seen.videos or None,
        curves=curves_of(config) or None,
        timelines=[each.timeline for each in seen.pictured if each.timeline] or None,
    )
    evaluator.workers.close()  # drawing needs their memory
    save(result, out / "sweep.json")
    if config.json:
        print_json(result)
    evaluator.kept.remove()
    return result


def _episodes(
    evaluator: Evaluator, policies: Sequence[Budget], clocks: Sequence[Clock]
) -> tuple[list[list[BudgetResult]], list[Clock]]:
    """For each clock, one row for each budget; the clocks with the profiles used on them."""
    rows, used = [[] for _ in clocks], [[] for _ in clocks]
    with evaluator.progress(len(clocks) * len(policies)):
        for i, of_seeds in enumerate(by_budget(policies)):
            found: list[list[tuple[BudgetResult, LatencyProfile]]] = [[] for _ in clocks]
            for policy in of_seeds:  # in this order workers keep the policy's engine
                for clock, of_clock in zip(clocks, found, strict=True):
                    of_clock.append(evaluator.evaluate(policy, clock.name, clock.profiles[i]))
            for of_clock, all_rows, profiles in zip(found, rows, used, strict=True):
                all_rows.append(over_seeds([row for row, _ in of_clock]))
                profiles.append(of_clock[0][1])
    return rows, [Clock(c.name, profiles) for c, profiles in zip(clocks, used, strict=True)]


def metric_of(outcome: Literal["auto"] | Metric, rows: Sequence[BudgetResult]) -> Metric:
    """The metric of all comparisons: success, or the score where success is rare."""
    if outcome != "auto":
        return outcome
    best = max(row.success_rate for row in rows)
    return "success" if best >= FREQUENT else "score"


def _profiles(rows: Sequence[Sequence[BudgetResult]], clocks: Sequence[Clock]) -> list[Profile]:
    """Every profile that was measured or declared, without duplicates."""
    found = {
        (row.name, profile.source): np.round(profile.samples_ms, 4).tolist()
        for of_clock, clock in zip(rows, clocks, strict=True)
        for row, profile in zip(of_clock, clock.profiles, strict=True)
    }
    return [Profile(name, source, samples) for (name, source), samples in found.items()]


def _advise(
    config: SweepConfig,
    evaluator: Evaluator,
    policies: Sequence[Budget],
    clock: Clock,
    rows: Sequence[BudgetResult],
    metric: Metric,
) -> Recommendation:
    """The recommendation on one clock; on the paused one every budget meets the deadline."""
    dt = evaluator.options.control_dt_s
    costs = costs_of(policies, rows)
    late = clock.name != "paused"
    candidates = [
        candidate_of(
            row,
            metric,
            each,
            not late or not outruns(policy, profile, dt),
            whole_ticks(profile, dt) if late else None,
        )
        for policy, profile, row, each in zip(policies, clock.profiles, rows, costs, strict=True)
    ]
    if all(c.comparator_only for c in candidates):  # asked for by name
        candidates = [replace(c, comparator_only=False) for c in candidates]
    paired = evaluator.paired
    decision = recommend(candidates, config.margin, config.floor, metric, paired)
    decision = replace(decision, over_seeds=held_over_seeds(rows, decision, metric))
    decision = _on_clock(decision, clock, dt, config.accept_disturbed)
    best = max((c for c in candidates if not c.comparator_only), key=lambda c: c.mean)
    reference = next((c for c in candidates if c.name == decision.name), best)
    others = [c for c in candidates if c is not reference]
    return Recommendation(
        clock=clock.name,
        latency_source=clock.profiles[0].source,
        ddim_steps=decision.ddim_steps,
        name=decision.name,
        margin=decision.margin,
        reason=reason(decision),
        regression_suffices=decision.regression_suffices,
        comparisons=[compare(reference, other, config.margin, paired) for other in others],
        decision=decision,
    )


def costs_of(policies: Sequence[Budget], rows: Sequence[BudgetResult]) -> list[float]:
    """Evaluations of a chunk, or its median latency in ms if networks differ in their weights."""
    abouts = [describe(policy) for policy in policies]
    sizes = {about.parameters for about in abouts if about.run or not about.regression}
    return [cost(row) if len(sizes) == 1 else row.latency_ms.p50 for row in rows]


def cost(row: BudgetResult) -> int:
    """Evaluations and gradients of a chunk; the steps of a policy of others, of unknown cost."""
    evals = row.ddim_steps if row.network_evals is None else row.network_evals
    return evals + (row.gradient_evals or 0)


def whole_ticks(profile: LatencyProfile, dt_s: float) -> int:
    """Control ticks that 95 % of the chunks keep to."""
    return delay_ticks(float(np.percentile(profile.samples_ms, 95)), dt_s)


def candidate_of(
    row: BudgetResult,
    metric: Metric,
    cost: float,
    meets_deadline: bool = True,
    ticks: int | None = None,
) -> Candidate:
    """A budget as the statistics see it; one of several runs may be regression.

    Of several training seeds each episode counts once, with the mean of its outcomes.
    """
    if row.training_seeds:
        outcomes = values_of(row, metric).mean(axis=0)
    else:
        outcomes = np.array(getattr(row.outcomes, metric), bool if metric == "success" else float)
    return Candidate(
        name=row.name,
        ddim_steps=row.ddim_steps,
        cost=cost,
        meets_deadline=meets_deadline,
        outcomes=outcomes,
        comparator_only=row.comparator_only,
        ticks=ticks,
    )


def _on_clock(decision: Decision, clock: Clock, dt_s: float, accept_disturbed: bool) -> Decision:
    """The decision with the facts of its clock; none on disturbed latencies, unless accepted."""
    if clock.name == "paused":
        return decision
    fits = all(delay_ticks(slow_ms(profile), dt_s) <= 1 for profile in clock.profiles)
    disturbed = any(profile.disturbed for profile in clock.profiles)
    decision = replace(decision, one_tick_ms=1000 * dt_s if fits else None, disturbed=disturbed)
    if not disturbed or accept_disturbed:
        return decision
    return replace(decision, verdict="disturbed", ddim_steps=None, regression_suffices=False)


def _shown(
    policies: Sequence[Budget],
    clock: Clock,
    rows: Sequence[BudgetResult],
    advice: Recommendation,
) -> list[Shown]:
    """The cheapest budget, the recommended one and the most expensive, on one clock."""
    budgets = [i for i, row in enumerate(rows) if row.variant not in COMPARATORS]
    budgets = budgets or list(range(len(rows)))
    ends = {f(budgets, key=lambda i: cost(rows[i])) for f in (min, max)}
    chosen = [i for i in budgets if i in ends or rows[i].name == advice.name]
    profiles = [PAUSED] * len(rows) if clock.name == "paused" else clock.profiles
    return [Shown(policies[i], profiles[i], rows[i]) for i in chosen]
