"""`diffpolicy runs`: every run once, with its state, and with figures of results that name it."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import as_version_1, rewrite

from diffpolicy.checkpoint import POLICY_FILE, TRAINING_FILE
from diffpolicy.eval.measure.result_files import read_sweep
from diffpolicy.eval.measure.results import TrainingCurve
from diffpolicy.eval.measure.run_facts import RunFacts
from diffpolicy.eval.measure.run_figures import with_figures
from diffpolicy.eval.measure.run_folders import find_runs
from diffpolicy.eval.measure.training_log import last, training_curves
from diffpolicy.eval.report.sweep_page import sweep_page
from diffpolicy.files import alone_in

SWEEP = Path(__file__).parents[2] / "eval" / "results" / "balance_sweep.json"


@pytest.fixture
def run(tiny_run, tmp_path) -> Path:
    return Path(shutil.copytree(tiny_run, tmp_path / "runs" / "first"))


def facts(folder: Path) -> dict[str, RunFacts]:
    """The runs below a folder, none of which is damaged."""
    found, skipped = find_runs(folder)
    assert not skipped
    return {run.name: run for run in found}


def with_result(file: Path, given: str, success: float, **more) -> None:
    """Write a sweep of one budget that names a run."""
    data = json.loads(SWEEP.read_text())
    row = next(row for row in data["records"] if not row["variant"])
    row = {**row, "success_rate": success, "trained": {"step": 20, "elapsed_s": 1.0}, **more}
    data["header"] = {**data["header"], "run": given}
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({**data, "records": [row]}))


def best(folder: Path, name: str) -> float | None:
    found, unread = with_figures(folder, find_runs(folder)[0])
    assert not unread
    figures = {run.name: run.best for run in found}[name]
    return figures and figures.success


def test_a_run_is_listed_with_its_training(run):
    found = facts(run.parent)["first"]
    assert (found.state, found.step, found.target_steps) == ("finished", 20, 20)
    assert (found.network, found.objective, found.prediction) == ("mlp", "denoising", "v")
    assert (found.precision, found.episodes, found.best) == ("float32", 6, None)
    assert facts(run)["."] == replace(found, name=".")


@pytest.mark.parametrize("change", [lambda h, _: h.update(steps=21), None])
def test_a_run_short_of_its_target_is_interrupted(run, change):
    rewrite(run / TRAINING_FILE, change or (lambda h, _: h.update(steps=None, minutes=1.0)))
    assert facts(run)["."].state == "interrupted"


def test_the_target_of_format_1_is_in_the_policy(run):
    for name in (POLICY_FILE, TRAINING_FILE):
        rewrite(run / name, as_version_1)
    assert (facts(run)["."].state, facts(run)["."].target_steps) == ("finished", 20)


def test_a_policy_without_the_state_of_training_says_so(run):
    (run / TRAINING_FILE).unlink()
    assert facts(run)["."].state == "policy only"


def test_a_locked_run_is_in_training_also_before_its_first_checkpoint(run):
    young = run.parent / "young"
    young.mkdir()
    (young / "log.jsonl").write_text('{"step": 100, "loss": 1.0}\n')
    assert list(facts(run.parent)) == ["first"]
    shutil.copytree(run, young / "curve" / "step-100")
    with alone_in(run), alone_in(young):
        assert {name: run.state for name, run in facts(run.parent).items()} == {
            "first": "training",
            "young": "training",
        }
    with alone_in(run):  # looking did not take the lock
        assert facts(run)["."].state == "training"


def test_snapshots_hidden_folders_and_stores_are_no_runs(run, tmp_path):
    for place in ("curve/step-10", ".hidden"):
        shutil.copytree(run, run.parent / "other", dirs_exist_ok=True)
        shutil.copytree(run.parent / "other", run / place)
        shutil.rmtree(run.parent / "other")
    store = run.parent / "store.zarr"
    shutil.copytree(run, store / "data")
    (store / ".zgroup").write_text("{}")
    shutil.copytree(run / "curve" / "step-10", run / "regression")
    assert list(facts(run.parent)) == ["first", "first/regression"]


def test_the_newest_values_of_the_log_are_told(run):
    lines = ['{"step": 1000, "validation_loss": 0.5}', '{"step": 2000, "validation_loss": 0.25}']
    lines += ['{"step": 1500, "success": 0.75}', '{"step": 3000, "loss": 1}', '{"step": 40']
    (run / "log.jsonl").write_text("\n".join(lines))
    found = facts(run)["."]
    assert (found.validation_loss, found.success, last(run, "score")) == (0.25, 0.75, None)


@pytest.mark.parametrize(
    ("file", "given"),
    [
        ("first/sweep/sweep.json", "elsewhere/first"),
        ("first/eval.json", "."),
        ("first.json", "first"),
        ("results/first.json", "first/policy.safetensors"),
        ("first.json", "runs/first"),
    ],
)
def test_a_result_in_or_beside_a_run_counts_for_it(run, file, given):
    with_result(run.parent / file, given, 0.5)
    assert best(run.parent, "first") == 0.5
    with_result(run.parent / "higher.json", str(run), 0.75)
    with_result(run.parent / "lower.json", str(run), 0.25)
    with_result(run.parent / "other.json", "second", 1.0)
    assert best(run.parent, "first") == 0.75
    assert best(run, ".") == 0.75


def test_of_equal_names_the_nearest_run_is_meant(run):
    other = shutil.copytree(run, run.parent.parent / "more" / "first")
    with_result(other.parent / "result.json", "first", 0.5)
    assert best(run.parent.parent, "more/first") == 0.5
    assert best(run.parent.parent, "runs/first") is None


def test_the_regression_policy_of_a_sweep_is_another_run(run):
    with_result(run / "sweep.json", "first", 0.5, variant="regression")
    assert best(run.parent, "first") is None
    shutil.copytree(run, run.parent / "second")
    with_result(run.parent / "runs.json", "none", 0.75, run="second")
    data = json.loads((run.parent / "runs.json").read_text())
    data["header"] |= {"run": None, "runs": ["first", "second"]}
    (run.parent / "runs.json").write_text(json.dumps(data))
    assert (best(run.parent, "second"), best(run.parent, "first")) == (0.75, None)


def test_the_command_lists_runs_and_names_what_is_damaged(run, call, tmp_path):
    with_result(run / "sweep.json", "first", 0.5)
    (run / "other.json").write_text('{"format": "of others"}')
    (run / "damaged.json").write_text("{")
    broken = shutil.copytree(run, run.parent / "broken")
    (broken / POLICY_FILE).write_bytes(b"nothing")
    code, out, _ = call("runs", run.parent, "--json", tmp_path / "list.json")
    assert code == 0
    row = out.partition("\nfirst")[2].partition("\nwarning")[0]  # a wide row has two lines
    assert "finished  20 of 20" in row and "0.50" in row
    told = [line for line in out.splitlines() if line.startswith("warning: skipped: ")]
    assert [part in "".join(told) for part in ("damaged.json", "is corrupt")] == [True, True]
    assert len(told) == 3  # the broken run has a damaged result too
    written = json.loads((tmp_path / "list.json").read_text())
    assert [row["name"] for row in written["runs"]] == ["first"]
    assert written["runs"][0]["best"]["success"] == 0.5 and len(written["skipped"]) == 3


def test_a_folder_without_runs_is_refused(refused, tmp_path):
    assert "holds no run; expected folders" in refused("runs", tmp_path)
    assert "is not a folder; expected" in refused("runs", tmp_path / "absent")
    assert "is a folder; a file was expected" in refused("runs", tmp_path, "--json", tmp_path)


def log_of(steps: int) -> str:
    lines = [f'{{"step": {100 * n}, "loss": {1 / n}}}' for n in range(1, steps + 1)]
    lines += ['{"step": 500, "success": 0.5}', '{"step": 250, "success": 0.25}', "{"]
    return "\n".join(lines)


@pytest.mark.parametrize(("steps", "points"), [(5, 5), (200, 200), (201, 101), (4000, 200)])
def test_curves_are_in_order_thin_and_end_at_the_last_step(tmp_path, steps, points):
    (tmp_path / "log.jsonl").write_text(log_of(steps))
    loss, success = training_curves(tmp_path, "name")
    assert (loss.quantity, len(loss.steps), loss.steps[-1]) == ("loss", points, 100 * steps)
    assert loss.values == [100 / step for step in loss.steps]
    assert success == TrainingCurve(
        run="name", quantity="success", steps=[250, 500], values=[0.25, 0.5]
    )
    assert training_curves(tmp_path / "absent", "name") == []


def test_the_page_of_a_sweep_draws_the_curves_that_its_result_holds(tmp_path):
    (tmp_path / "log.jsonl").write_text(log_of(20))
    result = replace(read_sweep(SWEEP), pictures=[])
    assert "Training</h2>" not in sweep_page(replace(result, curves=None), tmp_path)
    curves = training_curves(tmp_path, "first")
    for found in (curves, [*curves, *training_curves(tmp_path, "second")]):
        page = sweep_page(replace(result, curves=found), tmp_path)
        assert "Training</h2>" in page and page.count("over the optimiser steps") == 2
