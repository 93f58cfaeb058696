"""Training seeds as a level: rows, intervals and the recommendation over them."""

import csv
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from diffpolicy.errors import DiffpolicyError
from diffpolicy.eval.config import SweepConfig
from diffpolicy.eval.delays import delays
from diffpolicy.eval.delays_config import DelaysConfig
from diffpolicy.eval.measure.result_files import read_sweep
from diffpolicy.eval.measure.runs import load_runs
from diffpolicy.eval.measure.seeds import held_over_seeds, runs_in, values_of
from diffpolicy.eval.report.sentences import reason
from diffpolicy.eval.significance import crossed_interval, mean_interval
from diffpolicy.eval.sweep import sweep
from diffpolicy.training.config import TrainConfig
from diffpolicy.training.seeds import command

NETWORK = {"hidden": 32, "blocks": 1, "device": "cpu", "steps": 20}
SMALL = {"episodes": 6, "envs": 4, "batch": 4, "max_steps": 40, "engine": "eager"}
SWEEP = {"clocks": ("paused",), "latency_ms": 0.0, "pictures": False, "floor": 0.0, **SMALL}


@pytest.fixture(scope="module")
def recipe(balance_store, tmp_path_factory) -> Path:
    """Runs of the seeds 0 and 2 in a folder."""
    out = tmp_path_factory.mktemp("recipes") / "recipe"
    command(TrainConfig(data=balance_store, out=out, seeds=(2, 0), **NETWORK))
    return out


@pytest.fixture(scope="module")
def swept(recipe, tmp_path_factory):
    out = tmp_path_factory.mktemp("swept")
    sweep(SweepConfig(runs=(recipe,), ddim_steps=(1, 2), out=out, **SWEEP))
    return out


def test_a_budget_has_one_row_with_the_episodes_of_each_seed(recipe, swept, tmp_path):
    rows = read_sweep(swept / "sweep.json").rows
    assert [row.name for row in rows] == ["recipe: 1 step", "recipe: 2 steps"]
    assert all(row.training_seeds == [0, 2] and row.episodes == 12 for row in rows)
    assert "count training seeds and episodes" in (swept / "report.html").read_text()
    alone = SweepConfig(runs=tuple(runs_in(recipe)), ddim_steps=(1, 2), out=tmp_path, **SWEEP)
    apart = {row.name: row for row in sweep(alone).rows}
    for row, steps in zip(rows, ("1 step", "2 steps"), strict=True):
        of_seeds = [apart[f"seed-{seed}: {steps}"] for seed in (0, 2)]
        assert row.outcomes.score == [s for each in of_seeds for s in each.outcomes.score]
        assert row.score_mean == pytest.approx(
            np.mean([each.score_mean for each in of_seeds]), abs=1e-6
        )
        assert row.starved_ticks == sum(each.starved_ticks for each in of_seeds)
        assert row.score_ci == crossed_interval(values_of(row, "score"))


def test_the_table_of_episodes_names_both_seeds(swept):
    with (swept / "sweep_episodes.csv").open() as file:
        lines = [line for line in csv.DictReader(file) if line["budget"] == "recipe: 1 step"]
    found = [(line["training_seed"], line["seed"]) for line in lines]
    assert found == [(s, str(100_000 + i)) for s in ("0", "2") for i in range(6)]


def test_other_folders_are_one_error(recipe, balance_store, tmp_path):
    shutil.copytree(recipe, tmp_path / "mixed")
    other = {**NETWORK, "hidden": 16}
    command(TrainConfig(data=balance_store, out=tmp_path / "mixed", seeds=(7,), **other))
    with pytest.raises(DiffpolicyError, match=r"runs of different recipes: model of seed-7 is"):
        sweep(SweepConfig(runs=(tmp_path / "mixed",), ddim_steps=(1,), out=tmp_path, **SWEEP))
    options = {"ticks": (0,), "ddim_steps": (1,), "out": tmp_path, **SMALL}
    with pytest.raises(DiffpolicyError, match="recipe holds runs of several training seeds"):
        delays(DelaysConfig(runs=(recipe,), **options))


