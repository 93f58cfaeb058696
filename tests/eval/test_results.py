"""Files of results: every one opens, also of before; what is written is read again; flat CSV."""

import ast
import csv
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from diffpolicy.errors import DiffpolicyError
from diffpolicy.eval.measure.result_files import (
    FORMAT_VERSION,
    DelaysResult,
    EvalResult,
    LatencyFile,
    Result,
    SuiteResult,
    SweepResult,
    read_result,
    write_result,
)
from diffpolicy.eval.report.flat import budgets, episodes

RESULTS = Path(__file__).parents[2] / "eval" / "results"
FILES = sorted(RESULTS.glob("*.json"))
DRAWN = {
    DelaysResult: {".png", ".html"},
    SweepResult: {".png", ".html"},
    SuiteResult: {".png", ".html"},
}
SIMULATION = RESULTS / "recommendation.json"
TEX = r"$\frac{$"
every_file = pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)


def written(path: Path, result: Result) -> dict:
    write_result(path, result)
    return json.loads(path.read_text())


@every_file
def test_a_published_result_opens_and_is_the_same_when_written_again(path, tmp_path):
    result = read_result(path)
    assert written(tmp_path / path.name, result)["format_version"] == FORMAT_VERSION
    assert read_result(tmp_path / path.name) == result


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("balance_delays", DelaysResult),
        ("balance_sweep", SweepResult),
        ("door_human", EvalResult),
        ("latency_cpu", LatencyFile),
        ("suite_quick", SuiteResult),
    ],
)
def test_fields_tell_the_format_of_a_file_that_does_not(name, kind):
    assert type(read_result(RESULTS / f"{name}.json")) is kind


def test_numbers_keep_their_names_and_values(tmp_path):
    path = RESULTS / "balance_sweep.json"
    before, after = json.loads(path.read_text()), written(tmp_path / "r.json", read_result(path))
    for old, new in zip(before["records"], after["records"], strict=True):
        for name in old.keys() - {"outcomes", "audit"}:
            assert new[name] == old[name]
        for part in ("outcomes", "audit"):
            assert new[part].items() >= old[part].items()
    assert after["profiles"] == before["profiles"]
    assert after["header"]["seeds"] == before["header"]["seeds"]


def test_names_in_code_are_read_like_those_in_json(tmp_path):
    path = RESULTS / "latency_cpu.json"
    old = json.loads(path.read_text())
    new = {"format": "latency", "provenance": old["header"], "rows": old["records"]}
    (tmp_path / "new.json").write_text(json.dumps(new))
    assert read_result(tmp_path / "new.json") == read_result(path)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("3", "is not a result; expected"),
        ("{}", "is not a result"),
        ("[]", "got []"),
        ('{"format": "eval"}', "lacks header, records"),
        ('{"records": []}', "is not a result"),
        (f'{{"format_version": {FORMAT_VERSION + 1}}}', "try a newer diffpolicy"),
        ('{"format": "eval", "records": []}', "lacks header"),
        ('{"tasks": {}, "budget": "quick", "protocol": {}}', "needs at least one value"),
        ("{", "JSON document"),
    ],
)
def test_what_is_no_result_is_refused(tmp_path, refused, text, said):
    path = tmp_path / "bad.json"
    path.write_text(text)
    with pytest.raises(DiffpolicyError, match=re.escape(said)):
        read_result(path)
    assert said in refused("report", path)
    assert [file.name for file in tmp_path.iterdir()] == ["bad.json"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda row: row["outcomes"]["score"].pop(), r"records\[0\]\.outcomes: .* as many"),
        (lambda row: row["success_ci"].pop(), r"records\[0\]\.success_ci must be a list of 2"),
        (lambda row: row["latency_ms"].pop("p50"), r"latency_ms lacks p50"),
        (lambda row: row.update(success_rate=2), r"success_rate must be at most 1"),
    ],
)
def test_a_damaged_row_is_refused(tmp_path, change, said):
    data = json.loads((RESULTS / "balance_delays.json").read_text())
    change(data["records"][0])
    (tmp_path / "r.json").write_text(json.dumps(data))
    with pytest.raises(DiffpolicyError, match=said):
        read_result(tmp_path / "r.json")


def changed(tmp_path: Path, name: str, change) -> Path:
    """A published result, changed."""
    data = json.loads((RESULTS / f"{name}.json").read_text())
    change(data)
    path = tmp_path / f"{name}.json"
    path.write_text(json.dumps(data))
    return path


