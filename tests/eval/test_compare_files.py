"""diffpolicy compare: what is matched, paired, called a regression, and refused."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from diffpolicy.eval.compare_config import CompareConfig
from diffpolicy.eval.compare_files import comparison
from diffpolicy.eval.measure.result_files import read_result
from diffpolicy.eval.measure.row_differences import statistics, verdict
from diffpolicy.eval.significance import crossed_interval, difference_interval, newcombe, welch

RESULTS = Path(__file__).parents[2] / "eval" / "results"
SWEEP = "prediction_balance"  # v, x0 and ε; paused; 400 seeds from 100000
DELAYS = "balance_late"


def changed(path: Path, name: str = SWEEP, change=lambda data: None) -> Path:
    """A published result under another path, changed; of two latencies, and of three budgets."""
    data = json.loads((RESULTS / f"{name}.json").read_text())
    names, sources = (
        list(dict.fromkeys(row[key] for row in data["records"]))
        for key in ("name", "latency_source")
    )
    data["records"] = [
        row
        for row in data["records"]
        if row["latency_source"] in sources[-4:-2] + sources[:1] and row["name"] in names[:3]
    ]
    change(data)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data))
    return path


def losing(count: int, only: str = ""):
    """A change that turns successes of every row, or of one, into failures."""

    def change(data: dict) -> None:
        for row in data["records"]:
            if not only or row["name"] == only:
                found = row["outcomes"]["success"]
                for place in np.flatnonzero(found)[:count]:
                    found[place] = 0

    return change


def head(**facts):
    """A change of the header."""
    return lambda data: data["header"].update(facts)


@pytest.fixture
def pair(tmp_path):
    """Function pair(change) -> a part of a published result, and the changed one."""

    def make(change, name: str = SWEEP) -> tuple[Path, Path]:
        return changed(tmp_path / "a.json", name), changed(tmp_path / "b.json", name, change)

    return make


@pytest.mark.parametrize(
    ("a", "m", "b", "n", "low", "high"),
    [
        *[(56, 70, 48, 80, 0.0524, 0.3339), (9, 10, 3, 10, 0.1705, 0.8090)],
        *[(5, 56, 0, 29, -0.0381, 0.1926), (0, 10, 0, 20, -0.1611, 0.2775)],
        *[(10, 10, 0, 20, 0.6791, 1.0), (6, 7, 2, 7, 0.0582, 0.8062)],
    ],
)
def test_newcombes_interval_is_that_of_his_paper(a, m, b, n, low, high):
    """Table II of Newcombe (1998), method 10."""
    found = newcombe(np.arange(m) < a, np.arange(n) < b)
    assert found == pytest.approx((low, high), abs=6e-5)


def test_welchs_interval_is_that_of_the_formula():
    a, b = np.array([0.1, 0.4, 0.2, 0.9]), np.array([0.5, 0.6, 0.55])
    parts = [x.var(ddof=1) / len(x) for x in (a, b)]
    freedom = sum(parts) ** 2 / sum(p**2 / (len(x) - 1) for p, x in zip(parts, (a, b), strict=True))
    half = stats.t.ppf(0.975, freedom) * np.sqrt(sum(parts))
    middle = a.mean() - b.mean()
    assert welch(a, b) == pytest.approx((middle - half, middle + half))
    assert welch(a[:1], b) is None and welch(np.ones(4), np.ones(9)) is None


def test_outcomes_without_spread_that_differ_are_two_rates():
    low, high = newcombe(np.ones(30, bool), np.zeros(20, bool))
    assert welch(np.full(30, 2.0), np.full(20, -1.0)) == pytest.approx((3 * low, 3 * high))
    assert welch(np.full(20, -1.0), np.full(30, 2.0)) == pytest.approx((-3 * high, -3 * low))
    trainings = np.ones((3, 30), bool)  # of which every one succeeds, and no other
    for ours, theirs, said in (
        (~trainings, trainings[:1], "worse"),
        (trainings, ~trainings, "better"),
    ):
        assert statistics(ours, theirs, paired=False, margin=None)["verdict"] == said


def test_rows_are_paired_on_the_seeds_that_both_files_hold(pair):
    def later(data: dict) -> None:
        data["header"]["seeds"] = [100300, 100699]

    files = pair(later)
    [row, *_] = comparison(CompareConfig(files)).rows
    assert row.paired and row.reference_episodes == row.episodes == 100
    success = np.array(read_result(files[0]).rows[0].outcomes.success, bool)
    assert row.reference_mean == success[300:].mean() and row.mean == success[:100].mean()
    assert row.interval == difference_interval(success[:100], success[300:], paired=True)


@pytest.mark.parametrize("facts", [{"seeds": [1, 400]}, {"paired": False}, {"seeds_repeat": False}])
def test_rows_without_shared_seeds_are_unpaired_and_say_so(pair, call, facts):
    files = pair(head(**facts))
    rows = comparison(CompareConfig(files)).rows
    assert not any(row.paired for row in rows) and all(row.p_mcnemar is None for row in rows)
    rates = [np.array(row.outcomes.success, bool) for row in read_result(files[0]).rows]
    assert [row.interval for row in rows] == [newcombe(rate, rate) for rate in rates]
    said = call("compare", *files).out
    assert "unpaired: no shared seeds that repeat" in said and "400 + 400" in said


def test_scores_without_shared_seeds_have_welchs_interval(pair):
    config = CompareConfig(pair(head(seeds=[1, 200]), "prediction_pusht_v"), outcome="score")
    scores = [np.array(row.outcomes.score) for row in read_result(config.files[0]).rows]
    assert [row.interval for row in comparison(config).rows] == [welch(s, s) for s in scores]


@pytest.mark.parametrize(
    ("change", "options", "status", "said"),
    [
        (losing(0), (), 0, "no regression"),
        (losing(40), (), 1, "regression in 3 of 3 rows: B v: 1 step (paused), B v: 2 steps"),
        (losing(40, "v: 2 steps"), (), 1, "regression in 1 of 3 rows: B v: 2 steps (paused)"),
        (losing(9, "v: 2 steps"), (), 1, "regression in 1 of 3"),  # McNemar: p = 2 / 2^9
        (losing(5, "v: 2 steps"), (), 0, "no regression"),  # p = 2 / 2^5
        (losing(12), ("--margin", 0.1), 0, "every row is shown to lose less than the margin"),
        (losing(12), ("--margin", 0.03), 1, "a loss of less than the margin is not shown in 3"),
    ],
)
def test_a_regression_is_exit_status_1(pair, call, change, options, status, said):
    found = call("compare", *pair(change), "--fail-on-regression", *options)
    assert found.code == status and not found.errors
    assert said in " ".join(found.out.split())


def test_without_the_option_a_regression_is_told_only(pair, call):
    found = call("compare", *pair(losing(40)))
    assert found.code == 0 and "3 rows: 3 worse" in found.out


def test_the_other_way_round_worse_is_better(pair):
    files = pair(losing(40))
    there, back = (comparison(CompareConfig(f)).rows for f in (files, files[::-1]))
    assert {row.verdict for row in back} == {"better"}
    for one, other in zip(there, back, strict=True):
        assert one.difference == -other.difference and one.p_mcnemar == other.p_mcnemar
        assert one.interval == pytest.approx([-end for end in reversed(other.interval)], abs=1e-9)


@pytest.mark.parametrize(
    ("interval", "p", "noninferior", "expected"),
    [
        ((0.01, 0.2), 0.01, True, "better"),
        ((-0.2, -0.01), 0.01, None, "worse"),
        ((-0.2, -0.01), 0.01, False, "worse"),
        ((-0.2, -0.01), 0.01, True, "worse-within-margin"),
        ((-0.2, 0.01), 0.01, True, "non-inferior"),
        ((-0.2, 0.01), 0.01, False, "not-established"),
        (None, 0.04, None, "worse"),
        (None, 0.06, None, "not-established"),
        (None, None, None, "not-established"),
    ],
)
def test_verdicts(interval, p, noninferior, expected):
    assert verdict(-0.1, interval, p, noninferior) == expected


def test_several_trainings_count_as_random():
    rng = np.random.default_rng(0)
    theirs, ours = rng.random((2, 3, 50)) < np.array([0.9, 0.5])[:, None, None]
    found = statistics(ours, theirs, True, 0.05)
    assert found["interval"] == crossed_interval(ours.astype(float) - theirs)
    assert found["training_seeds"] == 3 and found["verdict"] == "worse"
    one = statistics(ours, theirs[:1], True, None)  # as many episodes, another number of seeds
    means = ours.mean(axis=0)
    assert one["interval"] == difference_interval(means, theirs[0], paired=True)


def test_over_trainings_a_loss_of_the_margin_is_rejected_at_5_percent_one_sided():
    rng = np.random.default_rng(0)
    theirs, ours = rng.random((2, 3, 50)) < np.array([0.9, 0.85])[:, None, None]
    difference = ours.astype(float) - theirs
    low, lowest = crossed_interval(difference, 0.9)[0], crossed_interval(difference)[0]
    assert lowest < low < 0
    for margin, expected in ((-(low + lowest) / 2, True), (-low - 1e-6, False)):
        assert statistics(ours, theirs, True, margin)["noninferior"] is expected


def test_another_run_is_matched_without_its_label(tmp_path):
    def relabelled(label: str):
        def change(data: dict) -> None:
            data["records"] = [row for row in data["records"] if row["run"] == "v"]
            for row in data["records"]:
                row.update(run=label, name=row["name"].replace("v:", f"{label}:"))

        return change

    files = [changed(tmp_path / f"{n}.json", SWEEP, relabelled(n)) for n in ("one", "two")]
    result = comparison(CompareConfig(tuple(files)))
    assert [row.budget for row in result.rows][:2] == ["two: 1 step", "two: 2 steps"]
    assert not result.unmatched and {row.verdict for row in result.rows} == {"identical"}


def test_strategies_are_compared_with_drop(tmp_path):
    ends = ("", "_prefix")
    files = tuple(changed(tmp_path / f"{end}.json", f"{DELAYS}{end}") for end in ends)
    result = comparison(CompareConfig(files, across="strategies"))
    found = {(row.reference_budget, row.budget) for row in result.rows}
    names = ("8 steps", "8 steps, prefix", "8 steps, prefix:oracle")
    assert found == {("8 steps", name) for name in names}
    assert all(row.source == row.reference_source for row in result.rows)
    budgets = comparison(CompareConfig(files))
    assert {row.budget for row in budgets.rows} == {"8 steps"}
    assert {row.budget for row in budgets.unmatched if row.label == "B"} == set(names[1:])


def test_each_further_file_is_compared_with_the_first(pair, tmp_path):
    def without_one(data: dict) -> None:
        data["records"].pop()

    one, two = pair(without_one)
    three = changed(tmp_path / "c.json", change=losing(40))
    result = comparison(CompareConfig((one, two, three)))
    assert [row.other for row in result.rows] == ["B", "B", "C", "C", "C"]
    assert [row.verdict for row in result.rows] == ["identical"] * 2 + ["worse"] * 3
    assert not result.unmatched  # C has a partner for the third row
    [left] = comparison(CompareConfig((one, two))).unmatched
    assert (left.label, left.budget) == ("A", "v: 4 steps")


def test_across_best_compares_the_recommended_budgets(pair):
    def others(data: dict) -> None:
        data["recommendations"][0].update(name="v: 1 step")

    result = comparison(CompareConfig(pair(others), across="best"))
    [row] = result.rows
    assert row.reference_budget == read_result(RESULTS / f"{SWEEP}.json").recommendation.name
    assert row.budget == "v: 1 step" and not result.unmatched


def test_two_machines_show_the_ratio_of_their_latencies(pair, call):
    def slower(data: dict) -> None:
        for row in data["records"]:
            row["latency_ms"]["p50"] *= 2
            row["latency_source"] = row["latency_source"].replace("measured", "replayed, native")
        for profile in data["profiles"]:
            profile["samples_ms"] = [3 * ms for ms in profile["samples_ms"]]
            profile["source"] = profile["source"].replace("measured", "replayed, native")

    reference, other = pair(slower, "balance_sweep")
    rows = comparison(CompareConfig((reference, other))).rows
    timed = [row for row in rows if row.clock == "simulated"]
    assert all(row.p50_ratio == 2 and row.p95_ratio == pytest.approx(3) for row in timed)
    assert all(row.p50_ratio is None for row in rows if row.clock == "paused")
    out = call("compare", reference, other).out
    assert "simulated (A measured; B replayed, native)" in out and "p95×" in out


def test_a_run_folder_stands_for_its_sweep(tmp_path, call, refused):
    changed(tmp_path / "run" / "sweep" / "sweep.json")
    found = call("compare", changed(tmp_path / "a.json"), tmp_path / "run")
    assert found.code == 0 and "3 rows: 3 identical" in found.out
    assert "holds no sweep/sweep.json" in refused("compare", tmp_path / "run", tmp_path)


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({"env": "other:Task-v0"}, "the environment is 'other:Task-v0'"),
        ({"env_kwargs": {"wind": 1}}, "--env-kwargs is {'wind': 1}, of the reference {}"),
        ({"limit": 20}, "the longest episode in ticks (--max-steps) is 20"),
        ({"success": "at-end"}, "--success is 'at-end', of the reference 'at-any-tick'"),
        ({"success_from": "won"}, "--success-from is 'won', of the reference None"),
        ({"score_from": "return"}, "--score-from is 'return'"),
        ({"control_dt_s": 0.5}, "the control period in seconds is 0.5"),
    ],
)
def test_results_of_other_tasks_are_refused(pair, refused, facts, said):
    told = refused("compare", *pair(head(**facts)))
    assert said in told and "do not belong together" in told


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("latency_cpu", "is a result of latency; expected one of eval, sweep, delays or suite"),
        ("suite_quick", "try TASK/sweep.json of one of its tasks"),
        ("recommendation", "is a result of simulation"),
        (DELAYS, "has a partner in"),
        ("door_human", "do not belong together"),
    ],
)
def test_files_that_cannot_be_compared_are_refused(refused, name, said):
    assert said in refused("compare", RESULTS / f"{SWEEP}.json", RESULTS / f"{name}.json")


def test_two_rows_of_one_budget_are_refused(tmp_path, refused):
    path = changed(tmp_path / "b.json", "door_human")
    assert "has several rows of 10 steps" in refused("compare", RESULTS / "door_human.json", path)


def test_damaged_files_are_refused(pair, tmp_path, refused):
    def shortened(data: dict) -> None:
        for values in data["records"][0]["outcomes"].values():
            values.pop()

    files = pair(shortened)
    assert "is damaged: v: 1 step has 399 outcomes; expected 400" in refused("compare", *files)
    files[1].write_text("{")
    assert "is not a JSON document" in refused("compare", *files)
    assert "No such file" in refused("compare", files[0], tmp_path / "absent.json")


def test_wrong_options_are_refused(pair, tmp_path, refused, snapshot):
    one, two = pair(losing(1))
    before = snapshot(tmp_path)
    assert "compare needs 2 to 26 files, the reference first; got 1" in refused("compare", one)
    assert "is given twice" in refused("compare", one, two, two)
    assert "would be overwritten" in refused("compare", one, two, "--json", two)
    (tmp_path / "run" / "sweep").mkdir(parents=True)
    kept = shutil.copy(one, tmp_path / "run" / "sweep" / "sweep.json")
    before = snapshot(tmp_path)
    assert "would be overwritten" in refused("compare", one, tmp_path / "run", "--json", kept)
    same = ("--json", tmp_path / "x", "--page", tmp_path / "x")
    assert "expected two files" in refused("compare", one, two, *same)
    assert "--margin must be positive" in refused("compare", one, two, "--margin", 0)
    page = ("--page", tmp_path / "b.json" / "p.html")
    assert "a folder was expected" in refused("compare", one, two, *page)
    assert snapshot(tmp_path) == before


def test_a_refused_comparison_leaves_no_folder(pair, tmp_path, refused, snapshot):
    one, two = pair(head(env="other:Task-v0"))
    before = snapshot(tmp_path)
    refused("compare", one, two, "--json", tmp_path / "new" / "c.json")
    assert snapshot(tmp_path) == before and not (tmp_path / "new").exists()


def test_results_with_odd_names_seeds_and_latencies_can_be_drawn_again(tmp_path, call):
    """A name that is not UTF-8, and one with control characters; the largest seeds; 1e-300 ms."""

    def least(data: dict) -> None:
        data["header"]["seeds"] = [2**62, 2**62 + 399]
        for row in data["records"]:
            row.update(clock="simulated", latency_ms=constant(1e-300))

    def slow(data: dict) -> None:
        least(data)
        data["records"][0].update(latency_ms=constant(1e10))

    reference = changed(tmp_path / os.fsdecode(b"a\xff.json"), change=least)
    other, out = changed(tmp_path / "b\n\x1b[31m.json", change=slow), tmp_path / "c.json"
    assert call("compare", reference, other, "--json", out, "--page", tmp_path / "p.html").code == 0
    assert call("report", out).code == 0
    result = read_result(out)
    assert [file.seeds[0] for file in result.files] == [2**62] * 2
    assert [row.p50_ratio for row in result.rows] == [None, 1.0, 1.0]


def constant(ms: float) -> dict:
    """Percentiles of a latency that is always the same."""
    return {"p50": ms, "p90": ms, "p99": None, "max": ms, "samples": 1}


def test_seeds_beyond_64_bits_are_refused(pair, refused):
    files = pair(head(seeds=[10**40, 10**40 + 399]))
    assert "header.seeds[0] must be at most" in refused("compare", *files)


def test_file_page_and_the_drawing_from_the_file_agree(pair, tmp_path, call):
    def hostile(data: dict) -> None:
        data["header"].update(run="<b>\x1b[2J</b>", runs=None, device="\x1b[2J")

    out = tmp_path / "out"
    options = ("--json", out / "c.json", "--page", out / "p.html", "--margin", 0.05)
    first = call("compare", *pair(hostile), *options)
    assert first.code == 0 and "\x1b" not in first.out
    again = call("report", out / "c.json").out
    assert "".join(again.splitlines()[1:-1]) == "".join(first.out.splitlines()[:-2])
    page = (out / "p.html").read_text()
    assert (out / "c.html").read_text() == page and "<b>" not in page
    assert page.count('class="differences"') == 1 and "http" not in page.replace("http-equiv", "")
    assert len((out / "c_budgets.csv").read_text().splitlines()) == 4


def test_every_table_is_within_100_columns(tmp_path, call):
    names = ("prediction_pusht", "prediction_pusht_v", "balance_sweep", "balance_whole")
    files = [changed(tmp_path / f"{name}.json", name) for name in names]
    out = call("compare", *files[:2], "--across", "best", "--margin", 0.05).out
    out += call("compare", *files[2:]).out
    late = [changed(tmp_path / f"{end}.json", f"{DELAYS}{end}") for end in ("", "_prefix")]
    out += call("compare", *late, "--across", "strategies").out + call("compare", *late).out
    assert max(map(len, out.splitlines())) <= 100


def test_results_of_an_older_version_are_told(tmp_path, call):
    names = ("pusht_whole", "pusht_grids")
    out = call("compare", *(changed(tmp_path / f"{n}.json", n) for n in names)).out
    assert "A, B: of an older version" in " ".join(out.split())


def suites(folder: Path, change=lambda data: None) -> Path:
    """The folder of a suite of two tasks, made of published results; the second is changed."""
    one, two = (
        changed(folder / f"{name}.json", "balance_sweep", c)
        for name, c in (("one", lambda data: None), ("two", change))
    )
    tasks = {"Balance-v0": json.loads(one.read_text()), "Catch-v0": json.loads(two.read_text())}
    protocol = {"seed": 0}
    text = json.dumps({"budget": "quick", "protocol": protocol, "tasks": tasks})
    (folder / "suite.json").write_text(text)
    return folder


def test_suites_are_compared_task_by_task(tmp_path, call):
    reference, other = suites(tmp_path / "a"), suites(tmp_path / "b", losing(20))
    out, page = tmp_path / "c.json", tmp_path / "p.html"
    told = call("compare", reference, other, "--json", out, "--page", page, "--fail-on-regression")
    assert told.code == 1 and "regression in" in told.out and "Catch-v0 B" in told.out
    result = read_result(out)
    assert [*result.tasks] == ["Balance-v0", "Catch-v0"] and result.left_out == []
    assert not result.tasks["Balance-v0"].regressions and result.tasks["Catch-v0"].regressions
    assert "2 tasks," in " ".join(told.out.split())
    again = call("report", out)
    assert again.code == 0 and (tmp_path / "c.html").read_text().count("Catch-v0: ") > 1
    assert (tmp_path / "c_budgets.csv").read_text().splitlines()[0].startswith("task,")
    text = page.read_text()
    assert "<h1>Suites: 1 against a reference</h1>" in text and "&#39;records&#39;" not in text
    assert "<dt>tasks</dt><dd>Balance-v0, Catch-v0</dd>" in text


def test_a_task_that_a_suite_lacks_is_told_and_other_files_are_refused(tmp_path, call, refused):
    reference, other = suites(tmp_path / "a"), suites(tmp_path / "b")
    data = json.loads((other / "suite.json").read_text())
    balance = data["tasks"].pop("Balance-v0")
    (other / "suite.json").write_text(json.dumps(data))
    told = call("compare", reference, other)
    assert told.code == 0 and "not in every suite: Balance-v0" in " ".join(told.out.split())
    assert "one is a suite" in refused("compare", reference, tmp_path / "a" / "one.json")
    data["tasks"] = {"Detour-v0": balance}
    (other / "suite.json").write_text(json.dumps(data))
    assert "no task is in every suite" in refused("compare", reference, other)
