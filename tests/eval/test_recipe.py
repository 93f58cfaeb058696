"""The recipe of a run: a folder keeps its number of demonstrations."""

import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from diffpolicy.errors import DiffpolicyError
from diffpolicy.eval import quickstart
from diffpolicy.eval.config import SweepConfig
from diffpolicy.eval.experiment_config import QuickstartConfig
from diffpolicy.eval.measure.recipe import Recipe, make_run
from diffpolicy.eval.measure.result_files import read_sweep

TRAINING = {"steps": 5, "hidden": 16, "blocks": 1, "device": "cpu", "threads": 1}
ENVIRONMENT = "diffpolicy.envs:Balance-v0"
SMALL_LOOK = {"ddim_steps": 1, "episodes": 2, "max_steps": 3, "engine": "eager", "workers": 1}


@pytest.mark.parametrize("number", [1, 3])
def test_another_number_of_demonstrations_is_refused_and_changes_nothing(
    tmp_path, snapshot, number
):
    make_run(Recipe(ENVIRONMENT, 2, TRAINING), tmp_path, 0)
    before = snapshot(tmp_path)
    with pytest.raises(DiffpolicyError, match=f"2 demonstrations .* --demonstrations {number};"):
        make_run(Recipe(ENVIRONMENT, number, TRAINING), tmp_path, 0)
    assert snapshot(tmp_path) == before
    make_run(Recipe(ENVIRONMENT, 2, TRAINING), tmp_path, 0)


def test_threads_of_quickstart_reach_training_and_sweep(tmp_path, monkeypatch):
    found = {}

    def train(recipe, *_):
        found["training"] = recipe.training["threads"]
        return tmp_path

    def sweep(config):
        found["sweep"] = config.threads
        raise KeyboardInterrupt

    def look(run, out, threads):
        found["first look"] = threads

    monkeypatch.setattr(quickstart, "make_run", train)
    monkeypatch.setattr(quickstart, "first_look", look)
    monkeypatch.setattr(quickstart, "prepare_budgets", sweep)
    with pytest.raises(KeyboardInterrupt):
        quickstart.quickstart(QuickstartConfig(out=tmp_path, threads=2))
    assert found == {"training": 2, "first look": 2, "sweep": 2}


def test_the_first_look_is_a_video_that_is_made_once(tiny_run, tmp_path, monkeypatch, snapshot):
    monkeypatch.setattr(quickstart, "FIRST", SMALL_LOOK)
    quickstart.first_look(tiny_run, tmp_path / "first", 1)
    before = snapshot(tmp_path / "first")
    assert len(list((tmp_path / "first/videos").glob("*.webp"))) == 1
    quickstart.first_look(tiny_run, tmp_path / "first", 1)
    assert snapshot(tmp_path / "first") == before


def test_the_plan_follows_the_options():
    def minutes(**options) -> list[float]:
        plan = quickstart.plan(QuickstartConfig(**options))
        return [float(number) for number in re.findall(r"(\d+\.\d)", plan)]

    first, whole = minutes()
    assert minutes(minutes=QuickstartConfig.minutes + 1) == pytest.approx([first + 2, whole + 2])
    later = minutes(episodes=2 * QuickstartConfig.episodes)
    assert later == pytest.approx([first, whole + quickstart.SWEEP], abs=0.11)


@pytest.mark.parametrize(
    ("load", "changes", "finished"),
    [
        ("quiet", {}, True),
        ("disturbed", {}, False),
        ("quiet", {"margin": 0.2}, False),
        ("quiet", {"ddim_steps": (1, 3)}, False),
    ],
)
def test_only_a_quiet_result_of_the_same_quickstart_is_kept(
    tmp_path, monkeypatch, load, changes, finished
):
    committed = read_sweep(Path(__file__).parents[2] / "eval/results/balance_sweep.json")
    rows = [replace(row, load=load) for row in committed.rows]
    monkeypatch.setattr(quickstart, "read_sweep", lambda _: replace(committed, rows=rows))
    (tmp_path / "sweep.json").touch()
    told = committed.provenance
    evaluator: Any = SimpleNamespace(provenance=lambda: told)
    sweep = SweepConfig(run=tmp_path, out=tmp_path, ddim_steps=(1, 2), margin=told.margin)
    assert quickstart._is_finished(replace(sweep, **changes), evaluator) == finished
    (tmp_path / "sweep.json").unlink()
    assert not quickstart._is_finished(sweep, evaluator)
