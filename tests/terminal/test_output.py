"""--quiet, --verbose and --json -: what a command prints, and where."""

import json
import logging
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from diffpolicy.cli import COMMANDS, named
from diffpolicy.eval.measure.decisions import BudgetMean, Decision
from diffpolicy.eval.measure.results import LatencyResult, Percentiles
from diffpolicy.eval.report.sentences import reason
from diffpolicy.eval.report.table import print_latencies, print_table
from diffpolicy.terminal.output import WIDTH, command_output, is_quiet, print_alone, say, wrapped

EVAL = ("--episodes", 1, "--max-steps", 5, "--ddim-steps", 1, "--workers", 1)


def test_a_quiet_command_says_nothing_and_restores_the_logger(capsys):
    with command_output(quiet=True):
        assert is_quiet()
        say("progress")
        logging.getLogger("diffpolicy").warning("warning: kept")
    assert capsys.readouterr().out == "warning: kept\n" and not is_quiet()


@pytest.mark.parametrize(("verbose", "shown"), [(True, "why\n"), (False, "")])
def test_reasons_are_shown_on_request(capsys, verbose, shown):
    with command_output(verbose=verbose):
        logging.getLogger("diffpolicy").debug("why")
    assert capsys.readouterr().out == shown


def test_a_result_alone_is_on_stdout_whatever_children_print():
    script = "\n".join(
        [
            "import os, subprocess, sys",
            "from diffpolicy.terminal.output import command_output, print_alone, say",
            "with command_output(only=True):",
            "    say('progress')",
            "    print_alone('{}')",
            "    subprocess.run([sys.executable, '-c', 'print(1)'])",
            "    os.write(1, b'raw')",
        ]
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout == "{}\n"
    assert "progress" in done.stderr and "1" in done.stderr and "raw" in done.stderr


def fail():
    print_alone("{}")
    raise ValueError("late")


def test_a_command_that_fails_prints_no_result(capsys):
    before = os.fstat(1).st_ino
    with pytest.raises(ValueError, match="late"), command_output(only=True):
        fail()
    assert capsys.readouterr().out == "" and os.fstat(1).st_ino == before


def test_eval_prints_its_result_alone(call, tiny_run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = call("eval", "--run", tiny_run, *EVAL, "--json", "-", "--engine", "eager")
    found = json.loads(done.out)
    assert (done.code, found["format"], len(found["records"])) == (0, "eval", 1)
    assert any("1 network evaluation" in line for line in done.errors)
    assert not list(tmp_path.iterdir())


def test_compare_and_runs_print_their_results_alone(call, tiny_run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = Path(__file__).parents[2] / "eval" / "results" / "prediction_balance.json"
    done = call("compare", result, shutil.copy(result, "b.json"), "--json", "-")
    assert (done.code, json.loads(done.out)["format"]) == (0, "compare")
    failing = ("--margin", 1e-6, "--fail-on-regression")
    done = call("compare", result, "b.json", "--json", "-", *failing)
    assert (done.code, json.loads(done.out)["margin"]) == (1, 1e-6)
    done = call("runs", tiny_run.parent, "--json", "-")
    assert [run["name"] for run in json.loads(done.out)["runs"]] == [tiny_run.name]
    assert [path.name for path in tmp_path.iterdir()] == ["b.json"]
    assert "--page - is not a file" in call("compare", result, "b.json", "--page", "-").errors[0]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_json_option_takes_the_standard_output(call, name):
    options = named(COMMANDS[name][0])
    if "json" in getattr(options, "__dataclass_fields__", {}):
        words = " ".join(call(name, "--help").out.replace("│", " ").split())
        assert "standard output" in words[words.index("--json") :]


def test_a_quiet_eval_prints_the_table_alone(call, tiny_run):
    done = call("eval", "--run", tiny_run, *EVAL, "--quiet", "--engine", "eager")
    assert (done.code, done.errors) == (0, [])
    assert "network evaluation" not in done.out and "paused (zero latency), n = 1:" in done.out


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_takes_quiet(call, name):
    assert "--quiet" in call(name, "--help").out


def test_a_quiet_record_prints_its_result_alone(call, tmp_path):
    given = ("--env", "diffpolicy.envs:Balance-v0", "--episodes", 1, "--out", tmp_path / "a.zarr")
    done = call("record", *given, "--quiet")
    assert (done.code, done.errors) == (0, []) and len(done.out.splitlines()) == 1
    assert "1 episodes kept" in done.out


@pytest.mark.parametrize("command", ["eval", "sweep", "latency"])
def test_quiet_and_verbose_exclude_each_other(refused, tiny_run, command):
    line = refused(command, "--run", tiny_run, "--quiet", "--verbose")
    assert line == "diffpolicy: give --quiet or --verbose, not both"


def test_a_table_that_is_too_wide_gives_names_lines_of_their_own(capsys):
    print_table(["budget", *("p50",) * 9], [["name " * 10, *("1234567",) * 9]])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4 and max(map(len, lines)) <= WIDTH


@pytest.mark.parametrize("columns", [2, 14, 40])
def test_a_table_of_any_number_of_columns_keeps_to_the_width(capsys, columns):
    titles, rows = [f"title {i}" for i in range(columns)], [[str(i) for i in range(columns)]]
    print_table(titles, rows)
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= WIDTH
    assert out.split() == [*" ".join(titles).split(), *rows[0]]


@pytest.mark.parametrize("loads", [("quiet", "quiet"), ("quiet", "disturbed")])
def test_a_table_of_latencies_with_a_baseline_has_a_line_for_each_row(capsys, loads):
    result = LatencyResult(
        **{"net": "mlp", "ddim_steps": 100, "network_evals": 100, "engine": "diffusers"},
        **{"threads": 16, "p50_ms": 123.4, "p99_ms": 234.5, "ratio_to_baseline": 23.2},
        **{"max_abs_diff": 7.15e-7, "gpu_ms": None, "precision": "float32", "parameters": 1},
        latency_ms=Percentiles(
            p50=123.4, p90=134.5, p99=234.5, p99_9=345.6, max=456.7, samples=3008
        ),
        samples_ms=[1.0],
    )
    rows = [replace(result, load=load) for load in loads]
    print_latencies(SimpleNamespace(rows=rows, provenance=SimpleNamespace(deadline_ms=None)))
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= WIDTH
    assert len(lines) == 4 and ("quiet" in lines[0]) == (len(set(loads)) == 1)


def test_the_number_for_equals_is_not_told_beside_unequal_means():
    seen = Decision(
        verdict="too-few-episodes",
        metric="success",
        margin=0.05,
        floor=0.5,
        episodes=4,
        best=BudgetMean("4 steps", 0.5),
        chosen=BudgetMean("4 steps", 0.5),
        rival=BudgetMean("1 step", 0.0),
        episodes_needed=857,
    )
    assert "857" not in reason(seen) and "4 steps 0.50, 1 step 0.00" in reason(seen)
    alike = replace(seen, rival=BudgetMean("1 step", 0.5))
    assert "about 857 would suffice" in reason(alike)


def test_a_paragraph_is_within_100_columns_and_breaks_no_command():
    command = "`diffpolicy sweep --run runs/balance --accept-disturbed`"
    text = f"{'word ' * 15}{command} {'more-words ' * 12}" + "x" * 120
    lines = wrapped(text).splitlines()
    assert all(len(line) <= 100 for line in lines[:-1]) and lines[-1].strip() == "x" * 120
    assert command in wrapped(text) and " ".join(wrapped(text).split()) == text


@pytest.mark.parametrize("buffered", ["", "1"])
@pytest.mark.parametrize("arguments", [("--help",), ("train", "--help")])
def test_a_reader_that_has_ended_is_no_error(arguments, buffered):
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "diffpolicy", *arguments]
    environment = {**os.environ, "PYTHONUNBUFFERED": buffered}
    done = subprocess.run(
        command, stdout=write, stderr=subprocess.PIPE, env=environment, check=False
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (141, b"")


def test_a_command_needs_no_stdout():
    command = [sys.executable, "-m", "diffpolicy", "--version"]
    closed = subprocess.run(
        ["sh", "-c", 'exec "$@" >&-', "sh", *command], capture_output=True, check=False
    )
    assert (closed.returncode, closed.stderr) == (0, b"")
