"""Training seeds: the runs of one recipe, and the row of a budget over all of them."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from diffpolicy.checkpoint import Checkpoint, policy_path
from diffpolicy.errors import DiffpolicyError
from diffpolicy.training.config import ABSENT as OLDER
from diffpolicy.training.config import SEED_FOLDER

from ..significance import crossed_interval, rate_interval
from .decisions import BudgetMean, Decision, OverSeeds
from .description import Budget, describe
from .results import BudgetResult, Metric, Outcomes

SUMS = ("episodes", "successes", "starved_ticks", "replans", "deadline_misses", "missed_ticks")
MEANS = ("delay_ticks", "delay_error", "prefix_miss_share", "action_age_ms_p50")
MEANS += ("seam_jump", "seam_jerk", "evaluations_mean")
METRICS: tuple[Metric, Metric] = ("success", "score")
OPTIONS = ("batch", "lr", "beta2", "weight_decay", "steps", "minutes")  # of training
OPTIONS += ("observation_noise", "mirror", "validation_fraction", "colour_jitter")
ABSENT = {**OLDER, "colour_jitter": 0.0}  # from older runs
LISTS = ("failures", "far_observations", "samples_ms")


def runs_in(folder: Path) -> list[Path]:
    """The runs seed-K in a folder, by K; none if the folder is a run itself."""
    if policy_path(folder).exists():
        return []
    found = [path for path in folder.glob(f"{SEED_FOLDER}*") if policy_path(path).exists()]
    numbered = [path for path in found if path.name.removeprefix(SEED_FOLDER).isdecimal()]
    return sorted(numbered, key=lambda path: int(path.name.removeprefix(SEED_FOLDER)))


def check_recipe(folder: Path, runs: dict[Path, Checkpoint]) -> None:
    """Raise DiffpolicyError unless runs differ in their training seed, and in that alone."""
    (first, reference), *others = ((path, _recipe(run)) for path, run in runs.items())
    for path, recipe in others:
        for part, value in reference.items():
            if recipe[part] != value:
                raise DiffpolicyError(
                    f"{folder} holds runs of different recipes: {part} of {path.name} is "
                    f"{recipe[part]}, of {first.name} {value}; expected runs that differ in their "
                    "training seed; try --runs with each of them"
                )
    seeds = {path: _options(run).get("seed") for path, run in runs.items()}
    for path, seed in seeds.items():
        twin = next(other for other in seeds if seeds[other] == seed)
        if seed is not None and twin != path:
            raise DiffpolicyError(
                f"{folder} holds two runs of training seed {seed}: {twin.name} and {path.name}; "
                "expected one of each; move one of them elsewhere"
            )


def _recipe(checkpoint: Checkpoint) -> dict[str, Any]:
    """Facts that decide on the weights, but for the training seed."""
    specification = checkpoint.specification
    training, options = specification.training, _options(checkpoint)
    teacher = training.get("teacher") or {}
    return {
        "model": specification.model,
        "horizons": specification.horizons,
        "task": specification.task,
        "data": training.get("fingerprint"),
        "teacher": teacher.get("chain"),
        "encoder_weights": (training.get("encoder_weights") or {}).get("digest"),
        "step": training.get("step") if options.get("steps") else None,  # else by the clock
        **{name: options.get(name, ABSENT.get(name)) for name in OPTIONS},
    }


def _options(checkpoint: Checkpoint) -> dict[str, Any]:
    """Options of the training; none of imported policies."""
    return checkpoint.specification.training.get("config") or {}


def by_budget(policies: Sequence[Budget]) -> list[list[Budget]]:
    """The policies of each budget: one, or one for each training seed of a recipe."""
    found: dict[str, list[Budget]] = {}
    for policy in policies:
        found.setdefault(describe(policy).name, []).append(policy)
    return [*found.values()]


def firsts(policies: Sequence[Budget]) -> list[Budget]:
    """The policy of each budget, of several training seeds the first."""
    return [first for first, *_ in by_budget(policies)]


def over_seeds(rows: Sequence[BudgetResult]) -> BudgetResult:
    """The row of a budget from those of its training seeds, over the same episodes.

    Outcomes are those of the first seed, then those of the next; intervals count training seeds
    and episodes as random. Latencies are those of the first seed, whose network is as large.
    """
    if len(rows) == 1:
        return rows[0]
    outcomes = Outcomes(
        success=_joined(rows, "success"),
        score=_joined(rows, "score"),
        success_tick=_joined(rows, "success_tick") or None,
    )
    found: dict[str, Any] = {name: _total(rows, name, sum) for name in SUMS}
    found |= {name: _total(rows, name, fmean) for name in MEANS}
    found |= {name: _total(rows, name, _chain) for name in LISTS}
    seeds = [row.trained.training_seed for row in rows]
    row = replace(rows[0], **found, outcomes=outcomes, training_seeds=seeds)
    success, score = (values_of(row, metric) for metric in METRICS)
    return replace(
        row,
        success_rate=float(success.mean()),
        success_ci=rate_interval(success),
        score_mean=float(score.mean()),
        score_ci=crossed_interval(score),
    )


def values_of(row: BudgetResult, metric: Metric) -> np.ndarray:
    """Outcomes [S, E] of a row of S training seeds."""
    values = np.array(getattr(row.outcomes, metric), float)
    return values.reshape(len(row.training_seeds or [0]), -1)


def held_over_seeds(
    rows: Sequence[BudgetResult], decision: Decision, metric: Metric
) -> OverSeeds | None:
    """The recommended budget against the best other one over training seeds; None without any."""
    by_name = {row.name: row for row in rows}
    chosen = by_name.pop(decision.name, None) if decision.name else None
    if chosen is None or not chosen.training_seeds or not by_name:
        return None
    means = {name: float(values_of(row, metric).mean()) for name, row in by_name.items()}
    rival = max(means, key=lambda name: means[name])
    difference = values_of(chosen, metric) - _fitting(by_name[rival], metric, chosen)
    return OverSeeds(
        seeds=len(difference),
        rival=BudgetMean(rival, means[rival]),
        difference=float(difference.mean()),
        interval=crossed_interval(difference),
        within=int((difference.mean(axis=1) > -decision.margin).sum()),
    )


def _fitting(rival: BudgetResult, metric: Metric, chosen: BudgetResult) -> np.ndarray:
    """Outcomes of the rival by the same training seeds, else their mean [1, E]."""
    values = values_of(rival, metric)
    same = rival.training_seeds == chosen.training_seeds
    return values if same else values.mean(axis=0, keepdims=True)


def _joined(rows: Sequence[BudgetResult], name: str) -> list[Any]:
    return _chain(getattr(row.outcomes, name) or [] for row in rows)


def _chain(lists: Iterable[list[Any]]) -> list[Any]:
    return list(chain.from_iterable(lists))


def _total(rows: Sequence[BudgetResult], name: str, total: Any) -> Any:
    """The total of a field; None if any row lacks it."""
    values = [getattr(row, name) for row in rows]
    return None if any(value is None for value in values) else total(values)
