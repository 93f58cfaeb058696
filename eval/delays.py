"""`diffpolicy delays`: budgets and strategies for late chunks, by the delay of every chunk."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from diffpolicy.control.latency import LatencyProfile, constant_ticks, random_ticks
from diffpolicy.terminal.output import say, wrapped

from .compare import compare
from .delays_config import DelaysConfig
from .measure.budgets import load_budgets
from .measure.decisions import AgainstDrop
from .measure.description import Budget, describe
from .measure.evaluator import Evaluator
from .measure.profiles import check_source
from .measure.provenance import set_threads
from .measure.result_files import DelaysResult
from .measure.results import BudgetResult, Metric
from .measure.run import results_folder
from .report.products import check_outputs, save
from .sweep import candidate_of, cost, metric_of

DROP = "drop"
MARGIN = 0.05  # of a p-value that is not told
Pattern = tuple[int | None, Sequence[LatencyProfile]]
"""(constant ticks, the profile of each policy)."""


def delays(config: DelaysConfig) -> DelaysResult:
    """Run the same episodes at every delay; write delays.json, delays.png, delays.html and CSV."""
    set_threads(config.threads)
    out = results_folder(config, "delays")
    policies = load_budgets(config)
    check_source(policies, config)
    with Evaluator(config, policies[0], out / "episodes.jsonl") as evaluator:
        for policy in policies:
            say(wrapped(describe(policy).line))
            evaluator.prepare(policy, ["simulated"])
        evaluator.tell_engines()
        check_outputs(DelaysResult, out / "delays.json")
        patterns = patterns_of(config, evaluator, policies)
        rows = _episodes(evaluator, policies, patterns)
        metric = metric_of("auto", [row for of_pattern in rows for row in of_pattern])
        result = DelaysResult(
            provenance=evaluator.provenance(),
            rows=[row for of_pattern in rows for row in of_pattern],
            comparisons=[
                difference
                for of_pattern in rows
                for difference in against_drop(policies, of_pattern, metric, evaluator.paired)
            ],
        )
        save(result, out / "delays.json")
        evaluator.kept.remove()
    return result


def patterns_of(
    config: DelaysConfig, evaluator: Evaluator, policies: Sequence[Budget]
) -> list[Pattern]:
    """Constant delays, increasing; then random ones; then those of latencies."""
    dt, count = evaluator.options.control_dt_s, len(policies)
    found: list[Pattern] = [
        (ticks, [constant_ticks(ticks, dt)] * count) for ticks in sorted(set(config.ticks))
    ]
    if config.random_ticks:
        found.append((None, [random_ticks(*config.random_ticks, dt)] * count))
    if config.with_latencies:
        found.append((None, evaluator.profiles(policies, config, ["simulated"])))
    return found


def _episodes(
    evaluator: Evaluator, policies: Sequence[Budget], patterns: Sequence[Pattern]
) -> list[list[BudgetResult]]:
    """For each pattern, one row for each policy."""
    rows: list[list[BudgetResult]] = [[] for _ in patterns]
    with evaluator.progress(len(patterns) * len(policies)):
        for i, policy in enumerate(policies):  # in this order workers keep the policy's engine
            for (ticks, profiles), of_pattern in zip(patterns, rows, strict=True):
                row, _ = evaluator.evaluate(policy, "simulated", profiles[i])
                of_pattern.append(replace(row, ticks=ticks))
    return rows


def against_drop(
    policies: Sequence[Budget], rows: Sequence[BudgetResult], metric: Metric, paired: bool
) -> Iterator[AgainstDrop]:
    """The difference of each row to the same budget with `--late drop`, if that was evaluated."""
    dropped = {
        _budget(p): row for p, row in zip(policies, rows, strict=True) if p.late.text == DROP
    }
    for policy, row in zip(policies, rows, strict=True):
        reference = dropped.get(_budget(policy), row)
        if reference is row:
            continue
        ours, theirs = (candidate_of(r, metric, cost(r)) for r in (row, reference))
        found = compare(ours, theirs, MARGIN, paired)
        yield AgainstDrop(
            delays=row.latency_source,
            name=row.name,
            reference=reference.name,
            metric=metric,
            difference=found.difference,
            difference_ci=found.difference_ci,
            p_mcnemar=found.p_mcnemar,
        )


def _budget(policy: Budget) -> tuple[object, ...]:
    """A policy without its strategy for late chunks."""
    about = describe(policy)
    sampling = getattr(policy, "sampling", None)
    return about.run, about.ddim_steps, sampling and replace(sampling, late=DROP)
