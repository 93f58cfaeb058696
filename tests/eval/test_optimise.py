"""optimise: candidates of a run, the rule of the choice, and what is stored."""

import json
import shutil
from dataclasses import replace

import pytest

from diffpolicy.checkpoint import load_policy
from diffpolicy.eval import optimise as module
from diffpolicy.eval.experiment_config import OptimiseConfig
from diffpolicy.eval.measure.held_out import held_out
from diffpolicy.eval.measure.result_files import read_result
from diffpolicy.eval.measure.results import Outcomes
from diffpolicy.eval.measure.run import run_of
from diffpolicy.eval.measure.schedule_search import Proposal, Search
from diffpolicy.eval.optimise import judge, optimise
from diffpolicy.policy import Policy
from diffpolicy.sampling.schedules import shortest
from diffpolicy.training.config import TrainConfig
from diffpolicy.training.train import train

SMALL = {"episodes": 2, "envs": 2, "batch": 2, "max_steps": 10, "engine": "eager", "windows": 8}
SCHEDULES = ("99,49", "90,20", "30,5")


@pytest.fixture(scope="module")
def own_run(balance_store, tmp_path_factory):
    """Run that held out some episodes of its store. Read-only."""
    out = tmp_path_factory.mktemp("own") / "run"
    sizes = {"steps": 4, "hidden": 16, "blocks": 1, "device": "cpu"}
    train(TrainConfig(data=balance_store, out=out, validation_fraction=0.4, **sizes))
    return out


@pytest.fixture(scope="module")
def optimised(own_run, tmp_path_factory):
    """The run after optimise, and the result."""
    run = tmp_path_factory.mktemp("optimised") / "run"
    shutil.copytree(own_run, run)
    return run, optimise(OptimiseConfig(run=run, ddim_steps=(2, 1), **SMALL))


def test_candidates_are_named_grids_and_the_best_of_the_search(optimised):
    run, result = optimised
    two = [c for c in result.candidates if c.ddim_steps == 2]
    assert {"trailing", "quadratic", "90,20"} < {c.origin for c in two} and len(two) <= 6
    assert len({tuple(c.timesteps) for c in two}) == len(two)
    assert all(t > s for c in two for t, s in zip(c.timesteps, c.timesteps[1:], strict=False))
    errors = {c.origin: c.error for c in two}
    assert min(errors.values()) <= errors["trailing"]
    assert read_result(run / "optimise" / "optimise.json") == result
    assert (run / "optimise" / "optimise_episodes.csv").exists()
    assert not (run / "optimise" / "episodes.jsonl").exists()


def test_the_chosen_timesteps_are_stored_with_unchanged_weights(optimised, own_run):
    run, result = optimised
    chosen = {len(c.timesteps): tuple(c.timesteps) for c in result.candidates if c.chosen}
    before, after = load_policy(own_run), load_policy(run)
    assert after.specification.schedules == (chosen[1], chosen[2])
    assert after.specification == replace(before.specification, schedules=(chosen[1], chosen[2]))
    assert all(w.equal(after.weights[name]) for name, w in before.weights.items())
    grid = Policy.load(run, grid="optimised", ddim_steps=2).chain.grid
    assert tuple(t for t, _ in grid) == chosen[2]


def test_a_budget_may_have_more_steps_than_the_search_has_levels(balance_store, tmp_path):
    sizes = {"steps": 1, "hidden": 8, "blocks": 1, "device": "cpu", "train_timesteps": 150}
    train(TrainConfig(data=balance_store, out=tmp_path, **sizes))
    config = OptimiseConfig(run=tmp_path, ddim_steps=(75,), **SMALL | {"windows": 1})
    policy = Policy.load(tmp_path, ddim_steps=1)
    data = held_out(run_of(config), load_policy(tmp_path), None)
    search = Search(policy, data, 1, 0, 75)
    assert len(shortest(search.cost, 75)) == 75 <= len(search.times)


def test_the_file_is_written_once_the_schedules_are_stored(own_run, tmp_path, monkeypatch):
    shutil.copytree(own_run, tmp_path / "run")

    def killed(result, file):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "save", killed)
    with pytest.raises(KeyboardInterrupt):
        optimise(OptimiseConfig(run=tmp_path / "run", ddim_steps=(1,), **SMALL))
    assert len(load_policy(tmp_path / "run").specification.schedules) == 1


def rows_of(result, outcomes):
    row = result.rows[0]
    return [
        replace(row, name=str(i), outcomes=Outcomes(success=o, score=list(map(float, o))))
        for i, o in enumerate(outcomes)
    ]


@pytest.mark.parametrize(
    ("wins", "chosen"), [((0, 0), 0), ((9, 0), 0), ((20, 0), 1), ((20, 30), 2), ((20, 20), 2)]
)
def test_trailing_is_kept_unless_another_wins_beyond_the_interval(optimised, wins, chosen):
    times = [tuple(map(int, s.split(","))) for s in SCHEDULES]
    origins = ("trailing", "90,20", "path")
    proposals = [Proposal(t, o, e) for t, o, e in zip(times, origins, (0.3, 0.2, 0.1), strict=True)]
    outcomes = [[0] * 40] + [[1] * k + [0] * (40 - k) for k in wins]
    found = judge(proposals, rows_of(optimised[1], outcomes), "success", True)
    assert [c.chosen for c in found] == [i == chosen for i in range(3)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--seed", "100000"], "meets the seeds of reports"),
        (["--seed", "99900"], "meets the seeds of reports"),
        (["--ddim-steps", "51"], "must be at most 50"),
        (["--ddim-steps", "0"], "must be positive; got 0"),
        (["--windows", "0"], "--windows must be"),
        (["--data", "nowhere.zarr"], "nowhere.zarr"),
    ],
)
def test_bad_options_are_refused(refused, own_run, options, message):
    assert message in refused("optimise", "--run", own_run, *options)


def test_policies_without_a_choice_of_timesteps_are_refused(refused, own_run, tmp_path):
    from conftest import rewrite

    shutil.copytree(own_run, tmp_path / "run")

    def regression(header, tensors):
        header["specification"]["model"]["objective"] = "regression"
        return json.dumps(header)

    rewrite(tmp_path / "run" / "policy.safetensors", regression)
    assert "is a regression policy" in refused("optimise", "--run", tmp_path / "run")
    assert "no timesteps to optimise" in refused(
        "optimise", "--policy", "m:f", "--env", "diffpolicy.envs:Balance-v0"
    )
