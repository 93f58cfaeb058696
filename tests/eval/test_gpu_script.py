"""A dry run of eval/gpu.py with only the dependencies installed."""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from diffpolicy.eval import gpu
from diffpolicy.eval.bench.gpu_latency import numbers_read
from diffpolicy.eval.bench.gpu_plan import DRY, Result
from diffpolicy.eval.measure import provenance
from diffpolicy.eval.measure.diffusers_loop import DiffusersTraining, OneByOne
from diffpolicy.training.config import TrainConfig
from diffpolicy.training.preparation import prepare

ROOT = Path(__file__).parents[2]
PARTS = list(gpu.LIMITS_S)


def call(out: Path, *arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, str(ROOT / "eval" / "gpu.py"), *arguments, "--out", str(out)]
    return subprocess.run(command, capture_output=True, text=True, cwd=out, check=False)


@pytest.fixture(scope="module")
def dry(tmp_path_factory):
    pytest.importorskip("diffusers", reason="diffusers is not installed")
    out = tmp_path_factory.mktemp("gpu")
    return out, call(out, "--dry-run")


def test_every_part_runs_without_a_gpu(dry):
    out, done = dry
    assert done.returncode == 0, done.stdout + done.stderr
    for part in PARTS:
        found = json.loads((out / f"gpu_{part}.json").read_text())
        assert found["complete"] and found["dry_run"] and found["header"]["part"] == part
        assert not any("error" in value for value in found["found"].values())


def test_the_results_hold_what_was_measured(dry):
    out, done = dry
    latency, training, pusht = (
        json.loads((out / f"gpu_{part}.json").read_text())["found"] for part in PARTS[1:]
    )
    assert [(r["ddim_steps"], r["engine"]) for r in latency["mlp, float32"]["records"]] == [
        (k, engine) for k in (1, 2) for engine in ("eager", "diffusers")
    ]
    for record in latency["mlp, float32"]["records"]:
        assert record["floor_ms"] > 0 and record["ratio_to_baseline"] > 0
    assert latency["mlp, float32"]["records"][0]["encoder_ms"] is None
    for record in latency["unet-small-image, float32"]["records"]:
        assert 0 < record["encoder_ms"] < record["latency_ms"]["max"]
    assert training["default"]["steps_per_s"].keys() == {"ours", "diffusers"}
    assert {r["clock"] for r in pusht["1 episodes"]["records"]} == {"paused", "simulated"}
    assert (out / "gpu_sweep" / "sweep.json").exists()
    assert "p99.9 / p50" in done.stdout


def test_the_weights_of_an_encoder_are_read_once():
    weights = {"encoder.out.weight": torch.zeros(3, 2), "out.weight": torch.zeros(5)}
    assert [numbers_read(weights, k) for k in (1, 10)] == [11, 56]


def test_what_is_complete_is_not_repeated(dry):
    out, _ = dry
    before = {path: path.read_bytes() for path in out.glob("gpu_*.json")}
    done = call(out, "--dry-run")
    assert done.stdout.count("--again repeats it") == len(PARTS) and done.returncode == 0
    assert before == {path: path.read_bytes() for path in out.glob("gpu_*.json")}


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_gpu_and_without_demonstrations_it_says_so(tmp_path, demos):
    done = call(tmp_path, "--parts", "check")
    assert done.returncode == 1 and "--dry-run needs none" in done.stderr
    done = call(tmp_path, "--parts", "pusht", "--demos", str(tmp_path))
    assert done.returncode == 2 and "--demos must name a folder with" in done.stderr


def test_the_limits_fit_into_nine_minutes():
    assert sum(gpu.LIMITS_S.values()) <= 9 * 60


def test_a_part_that_takes_too_long_is_killed_with_its_children(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(gpu.LIMITS_S, "check", 1)
    package = tmp_path / "diffpolicy" / "eval" / "bench"
    package.mkdir(parents=True)
    sleep = "import subprocess, sys; subprocess.run(['sleep', '600'])"
    (package / "gpu_parts.py").write_text(f"import os; print(os.getpid(), flush=True)\n{sleep}\n")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "PYTHONSAFEPATH": "1"}
    gpu._run("check", [], environment)
    assert "was killed at its limit; its measurements so far are kept" in capsys.readouterr().out


def test_the_training_loop_of_today_sees_the_same_windows(balance_store, tmp_path):
    pytest.importorskip("diffusers", reason="diffusers is not installed")
    prepared = prepare(TrainConfig(data=balance_store, out=tmp_path, hidden=16, blocks=1))
    windows = prepared.training
    observation, action = OneByOne(windows)[3]
    expected = windows.gather([3])
    assert (observation.numpy() == expected[0]["observation"][0]).all()
    assert (action.numpy() == expected[1][0]).all()
    loop = DiffusersTraining(prepared.specification, windows, torch.device("cpu"), 16, workers=0)
    before = [p.clone() for p in loop.ema.parameters()]
    assert loop.learn() > 0
    assert any(not torch.equal(a, b) for a, b in zip(before, loop.ema.parameters(), strict=True))


def test_a_failure_stops_nothing_and_what_went_well_is_kept(tmp_path, monkeypatch):
    options = argparse.Namespace(out=tmp_path, again=False, dry_run=True)
    result = Result("check", options, DRY)
    result.once("bad", lambda: 1 / 0)
    result.once("good", lambda n: {"n": n}, 3)
    result.write(complete=not result.failed)
    found = json.loads((tmp_path / "gpu_check.json").read_text())
    assert not found["complete"] and "ZeroDivisionError" in found["found"]["bad"]["error"]
    again = Result("check", options, DRY)
    again.once("good", lambda n: {"n": n}, 4)
    assert again.found.keys() == {"good"} and again.found["good"]["n"] == 3
    monkeypatch.setattr(provenance, "now", lambda: "another day")
    monkeypatch.setattr(sys, "argv", ["diffpolicy", "another", "command"])
    assert Result("check", options, DRY).found.keys() == {"good"}
    options.again = True
    assert Result("check", options, DRY).found == {}