@pytest.mark.parametrize(
    ("seed", "changes", "said"),
    [
        (7, {"observation_noise": 0.1}, r"observation_noise of seed-7 is 0\.1, of seed-0 0\.0"),
        (7, {"beta2": 0.999}, r"beta2 of seed-7 is 0\.999, of seed-0 0\.99"),
        (7, {"validation_fraction": 0.5}, r"validation_fraction of seed-7 is 0\.5"),
        (7, {"steps": 30}, r"step of seed-7 is 30, of seed-0 20"),
    ],
)
def test_runs_of_one_recipe_differ_in_their_seed_alone(
    recipe, balance_store, tmp_path, seed, changes, said
):
    shutil.copytree(recipe, tmp_path / "mixed")
    options = NETWORK | changes
    command(TrainConfig(data=balance_store, out=tmp_path / "mixed", seeds=(seed,), **options))
    with pytest.raises(DiffpolicyError, match=f"runs of different recipes: {said}"):
        [*load_runs([tmp_path / "mixed"])]


def test_a_run_that_is_copied_is_not_another_training_seed(recipe, tmp_path):
    for name in ("seed-2", "seed-3"):
        shutil.copytree(recipe / "seed-2", tmp_path / "twins" / name)
    with pytest.raises(DiffpolicyError, match="two runs of training seed 2: seed-2 and seed-3"):
        [*load_runs([tmp_path / "twins"])]


def test_a_row_of_one_seed_has_the_interval_of_its_episodes():
    values = np.random.default_rng(1).random(50)
    assert crossed_interval(values[None]) == pytest.approx(mean_interval(values), abs=0.01)
    assert crossed_interval(np.ones((3, 4))) == (1.0, 1.0)


@pytest.mark.parametrize("seeds", [3, 5, 10])
def test_the_interval_covers_the_mean_over_seeds_about_as_often_as_it_says(seeds):
    """Deviations .1 between seeds and .3 between episodes: 95 %, less for few seeds."""
    rng, found = np.random.default_rng(0), []
    for _ in range(60):
        values = 0.1 * rng.standard_normal((seeds, 1)) + 0.3 * rng.standard_normal((seeds, 60))
        low, high = crossed_interval(values)
        found.append(low <= 0 <= high)
    assert np.mean(found) > {3: 0.7, 5: 0.8, 10: 0.85}[seeds]


def decided(swept, chosen, rival):
    """Facts and sentence over seeds of the 1st budget against the 2nd, from outcomes [S, E]."""
    result = read_sweep(swept / "sweep.json")
    rows = [
        replace(
            row,
            training_seeds=[*range(len(values))],
            outcomes=replace(
                row.outcomes,
                score=np.ravel(values).tolist(),
                success=[0] * np.size(values),
                success_tick=None,
            ),
        )
        for row, values in zip(result.rows, (chosen, rival), strict=True)
    ]
    decision = result.recommendation.decision
    assert decision
    decision = replace(
        decision,
        verdict="recommended",
        margin=0.05,
        alone=True,
        chosen=replace(decision.best, name=rows[0].name),
    )
    found = held_over_seeds(rows, decision, "score")
    return found, reason(replace(decision, over_seeds=found))


def test_a_recommendation_says_if_it_holds_over_seeds(swept):
    same = np.full((3, 40), 0.9)
    found, text = decided(swept, same, same)
    assert found and found.within == found.seeds == 3 and found.holds(0.05)
    assert "it holds over training seeds: the difference to recipe: 2 steps is +0.000" in text
    worse = same.copy()
    worse[1] = 0.7  # one of three seeds loses 0.2
    found, text = decided(swept, worse, same)
    assert found and found.within == 2 and not found.holds(0.05)
    assert "it is not established over training seeds" in text and "in 2 of 3 seeds" in text
