"""Training: resume is exact, whatever ends a run leaves a usable checkpoint, the loss is masked."""

import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
import zarr

from diffpolicy import train as training
from diffpolicy.checkpoint import POLICY_FILE, TRAINING_FILE, Specification, load_tensors
from diffpolicy.config import ModelConfig, TrainConfig
from diffpolicy.environment import Task
from diffpolicy.errors import DiffpolicyError
from diffpolicy.learner import Learner, ema_decay, learning_rate
from diffpolicy.policy import Policy
from diffpolicy.windows import Horizons, make_windows

HORIZONS = Horizons(2, 8, 4)


def small_learner(position_targets: bool = False, prediction: str = "epsilon") -> Learner:
    task = Task("none", 0.1, position_targets, 3, 2)
    model = ModelConfig(hidden=32, blocks=1, prediction=prediction)  # pyright: ignore
    return Learner(Specification(model, HORIZONS, task, 1.0, {}), torch.device("cpu"))


def small_windows(lengths=(30, 40)):
    rng = np.random.default_rng(0)
    ends = np.cumsum(lengths)
    observations = rng.standard_normal((ends[-1], 3)).astype(np.float32)
    actions = np.tanh(observations[:, :2])
    return make_windows(observations, actions, ends, HORIZONS)


@pytest.fixture(scope="module")
def config(balance_store, tmp_path_factory) -> TrainConfig:
    return TrainConfig(
        data=balance_store,
        out=tmp_path_factory.mktemp("train") / "run",
        hidden=32,
        blocks=1,
        batch=32,
        steps=60,
        threads=1,
    )


@pytest.fixture(scope="module")
def uninterrupted(config):
    training.train(config)
    return load_tensors(config.out / TRAINING_FILE)[0]


def assert_same(run, expected) -> None:
    tensors, header = load_tensors(run / TRAINING_FILE)
    assert header["step"] == 60
    assert tensors.keys() == expected.keys()
    assert all(torch.equal(tensors[name], expected[name]) for name in expected)


@pytest.mark.parametrize("crash_at", [1, 17, 59])
def test_resume_ends_with_the_same_weights(config, uninterrupted, crash_at, tmp_path, monkeypatch):
    config = replace(config, out=tmp_path / "run")
    monkeypatch.setattr(training, "SAVE_EVERY_S", 0.0)
    learn = Learner.learn

    def crash(self, *arguments):
        if self.step == crash_at:
            raise RuntimeError("power cut")
        return learn(self, *arguments)

    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="power cut"):
        patch.setattr(Learner, "learn", crash)
        training.train(config)
    training.train(replace(config, resume=True))
    assert_same(config.out, uninterrupted)


