"""Closed-loop curve of a training: each step once in the log, whatever ends it, and no orphan."""

import json
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from diffpolicy.checkpoint import TRAINING_FILE, load_tensors
from diffpolicy.training import curve, tended
from diffpolicy.training import train as training
from diffpolicy.training.config import TrainConfig
from diffpolicy.training.learner import Learner

STEPS = 40


@pytest.fixture
def config(balance_store, tmp_path, monkeypatch) -> TrainConfig:
    monkeypatch.setattr(training, "LOG_EVERY", 10)
    return TrainConfig(
        data=balance_store,
        out=tmp_path / "run",
        steps=STEPS,
        eval_steps=10,
        hidden=32,
        blocks=1,
        batch=16,
        threads=1,
    )


@pytest.fixture
def evaluations(monkeypatch):
    """Function evaluations(code) that puts a short program in place of `diffpolicy eval`.

    It returns a list, which will hold the processes. In the program, result() writes a result.
    """
    started: list[subprocess.Popen] = []

    def use(code: str) -> list[subprocess.Popen]:
        prelude = (
            "import json, sys, time\n"
            "def result():\n"
            "    row = {'success_rate': 0.5, 'score_mean': 0.25}\n"
            "    json.dump({'records': [row]}, open(sys.argv[1], 'w'))\n"
        )

        def start(arguments, output: Path) -> subprocess.Popen:
            assert (output.parent / "policy.safetensors").exists()
            path = arguments[arguments.index("--json") + 1]
            command = [sys.executable, "-S", "-c", prelude + code, path]
            with output.open("wb") as file:
                process = subprocess.Popen(
                    command, stdin=subprocess.PIPE, stdout=file, stderr=subprocess.STDOUT
                )
            started.append(process)
            return process

        monkeypatch.setattr(tended, "start", start)
        return started

    return use


def lines(config: TrainConfig) -> list[dict]:
    return [json.loads(line) for line in (config.out / "log.jsonl").read_text().splitlines()]


def evaluated(config: TrainConfig) -> list[int]:
    return [line["step"] for line in lines(config) if "success" in line]


def before_each_step(monkeypatch, function) -> None:
    """Call function(step) before each step."""
    learn = Learner.learn

    def call_and_learn(self, *arguments):
        function(self.step)
        return learn(self, *arguments)

    monkeypatch.setattr(Learner, "learn", call_and_learn)


def power_cut(step: int) -> None:
    if step == 15:
        raise RuntimeError("power cut")


def test_the_last_point_is_what_eval_finds(config, call, capsys, tmp_path):
    config = replace(config, steps=20, eval_steps=30, eval_episodes=2, eval_ddim_steps=3)
    training.train(config)
    assert "evaluations ran during" in capsys.readouterr().out
    [line] = [line for line in lines(config) if "success" in line]
    assert line["step"] == 20 and line["evaluation_s"] > 0
    assert not (config.out / curve.FOLDER).exists()
    file = tmp_path / "eval.json"
    options = "--episodes 2 --seed 700000 --ddim-steps 3 --latency-ms 0 --engine eager --workers 1"
    assert call("eval", "--run", config.out, "--json", file, *options.split()).code == 0
    [row] = json.loads(file.read_text())["records"]
    assert (line["success"], line["score"]) == (row["success_rate"], row["score_mean"])


@pytest.mark.parametrize("every", [10, 15])
def test_every_mark_and_the_last_step_are_evaluated_once(config, evaluations, monkeypatch, every):
    started = evaluations("result()")
    before_each_step(monkeypatch, lambda _: [process.wait() for process in started])
    training.train(replace(config, eval_steps=every))
    assert evaluated(config) == sorted({*range(every, STEPS, every), STEPS})
    assert {line["score"] for line in lines(config) if "success" in line} == {0.25}


def test_marks_in_minutes_count_the_time_of_training(config):
    by_minutes = replace(config, eval_steps=None, eval_minutes=0.5)
    found = curve.Curve(by_minutes, None, None, None)  # pyright: ignore
    assert [found._marks(7, seconds) for seconds in (0, 29.9, 30, 95)] == [0, 0, 1, 3]


def test_a_mark_during_an_evaluation_is_left_out_and_told(config, evaluations, capsys):
    evaluations("time.sleep(1.5); result()")
    training.train(config)
    assert evaluated(config) == [10, STEPS]
    told = capsys.readouterr().out
    for step in (20, 30):
        assert f"no evaluation of step {step}: that of step 10 still runs" in told


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("sys.exit('diffpolicy: no such environment')", "exit status 1: no such environment"),
        ("pass", "No such file"),
        ("open(sys.argv[1], 'w').write('{')", "is not a JSON document"),
        ("open(sys.argv[1], 'w').write('{}')", "lacks records"),
        ("import os; os.kill(os.getpid(), 9)", "exit status -9: no output"),
    ],
)
def test_a_failed_evaluation_is_a_warning(config, evaluations, capsys, code, reason):
    evaluations(code)
    training.train(replace(config, eval_steps=STEPS))
    told = [t for t in capsys.readouterr().out.splitlines() if t.startswith("warning: the eval")]
    assert len(told) == 1 and reason in told[0] and f"step {STEPS} failed" in told[0]
    assert evaluated(config) == [] and not (config.out / curve.FOLDER).exists()
    assert load_tensors(config.out / TRAINING_FILE)[1]["step"] == STEPS


