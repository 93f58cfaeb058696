"""`diffpolicy suite`: one protocol over all registered tasks, from demonstrations to a report."""

import json
from importlib import import_module
from pathlib import Path

from diffpolicy.checked import read_json, validate
from diffpolicy.checkpoint import load_policy
from diffpolicy.cluster.jobs import Job, connect, gpus_for, run_jobs, whole_machine
from diffpolicy.config import Sampling
from diffpolicy.control.latency import PAUSED
from diffpolicy.device import choose_device
from diffpolicy.errors import DiffpolicyError
from diffpolicy.files import check_writable, write_bytes, write_text
from diffpolicy.terminal.output import say
from diffpolicy.terminal.progress import progress_bar

from .config import SweepConfig
from .experiment_config import SuiteConfig
from .measure.evaluator import Evaluator, policy_of
from .measure.frames import frames_of
from .measure.recipe import Recipe, make_run
from .measure.result_files import Options, SuiteResult, SweepResult, read_sweep
from .measure.run import run_of
from .report.products import check_outputs, save
from .report.suite_page import STRIPS, strip_of
from .sweep import sweep
from .videos.pictures import draw

SWEPT, ENVIRONMENTS = "sweep.json", "diffpolicy.envs"
TASKS = tuple(import_module(ENVIRONMENTS).TASKS)  # by name, as gymnasium.make imports it
BUDGETS = [1, 2, 4, 8, 16, 32, 100]
PROTOCOLS: dict[str, Options] = {
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


def suite(config: SuiteConfig) -> SuiteResult:
    """Run the sweeps that are absent; write suite.json, suite.png, suite.html and CSV."""
    protocol = {**PROTOCOLS[config.budget], "device": choose_device(config.device).type}
    check_writable(config.out / "protocol.json")
    check_outputs(SuiteResult, config.out / "suite.json")
    _keep_protocol(config.out / "protocol.json", protocol)
    if config.on == "ray":
        _on_ray(config, protocol)
    tasks = {task: _task(task, config, protocol) for task in TASKS}
    result = SuiteResult(budget=config.budget, protocol=protocol, tasks=tasks)
    save(result, config.out / "suite.json")
    return result


def _on_ray(config: SuiteConfig, protocol: Options) -> None:
    """The absent sweeps, each on a whole machine of a Ray cluster, since it measures latencies."""
    ray = connect()
    absent = [task for task in TASKS if not (config.out / task / SWEPT).exists()]
    jobs = [Job(task, _task, (task, config, protocol), folder=config.out) for task in absent]
    results = run_jobs(jobs, whole_machine(ray), gpus_for(ray, config.device))
    for _ in progress_bar(results, desc="suite", total=len(jobs), unit="task"):
        pass


def _keep_protocol(path: Path, protocol: Options) -> None:
    """Write the protocol of the folder, or check that it is the same."""
    before = validate(Options, read_json(path), str(path)) if path.exists() else protocol
    if changed := {k: before.get(k) for k in protocol if before.get(k) != protocol[k]}:
        asked = {name: protocol[name] for name in changed}
        raise DiffpolicyError(f"{path} says {changed}, not {asked}; try another --out")
    write_text(path, json.dumps(protocol, indent=1))


def _task(task: str, config: SuiteConfig, protocol: Options) -> SweepResult:
    """The sweep of one task and a picture of its largest budget, unless they exist."""
    folder = config.out / task
    recipe = Recipe(
        env=f"{ENVIRONMENTS}:{task}",
        demonstrations=protocol["demonstrations"],
        training={**protocol["training"], "device": config.device, "threads": config.threads},
    )
    done = folder / SWEPT
    swept = SweepConfig(
        run=folder / "run",
        out=folder,
        device=config.device,
        threads=config.threads,
        **protocol["evaluation"],
    )
    if not done.exists():
        say(f"{task}:")
        make_run(recipe, folder, protocol["seed"])
        sweep(swept)
    if not strip_of(folder):
        write_bytes(folder / STRIPS[0], _strip(swept))
    return read_sweep(done)


def _strip(config: SweepConfig) -> bytes:
    """A picture of the first episode at the largest budget with zero latency."""
    policy = policy_of(config, load_policy(run_of(config)), Sampling(max(config.ddim_steps)))
    with Evaluator(config, policy) as evaluator:
        shot = frames_of(evaluator, policy, PAUSED, evaluator.seeds.start)
        return draw(shot, evaluator.options.control_dt_s)