@pytest.mark.parametrize("file", ["/etc/passwd", "../secret.png", "a/../../secret.png", "", "a\0b"])
def test_a_picture_or_task_outside_the_folder_is_refused(tmp_path, refused, file):
    picture = {"title": "t", "caption": "c", "file": file}
    sweep = changed(tmp_path, "balance_sweep", lambda data: data.update(pictures=[picture]))
    assert "expected a path inside the folder of the result" in refused("report", sweep)
    suite = changed(
        tmp_path,
        "suite_quick",
        lambda data: data.update(tasks={file: data["tasks"]["Balance-v0"]}),
    )
    assert "expected a path inside the folder of the result" in refused("report", suite)


def hostile(field: str, value: object):
    """A change of the first row."""
    *path, last = field.split(".")

    def change(data: dict) -> None:
        row = data["records"][0]
        for name in path:
            row = row[name]
        row[last] = value

    return change


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *[("ticks", 10**300), ("success_ci", [-1e308, 1e308]), ("score_ci", [-1e308, 1e308])],
        *[("delay_ticks", 1e308), ("latency_ms.p50", 1e308), ("latency_ms.p50", -1)],
        *[("name", "\x1b[2J"), ("clock", "a\nb"), ("latency_source", "\u202e")],
        *[("score_mean", 1e308), ("outcomes.score", [1e308]), ("starved_ticks", 10**400)],
    ],
)
def test_a_hostile_row_is_refused_in_one_line(tmp_path, refused, field, value):
    path = changed(tmp_path, "balance_delays", hostile(field, value))
    assert field in refused("report", path)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("rule", [{"size": 0.1}, {"size": 0.1, "power": 7}, {"size": "x"}, 3])
def test_a_hostile_simulation_is_refused_in_one_line(tmp_path, refused, rule):
    path = changed(tmp_path, "recommendation", lambda data: data[0].update(rules={"each": rule}))
    assert "each" in refused("report", path)
    path = changed(tmp_path, "recommendation", lambda data: data[0].update(rules={"\x1b": rule}))
    assert "printable" in refused("report", path)


@pytest.mark.parametrize("name", ["balance_sweep", "balance_delays"])
def test_dollars_are_no_mathematics(tmp_path, call, name):
    def change(data: dict) -> None:
        data["header"]["env"] = TEX
        for row in data["records"]:
            row.update(name=TEX, variant=TEX, engine=TEX, latency_source=TEX)

    assert call("report", changed(tmp_path, name, change)).code == 0


def test_dollars_of_a_suite_are_no_mathematics(tmp_path, call):
    def change(data: dict) -> None:
        data["tasks"] = {TEX.replace("/", ""): data["tasks"]["Balance-v0"]}
        for row in data["tasks"][TEX]["records"]:
            row.update(name=TEX, clock=TEX)

    assert call("report", changed(tmp_path, "suite_quick", change)).code == 0


def test_a_page_with_pictures_is_not_replaced_by_one_without(tmp_path, refused, call):
    path = tmp_path / "sweep.json"
    path.write_bytes((RESULTS / "balance_whole.json").read_bytes())
    (tmp_path / "report.html").write_text("pictures")
    assert "give --out FOLDER" in refused("report", path)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["report.html", "sweep.json"]
    assert (tmp_path / "report.html").read_text() == "pictures"
    assert call("report", path, "--out", tmp_path / "new").code == 0


