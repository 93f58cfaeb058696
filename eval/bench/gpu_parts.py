"""Parts of eval/gpu.py: engine checks, latencies, training rate, and the sweep of a large run."""

import argparse
import subprocess
import sys
import time
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch

from diffpolicy.checkpoint import TRAINING_FILE
from diffpolicy.config import RecordConfig, Sampling
from diffpolicy.engines import build_encoder
from diffpolicy.engines.auto import ENCODER, verify, verify_stages
from diffpolicy.errors import DiffpolicyError
from diffpolicy.policy import Policy
from diffpolicy.record import record
from diffpolicy.training.choices import choose_ways
from diffpolicy.training.config import TrainConfig
from diffpolicy.training.preparation import prepare
from diffpolicy.training.train import Trainer, train

from ..config import SweepConfig
from ..gpu import HUMAN
from ..measure.diffusers_loop import DiffusersTraining
from ..measure.nets import NETS, fresh_checkpoint
from ..measure.result_files import json_of
from .gpu_latency import latencies, now_s
from .gpu_plan import DRY, REAL, ROOT, Found, Plan, Result

PUSHT, BALANCE = "diffpolicy.envs:PushT-v0", "diffpolicy.envs:Balance-v0"
FEW = 10  # steps, where engines are compared
MANY = 64  # samples of a batch
TEST_PROCESSES = 4  # which share the GPU
KEPT = ("name", "clock", "success_rate", "score_mean", "score_ci", "latency_ms", "load")


def check(result: Result, plan: Plan) -> None:
    """Compare the engine with eager at every precision and two batch sizes; run the GPU tests."""
    k = max(k for k in plan.budgets if k <= FEW)
    for net in (*plan.nets, plan.image_net):
        for precision in plan.precisions:
            for batch in (1, MANY):
                name = f"{net}, {plan.engine}, {precision}, batch {batch}"
                result.once(name, _difference, plan, net, k, plan.engine, precision, batch)
    result.once("tests", _tests, ROOT / plan.tests, result.path.with_name("gpu_tests.txt"))
    if plan.compiled:
        result.once("mlp, compiled", _difference, plan, "mlp", 2, "compiled", "float32", 1)
        result.once(f"{plan.image_net}, encoder compiled", _compiled_encoder, plan)


def _difference(plan: Plan, net: str, k: int, engine: str, precision: str, batch: int) -> Found:
    checkpoint = fresh_checkpoint(net)
    policy = Policy(checkpoint, Sampling(k), plan.device, engine=engine, precision=precision)
    return {"max_abs_diff": verify_stages(policy.engine(batch), policy.job(batch))}


def _compiled_encoder(plan: Plan) -> Found:
    job = Policy(fresh_checkpoint(plan.image_net), Sampling(1), plan.device).job()
    return {"max_abs_diff": verify(build_encoder("compiled", job), job, ENCODER)}


def _tests(folder: Path, log: Path) -> Found:
    """Run the GPU tests. Returns pytest's last line; raises with the names that failed."""
    options = ["-m", "gpu", "-v", "--continue-on-collection-errors", "-p", "no:cacheprovider"]
    options += ["-o", "addopts=", "-n", str(TEST_PROCESSES)]
    files = [file for file in folder.rglob("test_*.py") if "mark.gpu" in file.read_text()]
    command = [sys.executable, "-m", "pytest", *options, *map(str, sorted(files))]
    with log.open("w") as file:
        done = subprocess.run(command, cwd=ROOT, stdout=file, stderr=file, check=False)
    lines = [line for line in log.read_text().splitlines() if line.strip()] or ["no output"]
    if done.returncode:
        failures = [line for line in lines if line.startswith(("FAILED", "ERROR"))]
        raise DiffpolicyError("; ".join([*failures, lines[-1]]))
    return {"pytest": lines[-1]}


def training(result: Result, plan: Plan, config: TrainConfig) -> None:
    """Measure training steps per second of our trainer and of diffusers' loop, interleaved."""
    for name in plan.models:
        result.once(name, _steps_per_s, plan, config, name)