def test_an_interrupted_run_evaluates_each_step_once(config, evaluations, monkeypatch):
    """The evaluation that was interrupted is made again from its snapshot."""
    started = evaluations("time.sleep(60)")
    with monkeypatch.context() as patch:
        patch.setattr(training, "SAVE_EVERY_S", 0.0)
        before_each_step(patch, power_cut)
        with pytest.raises(RuntimeError, match="power cut"):
            training.train(config)
    assert [process.poll() for process in started] == [-signal.SIGTERM]
    assert [path.name for path in (config.out / curve.FOLDER).iterdir()] == ["step-10"]
    evaluations("result()")
    training.train(replace(config, resume=True, eval_steps=100))
    assert sorted(evaluated(config)) == [10, STEPS]
    training.train(replace(config, resume=True, eval_steps=100))
    assert sorted(evaluated(config)) == [10, STEPS]


def test_a_snapshot_of_a_step_that_is_made_again_is_removed(config, evaluations, monkeypatch):
    evaluations("result()")
    with monkeypatch.context() as patch:
        patch.setattr(curve.Curve, "_take", lambda self: None)
        before_each_step(patch, power_cut)
        with pytest.raises(RuntimeError, match="power cut"):
            training.train(config)  # before its first checkpoint
    assert (config.out / curve.FOLDER / "step-10").exists()
    training.train(replace(config, resume=True, eval_steps=100))
    assert evaluated(config) == [STEPS]


def test_a_signal_during_the_last_evaluation_ends_it(config, evaluations, monkeypatch):
    """The run is finished, and --resume makes up for the evaluation."""
    started = evaluations("time.sleep(60)")
    with monkeypatch.context() as patch:
        wait = curve.Curve._wait

        def interrupted(self, stopped):
            if self.process:
                stopped.append(signal.SIGINT)
            wait(self, stopped)

        patch.setattr(curve.Curve, "_wait", interrupted)
        with pytest.raises(KeyboardInterrupt):
            training.train(replace(config, eval_steps=100))
    assert [process.poll() for process in started] == [-signal.SIGTERM]
    evaluations("result()")
    training.train(replace(config, resume=True, eval_steps=100))
    assert evaluated(config) == [STEPS]


def test_a_killed_parent_leaves_no_process(tmp_path):
    store, output = tmp_path / "store.zarr", tmp_path / "output"
    code = (
        "import sys; from pathlib import Path; from diffpolicy.training import tended\n"
        "tended.start(sys.argv[2:], Path(sys.argv[1])).wait()"
    )
    command = ["record", "--env", "diffpolicy.envs:Balance-v0", "--episodes", "100000"]
    arguments = [str(output), *command, "--out", str(store)]
    parent = subprocess.Popen([sys.executable, "-c", code, *arguments])
    wait_until(lambda: store.exists())
    parent.kill()
    parent.wait()
    wait_until(lambda: "interrupted" in output.read_text().splitlines())  # zarr may say more


def wait_until(condition) -> None:
    """Wait for something that happens, or fail after two minutes."""
    end = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


SIZE = "--hidden 32 --blocks 1 --steps 3"


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ("--eval-steps 5 --eval-minutes 1", "give --eval-steps or --eval-minutes, not both"),
        ("--eval-ddim-steps 5", "--eval-ddim-steps needs --eval-steps or --eval-minutes"),
        ("--eval-steps 0", "--eval-steps must be positive; got 0"),
        ("--eval-minutes -1", "--eval-minutes must be positive; got -1.0"),
        ("--eval-steps 1 --eval-episodes 0", "--eval-episodes must be positive; got 0"),
        ("--eval-steps 1 --eval-ddim-steps 101", "--eval-ddim-steps: "),
        ("--eval-steps 1 --eval-ddim-steps 4 --objective regression", "--eval-ddim-steps: "),
        ("--eval-steps 1 --env none", "need an environment; got --env none; give --env ID"),
    ],
)
def test_evaluations_that_cannot_be_are_refused(balance_store, tmp_path, refused, options, line):
    out = tmp_path / "run"
    arguments = ["--data", balance_store, "--out", out, *SIZE.split(), *options.split()]
    assert line in refused("train", *arguments)
    assert not out.exists()
