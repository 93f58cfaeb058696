"""`diffpolicy quickstart`: record, train, sweep and report on Balance-v0, from nothing."""

from diffpolicy.control import latency

from .config import QuickstartConfig, SweepConfig
from .measure.budgets import load_budgets
from .measure.recipe import Recipe, make_run
from .measure.timing import measure
from .sweep import Clock, open_world, run_sweep

ENVIRONMENT = "diffpolicy.envs:Balance-v0"
BATCH = 64  # room for what each of two workers has of 100 episodes


def quickstart(config: QuickstartConfig) -> None:
    """DIR/demonstrations.zarr, DIR/run, DIR/sweep.json, DIR/report.html; a second call goes on."""
    recipe = Recipe(ENVIRONMENT, config.demonstrations, {"minutes": config.minutes})
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
    )
    policies = load_budgets(sweep)
    with open_world(sweep, policies) as world:
        measured = world.measured(
            policies, sweep, lambda: measure(policies, config.latency_seconds)
        )
        declared = [latency.declared(config.ms_per_step, p.network_evals) for p in policies]
        clocks = [Clock("simulated", profiles) for profiles in (measured, declared)]
        run_sweep(sweep, world, policies, [Clock("paused", measured), *clocks])
