"""`diffpolicy quickstart`: record, train, sweep and report on Balance-v0, from nothing."""

from diffpolicy.control import latency

from .config import SweepConfig
from .experiment_config import QuickstartConfig
from .measure.description import describe
from .measure.evaluator import Evaluator
from .measure.recipe import Recipe, make_run
from .measure.result_files import read_sweep
from .measure.timing import measure
from .sweep import Clock, open_evaluator, prepare_budgets, run_sweep

ENVIRONMENT = "diffpolicy.envs:Balance-v0"
BATCH = 64  # each of two workers has 50 of 100 episodes


def quickstart(config: QuickstartConfig) -> None:
    """Make demonstrations.zarr, run, sweep.json and report.html in OUT; a second call continues."""
    training = {"minutes": config.minutes, "threads": config.threads}
    recipe = Recipe(ENVIRONMENT, config.demonstrations, training)
    run = make_run(recipe, config.out, config.seed)
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
