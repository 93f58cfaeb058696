"""The recipe of a run: a folder keeps its number of demonstrations."""

import pytest

from diffpolicy.errors import DiffpolicyError
from diffpolicy.eval import quickstart
from diffpolicy.eval.config import QuickstartConfig
from diffpolicy.eval.measure.recipe import Recipe, make_run

TRAINING = {"steps": 5, "hidden": 16, "blocks": 1, "device": "cpu", "threads": 1}
ENVIRONMENT = "diffpolicy.envs:Balance-v0"


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

    monkeypatch.setattr(quickstart, "make_run", train)
    monkeypatch.setattr(quickstart, "prepare_budgets", sweep)
    with pytest.raises(KeyboardInterrupt):
        quickstart.quickstart(QuickstartConfig(out=tmp_path, threads=2))
    assert found == {"training": 2, "sweep": 2}
