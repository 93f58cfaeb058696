"""The suite: what is there is kept, the tables hold what was measured, the IQM's law."""

import json
from pathlib import Path

import gymnasium
import numpy as np
import pytest

from diffpolicy.envs import TASKS
from diffpolicy.errors import DiffpolicyError
from diffpolicy.eval import suite as suites
from diffpolicy.eval.experiment_config import SuiteConfig
from diffpolicy.eval.measure.result_files import read_result
from diffpolicy.eval.report.suite_page import table_of
from diffpolicy.eval.significance import over_tasks

RESULTS = Path(__file__).parents[2] / "eval" / "results"
EVALUATION = {"episodes": 5, "envs": 5, "batch": 5, "max_steps": 40, "engine": "eager"}
TINY = {
    "demonstrations": 2,
    "training": {"steps": 5, "hidden": 16, "blocks": 1},
    "evaluation": {
        **EVALUATION,
        "ddim_steps": [1, 2],
        "ddpm": False,
        "ms_per_step": 5.0,
        "seed": 9,
    },
    "seed": 0,
}


@pytest.fixture
def tiny(monkeypatch, tmp_path):
    """A suite of two tasks in small, and its folder."""
    monkeypatch.setattr(suites, "TASKS", ("Balance-v0", "Catch-v0"))
    monkeypatch.setitem(suites.PROTOCOLS, "quick", TINY)
    return SuiteConfig(out=tmp_path / "suite", device="cpu")


def test_a_suite_is_whole_and_a_second_call_keeps_what_is_there(tiny, monkeypatch, capsys):
    result = suites.suite(tiny)
    assert "Catch-v0" in capsys.readouterr().out
    names = ["regression", "1 step", "2 steps"]
    for clock in ("paused", "simulated"):
        table = table_of(result, clock, "success")
        assert list(table) == names
        for row in table.values():
            assert list(row) == ["Balance-v0", "Catch-v0", "mean", "IQM"]
            assert all(e.low <= e.value <= e.high for e in row.values())
        for task, swept in result.tasks.items():
            rates = {row.name: row.success_rate for row in swept.rows if row.clock == clock}
            assert {name: row[task].value for name, row in table.items()} == rates
        for row in table.values():
            both = [row[task].value for task in result.tasks]
            assert row["mean"].value == pytest.approx(np.mean(both))
    page = (tiny.out / "suite.html").read_text()
    assert page.count("data:image/png") == 3  # the plot, and a picture of each task

    def again(*_):
        raise AssertionError("measured again")

    monkeypatch.setattr(suites, "make_run", again)
    (tiny.out / "suite.json").unlink()
    for task in result.tasks:  # the name that pictures had before
        (tiny.out / task / "strip.png").rename(tiny.out / task / "film.png")
    assert suites.suite(tiny) == result == read_result(tiny.out / "suite.json")
    assert (tiny.out / "suite.html").read_text() == page


def test_the_tasks_are_those_that_are_registered():
    assert tuple(TASKS) == suites.TASKS
    assert all(task in gymnasium.registry for task in suites.TASKS)


def test_an_interrupted_suite_goes_on_with_the_next_task(tiny, monkeypatch):
    real, swept = suites.sweep, []

    def sweep(config):
        if swept:
            raise KeyboardInterrupt
        swept.append(config.out.name)
        return real(config)

    monkeypatch.setattr(suites, "sweep", sweep)
    with pytest.raises(KeyboardInterrupt):
        suites.suite(tiny)
    first = (tiny.out / "Balance-v0" / "sweep.json").read_bytes()
    monkeypatch.setattr(suites, "sweep", real)
    suites.suite(tiny)
    assert (tiny.out / "Balance-v0" / "sweep.json").read_bytes() == first
    assert (tiny.out / "suite.html").exists()


def test_a_folder_of_another_protocol_is_refused(tiny, monkeypatch):
    tiny.out.mkdir()
    (tiny.out / "protocol.json").write_text("{}")
    with pytest.raises(DiffpolicyError, match=r"protocol\.json says .*demonstrations"):
        suites.suite(tiny)


@pytest.mark.parametrize("text", [b"\xff", b"[" * 100_000, b"[]", b'{"a": NaN}'])
def test_a_damaged_protocol_is_refused(tiny, text):
    tiny.out.mkdir()
    (tiny.out / "protocol.json").write_bytes(text)
    with pytest.raises(DiffpolicyError, match=r"protocol\.json"):
        suites.suite(tiny)
    assert (tiny.out / "protocol.json").read_bytes() == text


SWEPT = json.loads((RESULTS / "detour_sweep.json").read_text())
ROW = SWEPT["records"][0]


@pytest.mark.parametrize(
    "change",
    [
        {"records": []},
        {"records": [{}]},
        {"records": [{**ROW, "outcomes": {"success": ["x"], "score": [1.0]}}]},
        {"recommendation": None},
    ],
)
def test_a_damaged_sweep_is_refused(tiny, monkeypatch, change):
    for task in suites.TASKS:
        folder = tiny.out / task
        folder.mkdir(parents=True)
        (folder / "film.png").touch()
        (folder / "sweep.json").write_text(json.dumps(SWEPT | change))
    with pytest.raises(DiffpolicyError, match=r"Balance-v0/sweep\.json"):
        suites.suite(tiny)


def test_the_interquartile_mean_leaves_out_the_best_task_and_the_worst():
    tasks = [np.full(50, score) for score in (0.0, 0.4, 0.6, 1.0)]
    assert over_tasks(tasks, [0.25]) == [pytest.approx((0.5, 0.5, 0.5))]
    assert over_tasks(tasks[1:], [0.0])[0][0] == pytest.approx(2 / 3)


def test_the_interval_over_tasks_is_stratified():
    """Tasks that differ add no spread; episodes do, each task's own."""
    rng = np.random.default_rng(0)
    tasks = [mean + 0.1 * rng.standard_normal(200) for mean in (0.2, 0.8)]
    [(value, low, high)] = over_tasks(tasks, [0.0])
    assert low < value < high
    assert high - low == pytest.approx(2 * 1.96 * 0.1 / np.sqrt(400), rel=0.15)
