"""`diffpolicy optimise`: timesteps for a step budget of a run, chosen in closed loop."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from diffpolicy.checkpoint import Checkpoint, load_policy, policy_path, save_policy
from diffpolicy.config import Sampling
from diffpolicy.control.latency import PAUSED
from diffpolicy.errors import DiffpolicyError
from diffpolicy.files import alone_in, check_writable
from diffpolicy.policy import Policy
from diffpolicy.sampling.schedules import Schedule
from diffpolicy.terminal.output import say

from .experiment_config import OptimiseConfig
from .measure.evaluator import Evaluator, policy_of
from .measure.held_out import held_out
from .measure.optimise_results import Candidate
from .measure.provenance import set_threads
from .measure.result_files import OptimiseResult
from .measure.results import BudgetResult, Metric
from .measure.run import Run, run_of
from .measure.schedule_search import Proposal, Search
from .report.products import check_outputs, save
from .report.table import print_table
from .significance import difference_interval
from .sweep import metric_of


def optimise(config: OptimiseConfig) -> OptimiseResult:
    """Propose timesteps, run them paired, store those chosen with the run; write optimise.json."""
    set_threads(config.threads)
    run = run_of(config)
    with alone_in(Run(run).folder):
        checkpoint = load_policy(run)
        check_budgets(run, checkpoint, config.ddim_steps)
        file = Run(run).folder / "optimise" / "optimise.json"
        check_outputs(OptimiseResult, file)
        check_writable(policy_path(run))
        proposals = _proposals(config, run, checkpoint)
        return _choose(config, checkpoint, proposals, file)


def check_budgets(run: Path, checkpoint: Checkpoint, budgets: Sequence[int]) -> None:
    """Raise DiffpolicyError for a run without a choice of timesteps, or budgets it cannot have."""
    model = checkpoint.specification.model
    most = model.train_timesteps // 2
    if model.objective != "denoising":
        raise DiffpolicyError(
            f"{run} is a {model.objective} policy, whose timesteps are those of its training; "
            "expected a run with the objective denoising"
        )
    if max(budgets) > most:
        raise DiffpolicyError(f"--ddim-steps must be at most {most}, T / 2; got {max(budgets)}")


def _proposals(config: OptimiseConfig, run: Path, checkpoint: Checkpoint) -> list[Proposal]:
    """Candidates of every budget, from held-out demonstrations."""
    data = held_out(run, checkpoint, config.data)
    say(f"{data.path}: episodes: {data.reason}")
    policy = Policy(checkpoint, Sampling(1), config.device)
    search = Search(policy, data, config.windows, config.seed, max(config.ddim_steps))
    return [p for steps in sorted(set(config.ddim_steps)) for p in search.proposals(steps)]


def _choose(
    config: OptimiseConfig, checkpoint: Checkpoint, proposals: Sequence[Proposal], file: Path
) -> OptimiseResult:
    policies = [policy_of(config, checkpoint, p.sampling) for p in proposals]
    with Evaluator(config, policies[0], file.with_name("episodes.jsonl")) as evaluator:
        for policy in policies:
            evaluator.prepare(policy, ["paused"])
        evaluator.tell_engines()
        with evaluator.progress(len(policies)):
            rows = [evaluator.evaluate(policy, "paused", PAUSED)[0] for policy in policies]
        metric = metric_of("auto", rows)
        candidates = judge(proposals, rows, metric, evaluator.paired)
        result = OptimiseResult(
            provenance=evaluator.provenance(), rows=rows, outcome=metric, candidates=candidates
        )
        print_candidates(candidates)
        store(config, checkpoint, [tuple(c.timesteps) for c in candidates if c.chosen])
        save(result, file)  # last: where it is, the schedules are stored
        evaluator.kept.remove()
    return result


def judge(
    proposals: Sequence[Proposal], rows: Sequence[BudgetResult], metric: Metric, paired: bool
) -> list[Candidate]:
    """Candidates with differences to trailing; one of each budget is chosen.

    Trailing is kept unless the 95 % interval of the difference of another lies above 0; of several
    such candidates the one with the largest mean is chosen, then that of the least error.
    """
    outcomes = [np.array(getattr(row.outcomes, metric), float) for row in rows]
    found: list[Candidate] = []
    for steps in dict.fromkeys(p.steps for p in proposals):
        at = [i for i, p in enumerate(proposals) if p.steps == steps]
        usual = next(i for i in at if proposals[i].origin == "trailing")
        of_budget = []
        for i in at:
            interval = difference_interval(outcomes[i], outcomes[usual], paired)
            of_budget.append(
                Candidate(
                    name=rows[i].name,
                    ddim_steps=steps,
                    origin=proposals[i].origin,
                    timesteps=list(proposals[i].times),
                    error=proposals[i].error,
                    mean=float(outcomes[i].mean()),
                    difference=float(outcomes[i].mean() - outcomes[usual].mean()),
                    difference_ci=interval,
                )
            )
        better = [c for c in of_budget if c.difference_ci and c.difference_ci[0] > 0]
        trailing = of_budget[at.index(usual)]
        best = max(better, key=lambda c: (c.mean, -c.error), default=trailing)
        found += [replace(c, chosen=c is best) for c in of_budget]
    return found


def print_candidates(candidates: Sequence[Candidate]) -> None:
    """The table of candidates: terminal error, mean outcome and difference to trailing."""
    titles = ["steps", "timesteps", "origin", "error", "mean", "- trailing", "95 % interval", ""]
    print()
    print_table(titles, [_cells(c) for c in candidates])


def _cells(c: Candidate) -> list:
    times = " ".join(map(str, c.timesteps))
    ci = c.difference_ci
    interval = f"{ci[0]:+.3f} to {ci[1]:+.3f}" if ci else None
    chosen = "chosen" if c.chosen else ""
    mean, difference = f"{c.mean:.3f}", f"{c.difference:+.3f}"
    return [c.ddim_steps, times, c.origin, f"{c.error:.4f}", mean, difference, interval, chosen]


def store(config: OptimiseConfig, checkpoint: Checkpoint, chosen: Sequence[Schedule]) -> None:
    """Write the schedules into the run, in place of those of the same numbers of steps."""
    specification = checkpoint.specification
    by_steps = {len(times): times for times in (*specification.schedules, *chosen)}
    schedules = tuple(by_steps[steps] for steps in sorted(by_steps))
    changed = replace(checkpoint, specification=replace(specification, schedules=schedules))
    save_policy(policy_path(run_of(config)), changed)
    steps = " or ".join(map(str, sorted(by_steps)))
    print(f"stored with {config.run}: --grid optimised --ddim-steps {steps}")