def _steps_per_s(plan: Plan, config: TrainConfig, name: str) -> Found:
    model = replace(NETS[name].model, prediction="epsilon")
    prepared = prepare(config)
    prepared = replace(prepared, specification=replace(prepared.specification, model=model))
    device = torch.device(plan.device)
    trainer = Trainer(config, prepared, device)
    choose_ways(config, trainer.learner, trainer.gradient)
    spec, windows = prepared.specification, prepared.training
    today = DiffusersTraining(spec, windows, device, plan.batch, plan.loader_workers)
    learner = trainer.learner
    ours = partial(learner.learn, trainer.windows, plan.batch, 0.5)
    steps = {"ours": ours, "diffusers": today.learn}
    rates: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(1 + plan.blocks):
        for kind, step in steps.items():
            begin = now_s(plan.device)
            for _ in range(plan.block_steps):
                step()
            rates[kind].append(plan.block_steps / (now_s(plan.device) - begin))
    counted = {kind: found[1:] for kind, found in rates.items()}  # the first one warms up
    medians = {kind: median(found) for kind, found in counted.items()}
    ratio = medians["ours"] / medians["diffusers"]
    about = {"precision": learner.precision, "cuda_graph": learner.graph is not None}
    about |= {"batch": plan.batch, "steps_per_s": medians}
    return {**about, "ratio": ratio, "blocks": counted}


def pusht(result: Result, plan: Plan, config: TrainConfig) -> None:
    """Train or resume, then sweep with this GPU's latencies: few episodes first, then many."""
    begin = time.monotonic()
    train(config)
    result.found["training"] = {**dict(plan.training), "seconds": time.monotonic() - begin}
    result.write(complete=False)
    for episodes in plan.episodes:
        out = result.path.parent / "gpu_sweep"
        result.once(f"{episodes} episodes", _sweep, plan, config.out, out, episodes)


def _sweep(plan: Plan, run: Path, out: Path, episodes: int) -> Found:
    from ..sweep import sweep

    config = SweepConfig(
        run=run,
        ddim_steps=plan.sweep_budgets,
        episodes=episodes,
        envs=16,
        batch=16,
        workers=plan.workers,
        device=plan.device,
        engine=plan.engine,
        latency_seconds=1.0,
        ddpm=False,
        regression="none",
        outcome="score",
        pictures=False,
        out=out,
    )
    found = sweep(config)
    rows = map(json_of, found.rows)
    records = [{name: row[name] for name in KEPT} for row in rows]
    return {"records": records, "recommendations": list(map(asdict, found.recommendations))}


def _training_config(plan: Plan, options: argparse.Namespace) -> TrainConfig:
    """Training on the human Push-T set, or on two recorded episodes in a dry run."""
    run = options.work / "run"
    resume = (run / TRAINING_FILE).exists()
    given: dict[str, Any] = {"out": run, "device": plan.device, "batch": plan.batch}
    given |= {"resume": resume, **dict(plan.training)}
    if not options.dry_run:
        return TrainConfig(data=options.demos / HUMAN, env=PUSHT, **given)
    record(RecordConfig(BALANCE, 2, options.work / "balance.zarr"))
    return TrainConfig(data=options.work / "balance.zarr", **given)


def main() -> int:
    """Run one part. Returns 0 if no measurement failed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("part", choices=("check", "latency", "training", "pusht"))
    for name in ("--out", "--work", "--demos"):
        parser.add_argument(name, type=Path)
    for name in ("--again", "--dry-run"):
        parser.add_argument(name, action="store_true")
    options = parser.parse_args()
    plan = DRY if options.dry_run else REAL
    if plan.device == "cuda" and not torch.cuda.is_available():
        print("torch sees no CUDA device here; --dry-run needs none", file=sys.stderr)
        return 2
    result = Result(options.part, options, plan)
    if options.part in ("check", "latency"):
        {"check": check, "latency": latencies}[options.part](result, plan)
    else:
        part = {"training": training, "pusht": pusht}[options.part]
        part(result, plan, _training_config(plan, options))
    result.write(complete=not result.failed)
    return int(result.failed)


if __name__ == "__main__":
    sys.exit(main())
