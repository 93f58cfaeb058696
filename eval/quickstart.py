"""`diffpolicy quickstart`: record, train, sweep and report on Balance-v0, from nothing."""

from pathlib import Path

from diffpolicy.control import latency
from diffpolicy.terminal.output import say

from .config import EvalConfig, SweepConfig
from .evaluate import evaluate_budget
from .experiment_config import QuickstartConfig
from .measure.description import describe
from .measure.evaluator import Evaluator
from .measure.recipe import Recipe, make_run
from .measure.result_files import Options, read_sweep
from .measure.timing import measure
from .sweep import Clock, open_evaluator, prepare_budgets, run_sweep
from .videos.evaluation import FOLDER

ENVIRONMENT = "diffpolicy.envs:Balance-v0"
BATCH = 64  # each of two workers has 50 of 100 episodes
FIRST: Options = {"ddim_steps": 4, "episodes": 16}  # of the first look
RECORDING, LOOK, SWEEP = 0.3, 0.3, 2.7  # minutes of the defaults on two quiet cores, measured


def quickstart(config: QuickstartConfig) -> None:
    """Make demonstrations.zarr, run, first, sweep.json and report.html in OUT.

    A second call continues.
    """
    say(plan(config))
    training = {"minutes": config.minutes, "threads": config.threads}
    recipe = Recipe(ENVIRONMENT, config.demonstrations, training)
    run = make_run(recipe, config.out, config.seed)
    first_look(run, config.out / "first", config.threads)
    together = min(config.episodes, BATCH)
    sweep = SweepConfig(
        run=run,
        ddim_steps=config.ddim_steps,
        episodes=config.episodes,
        out=config.out,
        envs=together,
        batch=together,
        margin=config.margin,
        seed=100_000 + config.seed,
        latency_seconds=config.latency_seconds,
        threads=config.threads,
        videos=2,
    )
    policies = prepare_budgets(sweep)
    with open_evaluator(sweep, policies) as evaluator:
        if _is_finished(sweep, evaluator):
            print(f"{config.out}/report.html is finished; delete sweep.json there to measure again")
            return
        measured = evaluator.measured(
            policies, sweep, lambda: measure(policies, config.latency_seconds)
        )
        declared = [latency.declared(config.ms_per_step, describe(p).cost) for p in policies]
        clocks = [Clock("simulated", profiles) for profiles in (measured, declared)]
        run_sweep(sweep, evaluator, policies, [Clock("paused", measured), *clocks])


def plan(config: QuickstartConfig) -> str:
    """Time that the whole takes, and when there is something to look at."""
    defaults = QuickstartConfig()
    recording = RECORDING * config.demonstrations / defaults.demonstrations
    first = recording + 2 * config.minutes + LOOK
    evaluated = config.episodes * sum(config.ddim_steps)
    sweep = SWEEP * evaluated / (defaults.episodes * sum(defaults.ddim_steps))
    return (
        f"plan for two quiet cores: a first video in {config.out}/first after {first:.1f} minutes, "
        f"the report after {first + sweep:.1f}"
    )


def first_look(run: Path, out: Path, threads: int | None) -> None:
    """Evaluate a few episodes and film the first one, unless both are done."""
    result = out / "eval.json"
    if not (result.exists() and (out / FOLDER).exists()):
        evaluate_budget(EvalConfig(run=run, json=result, video=1, threads=threads, **FIRST))


def _is_finished(sweep: SweepConfig, evaluator: Evaluator) -> bool:
    """True if the folder holds a result of the same sweep whose latencies nothing disturbed."""
    assert sweep.out is not None
    path = sweep.out / "sweep.json"
    if not path.exists():
        return False
    found, wanted = read_sweep(path), evaluator.provenance()
    same = found.provenance.checkpoint == wanted.checkpoint
    same &= found.provenance.seeds == wanted.seeds and found.provenance.margin == sweep.margin
    same &= set(sweep.ddim_steps) <= {row.ddim_steps for row in found.rows}
    return same and not any(row.load == "disturbed" for row in found.rows)