def test_results_of_one_name_are_not_written_to_one_folder(tmp_path, refused):
    paths = [tmp_path / folder / "sweep.json" for folder in "ab"]
    for path in paths:
        path.parent.mkdir()
        path.write_bytes((RESULTS / "balance_sweep.json").read_bytes())
    assert "would be written twice" in refused("report", *paths, "--out", tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("name", ["x.png", "x.html"])
def test_a_result_file_is_not_its_own_product(tmp_path, refused, name):
    path = tmp_path / name
    path.write_bytes((RESULTS / "balance_sweep.json").read_bytes())
    assert "would be overwritten" in refused("report", path)
    assert list(tmp_path.iterdir()) == [path]


def test_report_needs_a_file(refused):
    assert "give at least one result file" in refused("report")


def test_only_png_inside_the_folder_are_embedded(tmp_path, call):
    (tmp_path / "in").mkdir()
    png = (RESULTS / "balance_sweep.png").read_bytes()
    (tmp_path / "outside.png").write_bytes(png)
    (tmp_path / "in" / "link.png").symlink_to(tmp_path / "outside.png")
    (tmp_path / "in" / "text.png").write_text("secret")
    (tmp_path / "in" / "good.png").write_bytes(png)
    names = ("link.png", "text.png", "good.png")
    pictures = [{"title": name, "caption": "c", "file": name} for name in names]
    path = changed(tmp_path / "in", "balance_sweep", lambda d: d.update(pictures=pictures))
    assert call("report", path).code == 0
    page = (tmp_path / "in" / "balance_sweep.html").read_text()
    assert page.count("<img") == 1  # good.png
    assert page.count("is absent or no PNG or WebP in the folder of the result") == 2


@pytest.mark.parametrize(
    "name",
    ["pusht_delays", "pusht_grids", "door_human", "latency_cpu", "suite_quick", "recommendation"],
)
def test_report_draws_every_format(name, tmp_path, call):
    path = RESULTS / f"{name}.json"
    done = call("report", path, "--out", tmp_path)
    assert (done.code, done.errors) == (0, [])
    drawn = DRAWN.get(type(read_result(path)), set())
    assert {file.suffix for file in tmp_path.iterdir()} == {".csv"} | drawn


def lines(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def test_csv_holds_every_episode_and_every_row(tmp_path, call):
    path = RESULTS / "balance_delays.json"
    assert call("report", path, "--out", tmp_path).code == 0
    result = read_result(path)
    assert isinstance(result, DelaysResult)
    found = lines(tmp_path / "balance_delays_episodes.csv")
    columns = ("budget", "clock", "latency_source", "seed", "success", "score", "success_tick")
    assert tuple(found[0]) == columns
    successes = [success for row in result.rows for success in row.outcomes.success]
    assert [int(line["success"]) for line in found] == successes
    first, last = result.provenance.seeds
    seeds = list(range(first, last + 1))
    assert [int(line["seed"]) for line in found] == seeds * len(result.rows)
    rows = lines(tmp_path / "balance_delays_budgets.csv")
    assert [float(line["success_rate"]) for line in rows] == [r.success_rate for r in result.rows]
    assert "samples_ms" not in rows[0] and rows[0]["budget"] == found[0]["budget"]
    assert {"ticks", "latency_ms.p50", "success_ci_low", "score_ci_high"} <= rows[0].keys()


def test_csv_joins_the_names_of_objects_by_a_dot(tmp_path, call):
    path = changed(
        tmp_path,
        "balance_delays",
        lambda data: data["records"][1].update(tick_late_ms={"p50": 0.5, "max": 2.0}),
    )
    assert call("report", path).code == call("report", SIMULATION, "--out", tmp_path).code == 0
    rows = lines(tmp_path / "balance_delays_budgets.csv")
    assert [row["tick_late_ms.p50"] for row in rows[:2]] == ["", "0.5"]
    [scenario, *_] = lines(tmp_path / "recommendation_budgets.csv")
    assert (scenario["rules.each.size"], scenario["rules.each.power"]) == ("0.0383", "0.9617")


def test_a_suite_s_lines_name_their_task():
    result = read_result(RESULTS / "suite_quick.json")
    assert isinstance(result, SuiteResult)
    for found in (episodes(result), budgets(result)):
        assert {line["task"] for line in found} == set(result.tasks)


def test_results_are_drawn_without_torch():
    code = "import sys, diffpolicy.eval.redraw; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def imports(path: Path) -> set[str]:
    nodes = [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.ImportFrom)]
    return {"." * node.level + (node.module or "") for node in nodes}


def test_reports_import_results_and_nothing_else_of_measurement():
    found = set().union(*map(imports, (RESULTS.parent / "report").glob("*.py")))
    ours = {name for name in found if name.startswith(("..", "diffpolicy"))}
    kinds = ("results", "decisions", "result_files", "offline_results", "replay_results")
    kinds += ("comparison_results", "run_facts", "simulated", "timelines", "computer", "denoising")
    results = {f"..measure.{kind}" for kind in kinds}
    library = {f"diffpolicy.{name}" for name in ("files", "checkpoint", "terminal.output")}
    assert ours == {*results, *library, "..significance"}
