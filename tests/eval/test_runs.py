"""sweep --runs: budgets of several runs in one recommendation, and budgets that share ticks."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from diffpolicy.checkpoint import load_policy
from diffpolicy.errors import DiffpolicyError
from diffpolicy.eval.compare import Candidate, recommend
from diffpolicy.eval.config import SweepConfig
from diffpolicy.eval.measure.budgets import load_budgets
from diffpolicy.eval.measure.runs import _check_task, labels
from diffpolicy.eval.report.sentences import reason
from diffpolicy.eval.sweep import sweep
from diffpolicy.training.config import TrainConfig
from diffpolicy.training.train import train

SMALL = {"episodes": 4, "envs": 4, "batch": 4, "max_steps": 40, "engine": "eager"}


@pytest.fixture(scope="module")
def regression(balance_store, tmp_path_factory) -> Path:
    """A regression run of the store of `tiny_run`."""
    out = tmp_path_factory.mktemp("runs") / "mean"
    network = {"hidden": 32, "blocks": 1, "objective": "regression"}
    train(TrainConfig(data=balance_store, out=out, steps=20, device="cpu", **network))
    return out


def test_runs_are_candidates_of_one_recommendation(tiny_run, regression, tmp_path):
    config = SweepConfig(
        runs=(tiny_run, regression),
        ddim_steps=(1, 2),
        clocks=("simulated",),
        ms_per_step=5.0,
        floor=0.0,
        pictures=False,
        out=tmp_path,
        **SMALL,
    )
    result = sweep(config)
    assert [row.name for row in result.rows] == ["run: 1 step", "run: 2 steps", "mean: regression"]
    assert [row.run for row in result.rows] == ["run", "run", "mean"]
    assert len(result.recommendation.comparisons) == 2
    assert result.recommendation.decision.regression is None  # a candidate, no comparison beside


def test_runs_are_refused_in_one_line(tiny_run, refused):
    said = refused("sweep", "--runs", tiny_run, tiny_run)
    assert "--runs names a run folder twice" in said
    said = refused("sweep", "--run", tiny_run, "--runs", tiny_run)
    assert "expected either --run RUN, --runs RUN … or --policy module:factory" in said
    said = refused("sweep", "--runs", tiny_run, "--regression", tiny_run)
    assert "--regression belongs to --run; add that run to --runs" in said


@pytest.mark.parametrize("part", ["env_id", "control_dt_s", "action_dim"])
def test_other_tasks_are_refused(tiny_run, part):
    task = load_policy(tiny_run).specification.task
    other = {"env_id": "module:Other-v0", "control_dt_s": 0.5, "action_dim": 7}[part]
    with pytest.raises(DiffpolicyError, match=f"runs of one task; {part} of b is .*{other}, of a"):
        _check_task("a", task, "b", replace(task, **{part: other}))


def test_labels_are_the_shortest_that_differ():
    assert labels([Path("/a/x0"), Path("/a/eps")]) == ["x0", "eps"]
    assert labels([Path("/Balance/x0"), Path("/Detour/x0")]) == ["Balance/x0", "Detour/x0"]


def test_strategies_and_scales_are_combined(tiny_run, tmp_path):
    twin = tmp_path / "twin"
    shutil.copytree(tiny_run, twin)
    config = SweepConfig(
        runs=(tiny_run, twin), ddim_steps=(2,), start_scale=(0.5, 1.0), late=("drop", "ensemble")
    )
    found = [(p.label, p.sampling.start_scale, p.sampling.late) for p in load_budgets(config)]
    assert found == [
        (label, scale, late)
        for label in ("run", "twin")
        for scale in (0.5, 1.0)
        for late in ("drop", "ensemble")
    ]


def outcomes(rate: float, episodes: int = 1000) -> np.ndarray:
    """Successes [E] of which the first share is true."""
    return np.arange(episodes) < rate * episodes


def decide(ticks: tuple[int | None, int | None]):
    """The decision over a cheap budget that loses 2 points, and a dear one."""
    cheap = Candidate("1 step", 1, 1, True, outcomes(0.93), ticks=ticks[0])
    dear = Candidate("8 steps", 8, 8, True, outcomes(0.95), ticks=ticks[1])
    return recommend([cheap, dear], margin=0.05, floor=0.5, metric="success")


def test_the_better_of_two_budgets_in_one_tick_is_recommended():
    decision = decide((1, 1))
    assert decision.name == "8 steps"
    assert [(s.budget.name, s.better.name, s.ticks) for s in decision.shared] == [
        ("1 step", "8 steps", 1)
    ]
    assert "1 step suffices too, but takes 1 control tick like 8 steps, which is better" in reason(
        decision
    )
    assert decision.cheaper == ()


@pytest.mark.parametrize("ticks", [(1, 2), (None, None)])
def test_the_cheaper_is_recommended_in_other_ticks_and_on_the_paused_clock(ticks):
    decision = decide(ticks)
    assert (decision.name, decision.shared) == ("1 step", ())
