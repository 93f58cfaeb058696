"""`diffpolicy suite`: one protocol over our tasks, from nothing to one report."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from diffpolicy.checked import NOT_EMPTY, Range, read_json, validate
from diffpolicy.checkpoint import load_policy
from diffpolicy.config import Sampling
from diffpolicy.control.latency import PAUSED
from diffpolicy.device import choose_device
from diffpolicy.errors import DiffpolicyError
from diffpolicy.files import check_writable, write_bytes, write_text

from .config import SuiteConfig, SweepConfig
from .evaluate import World, policy_of
from .measure.recipe import Recipe, make_run
from .report.plots import film_strip, png
from .report.suite_page import print_suite, suite_plot, tables_of, write_suite_report
from .sweep import sweep

TASKS = ("PushT-v0", "Balance-v0", "Detour-v0", "Catch-v0")
BUDGETS = [1, 2, 4, 8, 16, 32, 100]
PROTOCOLS: dict[str, dict[str, Any]] = {
    "quick": {
        "demonstrations": 100,
        "training": {"minutes": 7.0},
        "evaluation": {"episodes": 200, "seed": 100_000, "ddim_steps": BUDGETS, "margin": 0.05},
        "seed": 0,
    },
    "full": {  # for a GPU
        "demonstrations": 500,
        "training": {"minutes": 60.0, "denoiser": "unet"},
        "evaluation": {"episodes": 500, "seed": 100_000, "ddim_steps": BUDGETS, "margin": 0.05},
        "seed": 0,
    },
}


@dataclass(frozen=True)
class Outcomes:
    """Endings of the episodes of a budget."""

    success: Annotated[list[int], Range(0, 1), NOT_EMPTY]
    score: Annotated[list[float], NOT_EMPTY]


@dataclass(frozen=True)
class Record:
    """The part of a sweep's record that the suite reads."""

    name: str
    clock: str
    outcomes: Outcomes


@dataclass(frozen=True)
class Advice:
    """The part of a recommendation that the suite reads."""

    name: str | None
    reason: str
    regression_suffices: bool


@dataclass(frozen=True)
class Swept:
    """The part of a sweep.json that the suite reads."""

    records: Annotated[list[Record], NOT_EMPTY]
    recommendation: Advice


FILES = ("protocol.json", "suite.json", "suite.png", "suite.html")


def suite(config: SuiteConfig) -> dict[str, Any]:
    """Runs what is not there yet; writes suite.json, suite.png and suite.html; the result."""
    protocol = {**PROTOCOLS[config.budget], "device": choose_device(config.device).type}
    for name in FILES:
        check_writable(config.out / name)
    _keep_protocol(config.out / "protocol.json", protocol)
    tasks = {task: _task(task, config, protocol) for task in TASKS}
    result = {"budget": config.budget, "protocol": protocol, "tasks": tasks}
    write_text(config.out / "suite.json", json.dumps(result, indent=1))
    tables = tables_of(result)
    plot = png(suite_plot(result, tables))
    write_bytes(config.out / "suite.png", plot)
    films = {task: (config.out / task / "film.png").read_bytes() for task in TASKS}
    write_suite_report(config.out / "suite.html", result, tables, plot, films)
    print_suite(result, tables)
    print(f"wrote suite.json, suite.png and suite.html to {config.out}")
    return result


def _keep_protocol(path: Path, protocol: dict[str, Any]) -> None:
    """A folder belongs to one protocol."""
    before = validate(dict[str, Any], read_json(path), str(path)) if path.exists() else protocol
    if changed := {k: before.get(k) for k in protocol if before.get(k) != protocol[k]}:
        asked = {name: protocol[name] for name in changed}
        raise DiffpolicyError(f"{path} says {changed}, not {asked}; choose another --out")
    write_text(path, json.dumps(protocol, indent=1))


def _task(task: str, config: SuiteConfig, protocol: dict[str, Any]) -> dict[str, Any]:
    """The sweep of one task, and a film of its dearest budget; whatever is there is kept."""
    folder = config.out / task
    recipe = Recipe(
        env=f"diffpolicy.envs:{task}",
        demonstrations=protocol["demonstrations"],
        training={**protocol["training"], "device": config.device, "threads": config.threads},
    )
    done, film = folder / "sweep.json", folder / "film.png"
    swept = SweepConfig(
        run=folder / "run",
        out=folder,
        device=config.device,
        threads=config.threads,
        **protocol["evaluation"],
    )
    if not done.exists():
        print(f"{task}:")
        make_run(recipe, folder, protocol["seed"])
        sweep(swept)
    if not film.exists():
        write_bytes(film, _film(swept))
    result = read_json(done)
    validate(Swept, result, str(done), others=True)
    return result


def _film(config: SweepConfig) -> bytes:
    """A picture of the first episode at the largest budget while the world waits."""
    policy = policy_of(config, load_policy(config.run), Sampling(max(config.ddim_steps)))
    with World(config, policy) as world:
        figure, _ = film_strip(world, policy, PAUSED, world.seeds.start)
    return png(figure)
