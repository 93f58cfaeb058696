"""`info RUN`: ten lines with the best known result, and the specification with --json."""

import json
import shutil

import pytest


@pytest.fixture
def run(tiny_run, tmp_path):
    """A copy of the tiny run."""
    return shutil.copytree(tiny_run, tmp_path / "run")


def test_a_run_is_told_in_ten_lines(call, run):
    done = call("info", run)
    _, *lines = done.out.splitlines()
    told = {line.split(maxsplit=1)[0]: line.split(maxsplit=1)[1] for line in lines}
    widths = [len(line) for line in lines if not line.startswith("  data ")]  # of any path
    assert done.code == 0 and len(lines) == 10 and max(widths) <= 100
    assert told["task"].startswith("diffpolicy.envs:Balance-v0, 50 Hz")
    assert "6 episodes" in told["data"] and "20 of 20 steps" in told["trained"]
    assert told["best"] == "no result of eval or sweep names this run"
    assert "policy.safetensors" in told["size"] and "training.safetensors" in told["size"]


def test_the_best_result_has_its_number_of_episodes_and_its_step(call, run):
    few = ("--episodes", 2, "--max-steps", 5, "--ddim-steps", 1, "--engine", "eager")
    assert call("eval", "--run", run, *few, "--json", run / "r.json").code == 0
    [line] = [line for line in call("info", run).out.splitlines() if line.startswith("  best")]
    assert "in 2 episodes, the best of all: 1 step, paused, at step " in line


def test_the_specification_is_json_alone(call, run, tmp_path):
    done = call("info", run, "--json", "-")
    assert json.loads(done.out)["task"]["env_id"] == "diffpolicy.envs:Balance-v0"
    assert call("info", run, "--json", tmp_path / "s.json").code == 0
    assert json.loads((tmp_path / "s.json").read_text()) == json.loads(done.out)


def test_a_policy_file_alone_is_told_too(call, run, tmp_path):
    shutil.copy(run / "policy.safetensors", tmp_path / "other.safetensors")
    done = call("info", tmp_path / "other.safetensors")
    assert done.code == 0 and "policy only" in done.out


def test_json_of_a_store_is_refused(refused, balance_store):
    assert "--json is for a run" in refused("info", balance_store, "--json", "-")
