"""`diffpolicy train`: one run, or one for each training seed.

Small networks of several seeds are trained together, where a measurement finds that faster.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace

import torch

from diffpolicy.checkpoint import TRAINING_FILE
from diffpolicy.cluster.jobs import Job, connect, gpus_for, run_jobs
from diffpolicy.data.demonstrations import contents
from diffpolicy.errors import DiffpolicyError
from diffpolicy.terminal.output import say
from diffpolicy.terminal.progress import progress_bar
from diffpolicy.training.choices import choose_precision
from diffpolicy.training.config import SEED_FOLDER, TrainConfig
from diffpolicy.training.distributed import check_alone, processes
from diffpolicy.training.log import Log
from diffpolicy.training.measuring import median_seconds
from diffpolicy.training.precision import LEAST_GAIN
from diffpolicy.training.signals import stop_on_signal
from diffpolicy.training.start import check_options
from diffpolicy.training.together import Together
from diffpolicy.training.train import (
    LOG_EVERY,
    SAVE_EVERY_S,
    Trainer,
    fit,
    ready,
    run_folder,
    tell_end,
    tell_start,
    train,
)


def command(config: TrainConfig) -> None:
    """Train the run, or a run OUT/seed-K for each of --seeds. Raises as `train` does."""
    if config.on == "ray":
        check_alone("train --on ray")
        train_on_ray(checked_runs(config))
        return
    with processes() as ranks:
        runs = checked_runs(config)
        if len(runs) > 1 and not config.evaluates and ranks.count == 1 and fit_together(runs):
            return
        for run in runs:
            fit(*ready(run, ranks), ranks)


def checked_runs(config: TrainConfig) -> list[TrainConfig]:
    """The options of each run. Raises DiffpolicyError for one that cannot start."""
    runs = [*of_seeds(config)] if config.seeds else [config]
    for run in runs:
        check_options(run)
    return runs


def train_on_ray(runs: Sequence[TrainConfig]) -> None:
    """Each run in a job of a Ray cluster, on --threads threads, by default one.

    A run whose machine is lost goes on elsewhere from its last checkpoint.
    """
    config = runs[0]
    contents(config.data)  # refuse what is no data set before folders are made
    ray = connect()
    cpus = config.threads or 1
    for run in runs:
        run.out.mkdir(parents=True, exist_ok=True)
    jobs = [
        Job(f"train {run.out}", resumed, (replace(run, threads=cpus),), folder=run.out)
        for run in runs
    ]
    results = run_jobs(jobs, cpus, gpus_for(ray, config.device))
    for _ in progress_bar(results, desc="train", total=len(jobs), unit="run"):
        pass


def resumed(config: TrainConfig) -> None:
    """Train, from the run's checkpoint if it has one."""
    train(replace(config, resume=(config.out / TRAINING_FILE).exists()))


def of_seeds(config: TrainConfig) -> Iterator[TrainConfig]:
    """The options of each seed's run. Raises DiffpolicyError for a seed that is given twice."""
    if len(set(config.seeds)) < len(config.seeds):
        raise DiffpolicyError(f"--seeds expects different seeds; got {list(config.seeds)}")
    for seed in config.seeds:
        yield replace(config, seed=seed, seeds=(), out=config.out / f"{SEED_FOLDER}{seed}")


def fit_together(runs: Sequence[TrainConfig]) -> bool:
    """Train all runs at once; False, with nothing learnt, if that is impossible or not faster.

    Pictures are read for one run only, as together they would need the memory of all.
    """
    first = Trainer(*ready(runs[0]))
    if first.learner.crops:
        return False
    trainers = [first, *(Trainer(*ready(run)) for run in runs[1:])]
    with ExitStack() as folders:
        for trainer in trainers:
            folders.enter_context(run_folder(trainer.config))
            trainer.restore()
        if not alike(trainers):
            return False
        choose_precision(first.config, first.learner, first.gradient)
        for trainer in trainers:
            trainer.learner.precision = first.learner.precision
        together = Together([trainer.learner for trainer in trainers])
        if not faster(trainers, together):
            return False
        tell_start(first.prepared, first.device)
        stopped = learn(trainers, together)
    if stopped:
        print(f"stopped at step {together.step}; checkpoints saved, --resume continues")
        raise KeyboardInterrupt
    for trainer in trainers:
        tell_end(trainer)
    return True


def alike(trainers: Sequence[Trainer]) -> bool:
    """True if networks are at the same step of the same training."""
    first = trainers[0].learner
    return all(
        (trainer.learner.step, trainer.learner.precision) == (first.step, first.precision)
        and trainer.prepared.batch == trainers[0].prepared.batch
        for trainer in trainers
    )


def faster(trainers: Sequence[Trainer], together: Together) -> bool:
    """Measure the gradients of all seeds at once against those of one; say the result."""
    first = trainers[0]
    windows = [trainer.windows for trainer in trainers]
    alone = median_seconds(first.gradient)
    at_once = median_seconds(lambda: float(together.backward(windows, first.prepared.batch).sum()))
    gain = len(trainers) * alone / at_once
    order = "together" if gain >= LEAST_GAIN else "one after the other"
    say(
        f"seeds: {order}; a step of all {len(trainers)} together takes {at_once / alone:.2f} times "
        "as long as that of one here"
    )
    return gain >= LEAST_GAIN


def learn(trainers: Sequence[Trainer], together: Together) -> bool:
    """Train to the end, saving now and then; True if a signal ended it early."""
    first, count = trainers[0], len(trainers)
    windows = [trainer.windows for trainer in trainers]
    begin, saved_at = time.monotonic() - first.elapsed_s, time.monotonic()
    total, counted = torch.zeros(count, device=first.device), 0
    target = first.config.steps
    bar = progress_bar(
        total=target, initial=together.step, desc=f"train {count} seeds", unit="step"
    )
    with ExitStack() as opened:
        logs = [opened.enter_context(Log(t.config, together.step)) for t in trainers]
        stopped = opened.enter_context(stop_on_signal())
        opened.enter_context(bar)
        while (progress := first.progress) < 1 and not stopped:
            total += together.learn(windows, first.prepared.batch, progress)
            counted += 1
            bar.update(1)
            for trainer in trainers:
                trainer.elapsed_s = time.monotonic() - begin
            if together.step % LOG_EVERY == 0:
                losses = (total / counted).tolist()
                for trainer, log, loss in zip(trainers, logs, losses, strict=True):
                    log.write(trainer.report(loss))
                total, counted = total.zero_(), 0
            if time.monotonic() - saved_at > SAVE_EVERY_S:
                save(trainers)
                saved_at = time.monotonic()
        save(trainers)
        return bool(stopped)


def save(trainers: Sequence[Trainer]) -> None:
    """Write the checkpoints of all runs."""
    for trainer in trainers:
        trainer.save()
