"""Outcome files of the benches: what is made again, what is refused, and the table."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from diffpolicy.checkpoint import TRAINING_FILE
from diffpolicy.eval.bench import outcome_files
from diffpolicy.eval.bench.outcome_files import (
    OfSeed,
    Played,
    is_trained,
    kept,
    print_grid,
    print_methods,
    swept,
)
from diffpolicy.eval.config import SweepConfig
from diffpolicy.eval.measure.result_files import read_result

ABOUT = {"env": None, "steps": 20, "episodes": 400}
RESULT = Path(__file__).parents[2] / "eval" / "results" / "prediction_balance.json"


@pytest.fixture(scope="module")
def rows():
    return read_result(RESULT).rows[:2]


@pytest.fixture
def made(rows, tmp_path) -> Path:
    """A file of two methods."""
    kept(tmp_path / "seed-0.json", ABOUT, lambda: rows)
    return tmp_path / "seed-0.json"


def test_a_file_is_made_once_and_read_without_the_options(made, rows):
    again = kept(made, ABOUT, lambda: pytest.fail("made again"))
    assert again == kept(made, {"steps": 1}, None)
    assert again.rows[rows[0].name].success == rows[0].outcomes.success


def test_a_file_of_other_options_is_not_continued(made):
    with pytest.raises(SystemExit, match=r"'episodes': 400}, not .*'episodes': 50}"):
        kept(made, ABOUT | {"episodes": 50}, lambda: pytest.fail("made again"))


@pytest.mark.parametrize(
    ("text", "said"),
    [("{", "is not a JSON document"), ("[]", "must be an object"), ("{}", "lacks config, rows")],
)
def test_a_damaged_file_is_one_line(made, text, said):
    made.write_text(text)
    with pytest.raises(SystemExit, match=said):
        kept(made, ABOUT, None)
    made.unlink()
    with pytest.raises(SystemExit, match=r"lacks seed-0\.json; give --data STORE"):
        kept(made, ABOUT, None)


def test_the_table_has_the_methods_of_all_seeds(made, capsys):
    first = kept(made, ABOUT, None)
    one, two = first.rows
    second = replace(first, rows={one: first.rows[one]})
    print_methods([first, second], "success")
    said = capsys.readouterr().out
    assert f"not in the files of all seeds: {two}" in said and "episodes 400" in said
    with pytest.raises(SystemExit, match="made with different options"):
        print_methods([first, replace(first, config={})], "success")


def test_a_run_with_another_target_is_not_taken_for_this_one(tiny_run, tmp_path):
    assert is_trained(tiny_run, 20) and not is_trained(tmp_path, 20)
    with pytest.raises(SystemExit, match="has a training of 20 steps, not 10"):
        is_trained(tiny_run, 10)
    assert (tiny_run / TRAINING_FILE).exists()


def test_a_sweep_with_another_number_of_episodes_is_made_again(tmp_path, monkeypatch):
    result = json.loads(RESULT.read_text())
    swept_for = []

    def sweep(config: SweepConfig) -> None:
        swept_for.append(config.episodes)
        result["header"]["seeds"] = [0, config.episodes - 1]
        (tmp_path / "sweep.json").write_text(json.dumps(result))

    monkeypatch.setattr(outcome_files, "sweep", sweep)
    for episodes in (4, 4, 400):
        found = swept(SweepConfig(run=tmp_path, out=tmp_path, episodes=episodes))
    assert swept_for == [4, 400] and len(found) == len(result["records"])


def test_the_grid_has_a_row_for_a_method_and_a_column_for_a_cost(capsys):
    names = {"v: 1 step": 1, "v: 2 steps": 2, "v: 2 steps, grid optimised": 2, "mip: MIP": 2}
    names |= {"regression: regression": 1, "v: DDPM 100": 100}
    rows = {name: Played(cost, [cost % 2, 1.0], [0.5, 0.5]) for name, cost in names.items()}
    print_grid([OfSeed({}, rows)] * 2, "success")
    head, *lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert head[-3:] == ["1", "2", "100"]
    assert sorted(map(" ".join, lines)) == [
        "mip: MIP 0.500",
        "regression 1.000",
        "v: DDIM 1.000 0.500",
        "v: DDPM 100 0.500",
        "v: grid optimised 0.500",
    ]