def start_training(config: TrainConfig) -> subprocess.Popen:
    """The same run in a process of its own that saves after every step."""
    code = (
        "import diffpolicy.train as t, diffpolicy.cli as c, sys; t.SAVE_EVERY_S = 0.0; "
        "sys.argv = ['diffpolicy', *sys.argv[1:]]; c.main()"
    )
    options = ["--hidden", "32", "--blocks", "1", "--batch", "32", "--steps", "60"]
    options += ["--threads", "1", "--resume", "--data", config.data, "--out", config.out]
    command = [sys.executable, "-c", code, "train", *map(str, options)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def test_survives_kill_at_random_moments(config, uninterrupted, tmp_path):
    config = replace(config, out=tmp_path / "run")
    rng = np.random.default_rng(1)
    path = config.out / TRAINING_FILE
    for _ in range(10):
        process = start_training(config)
        before = path.stat().st_mtime_ns if path.exists() else 0
        while process.poll() is None:
            if path.exists() and path.stat().st_mtime_ns != before:
                time.sleep(rng.uniform(0, 0.05))
                process.kill()
                break
            time.sleep(0.001)
        process.communicate()
        if path.exists():
            Policy.load(config.out)
    training.train(replace(config, resume=True))
    assert_same(config.out, uninterrupted)


def test_resume_goes_on_to_the_target_of_before(config, tmp_path):
    out = tmp_path / "run"
    training.train(replace(config, out=out, steps=7))
    training.train(replace(config, out=out, steps=None, resume=True))
    assert load_tensors(out / TRAINING_FILE)[1]["step"] == 7


def test_resume_of_nothing_says_so(config, tmp_path, capsys):
    training.train(replace(config, out=tmp_path / "typo", steps=1, resume=True))
    assert "nothing to go on with in" in capsys.readouterr().out


def test_interrupt_leaves_a_usable_checkpoint(config, tmp_path):
    config = replace(config, out=tmp_path / "run")
    process = start_training(replace(config, data=config.data))
    while process.poll() is None and not (config.out / TRAINING_FILE).exists():
        time.sleep(0.001)
    os.kill(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert process.returncode in (130, 0)  # 0 where the run ended before the signal came
    assert b"Traceback" not in errors
    Policy.load(config.out)


def test_weights_that_are_not_finite_never_replace_a_checkpoint(config, tmp_path, monkeypatch):
    config = replace(config, out=tmp_path / "run")
    monkeypatch.setattr(training, "SAVE_EVERY_S", 0.0)
    learn = Learner.learn

    def diverge(self, *arguments):
        loss = learn(self, *arguments)
        if self.step == 9:
            self.parameters[0].data.fill_(np.nan)
        return loss

    monkeypatch.setattr(Learner, "learn", diverge)
    with pytest.raises(DiffpolicyError, match="no longer finite at step 9"):
        training.train(config)
    assert load_tensors(config.out / TRAINING_FILE)[1]["step"] == 8
    Policy.load(config.out)


def test_policy_without_its_training_state_is_not_overwritten(config, uninterrupted, tmp_path):
    out = tmp_path / "run"
    out.mkdir()
    (out / POLICY_FILE).write_bytes((config.out / POLICY_FILE).read_bytes())
    for resume in (False, True):
        with pytest.raises(DiffpolicyError, match="choose another --out"):
            training.train(replace(config, out=out, resume=resume))
    assert (out / POLICY_FILE).read_bytes() == (config.out / POLICY_FILE).read_bytes()


def test_actions_beyond_the_episode_count_only_where_they_are_position_targets():
    windows = small_windows(lengths=[1] * 20)

    def network(x, t, observation):
        _, action, real = windows.gather(np.arange(20))
        wrong = torch.full((20, HORIZONS.prediction, 2), 100.0)
        return torch.where(torch.from_numpy(real)[..., None], torch.from_numpy(action), wrong)

    everything = replace(windows, newest=windows.newest[:1], first=windows.first[:1])
    everything = replace(everything, last=windows.last[:1])

    def first_only(x, t, observation):
        return network(x, t, observation)[:1].expand_as(x)

    for position_targets, loss_is_zero in ((False, True), (True, False)):
        learner = small_learner(position_targets, prediction="x0")
        loss = learner.loss(first_only, everything, 5, torch.Generator().manual_seed(0))
        assert (float(loss) == 0) == loss_is_zero


def test_learning_lowers_the_loss():
    learner, windows = small_learner(), small_windows()
    before = learner.validation_loss(windows)
    for _ in range(200):
        learner.learn(windows, 64, 0.0)
    assert learner.validation_loss(windows) < 0.7 * before


def test_ema_starts_at_the_weights_and_forgets_ever_more_slowly():
    decays = [ema_decay(n) for n in range(0, 10**6, 1000)]
    assert decays[0] == 0
    assert all(a <= b for a, b in pairwise(decays))
    assert decays[-1] <= 0.9999


def test_learning_rate_warms_up_then_falls_to_zero():
    assert learning_rate(1.0, 0, 0.0) == pytest.approx(1 / 500)
    assert learning_rate(1.0, 499, 0.0) == 1.0
    assert learning_rate(1.0, 10_000, 0.5) == pytest.approx(0.5)
    assert learning_rate(1.0, 10_000, 1.0) == pytest.approx(0.0)


def test_log_is_cut_back_to_the_resumed_step(tmp_path):
    (tmp_path / "log.jsonl").write_text('{"step": 100}\n{"step": 200}\n{"step": 3')
    training.Log(tmp_path, 150).write({"step": 200})
    assert (tmp_path / "log.jsonl").read_text() == '{"step": 100}\n{"step": 200}\n'


@pytest.mark.parametrize(
    ("option", "stored", "expected"),
    [(None, None, False), (None, True, True), (False, True, False), (True, False, True)],
)
def test_position_targets_are_the_option_s_the_store_s_or_the_environment_s(
    balance_store, tmp_path, option, stored, expected
):
    shutil.copytree(balance_store, tmp_path / "store")
    attributes = zarr.open_group(tmp_path / "store", mode="a").attrs
    attributes.update({"position_targets": stored})
    small = {"steps": 1, "hidden": 16, "blocks": 1, "device": "cpu", "position_targets": option}
    out = tmp_path / "run"
    training.train(TrainConfig(data=tmp_path / "store", out=out, **small))
    assert Policy.load(out).task.position_targets is expected
