"""Training: exact resume, usable checkpoints after any interruption, masked loss."""

import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from itertools import pairwise
from multiprocessing import get_context

import gymnasium
import numpy as np
import pytest
import torch
import zarr
from conftest import as_version_1, as_version_3, as_version_4, as_version_5, rewrite

from diffpolicy.checkpoint import POLICY_FILE, TRAINING_FILE, Checkpoint, load_tensors, save_policy
from diffpolicy.config import ModelConfig
from diffpolicy.data.normalizer import fit_limits
from diffpolicy.data.windows import make_windows
from diffpolicy.errors import DiffpolicyError
from diffpolicy.policy import Policy
from diffpolicy.specification import FLAT, Horizons, Specification, Task, flat_observation
from diffpolicy.training import train as training
from diffpolicy.training.config import TrainConfig
from diffpolicy.training.learner import Learner, ema_decay, learning_rate
from diffpolicy.training.preparation import read

HORIZONS = Horizons(2, 8, 4)


def small_learner(position_targets: bool = False, prediction: str = "epsilon") -> Learner:
    task = Task("none", 0.1, position_targets, flat_observation(3), 2)
    model = ModelConfig(hidden=32, blocks=1, prediction=prediction)  # pyright: ignore
    return Learner(Specification(model, HORIZONS, task, 1.0, {}), torch.device("cpu"))


def small_windows(lengths=(30, 40)):
    rng = np.random.default_rng(0)
    ends = np.cumsum(lengths)
    observations = rng.standard_normal((ends[-1], 3)).astype(np.float32)
    actions = np.tanh(observations[:, :2])
    return make_windows({FLAT: observations}, actions, ends, HORIZONS)


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
        beta2=0.999,  # as older runs have it
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


def train_until(step: int, config: TrainConfig) -> None:
    """Train, save after every step, and raise at a step."""
    learn = Learner.learn

    def crash(self, *arguments):
        if self.step == step:
            raise RuntimeError("power cut")
        return learn(self, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "SAVE_EVERY_S", 0.0)
        patch.setattr(Learner, "learn", crash)
        training.train(config)


@pytest.mark.parametrize("crash_at", [1, 17, 59])
def test_resume_ends_with_the_same_weights(config, uninterrupted, crash_at, tmp_path):
    config = replace(config, out=tmp_path / "run")
    with pytest.raises(RuntimeError, match="power cut"):
        train_until(crash_at, config)
    training.train(replace(config, resume=True))
    assert_same(config.out, uninterrupted)


def train_saving_every_step(config: TrainConfig) -> None:
    training.SAVE_EVERY_S = 0.0
    training.train(config)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_survives_kill_at_random_moments(config, uninterrupted, tmp_path):
    """Every process is a fork, so that torch is imported once."""
    config = replace(config, out=tmp_path / "run", resume=True)
    rng = np.random.default_rng(1)
    path = config.out / TRAINING_FILE
    killed = 0
    for _ in range(10):
        process = get_context("fork").Process(target=train_saving_every_step, args=(config,))
        before = path.stat().st_mtime_ns if path.exists() else 0
        process.start()
        while process.is_alive():
            if path.exists() and path.stat().st_mtime_ns != before:
                time.sleep(rng.uniform(0, 0.01))
                process.kill()
                break
            time.sleep(0.001)
        process.join()
        killed += process.exitcode == -signal.SIGKILL
        if path.exists() and load_tensors(path)[1]["step"] > 1:  # the policy is saved after it
            Policy.load(config.out)
    assert killed
    training.train(config)
    assert_same(config.out, uninterrupted)


def test_resume_goes_on_to_the_target_of_before(config, tmp_path):
    out = tmp_path / "run"
    training.train(replace(config, out=out, steps=7))
    training.train(replace(config, out=out, steps=None, resume=True))
    assert load_tensors(out / TRAINING_FILE)[1]["step"] == 7


def test_resume_of_nothing_says_so(config, tmp_path, capsys):
    training.train(replace(config, out=tmp_path / "typo", steps=1, resume=True))
    assert "holds no checkpoint; training from scratch" in capsys.readouterr().out


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


@pytest.mark.parametrize("name", ["ema.enter.weight", "adam.exp_avg_sq.enter.bias"])
def test_a_state_that_is_not_finite_is_neither_saved_nor_resumed(
    config, uninterrupted, tmp_path, monkeypatch, name
):
    def spoil(header, tensors):
        tensors[name] = torch.full_like(tensors[name], torch.nan)

    run = tmp_path / "run"
    shutil.copytree(config.out, run)
    rewrite(run / TRAINING_FILE, spoil)
    with pytest.raises(DiffpolicyError, match=f"{name}' is not finite"):
        training.train(replace(config, out=run, steps=61, resume=True))

    tensors, broken = Learner.tensors, {name: torch.tensor([torch.inf])}
    monkeypatch.setattr(Learner, "tensors", lambda self: tensors(self) | broken)
    with pytest.raises(DiffpolicyError, match="no longer finite at step 1"):
        training.train(replace(config, out=tmp_path / "other", steps=1))
    assert not (tmp_path / "other" / TRAINING_FILE).exists()


def test_beta2_is_the_decay_of_the_squared_gradients(config, tmp_path):
    """After one step the moments are (1 - β₁) g and (1 - β₂) g² (arXiv 1412.6980)."""
    training.train(replace(config, out=tmp_path / "run", steps=1, beta2=0.75))
    tensors, _ = load_tensors(tmp_path / "run" / TRAINING_FILE)
    gradient = tensors["adam.exp_avg.leave.1.weight"] / 0.1
    assert gradient.abs().max() > 0
    torch.testing.assert_close(
        tensors["adam.exp_avg_sq.leave.1.weight"], 0.25 * gradient.square(), rtol=1e-4, atol=0
    )


def without(word):
    def change(header, tensors):
        for name in [name for name in tensors if word in name]:
            del tensors[name]

    return change


def older(header, tensors):
    """As runs were with the defaults of before, when β₂ was no option, but 0.999."""
    del header["identity"]["beta2"]
    header["identity"] |= {"lr": 0.001, "weight_decay": 1e-6}


def reshaped(name):
    return lambda header, tensors: tensors.update({name: torch.ones(3)})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without("ema.enter.weight"), "'ema.enter.weight' does not fit"),
        (without("network.enter.weight"), "'network.enter.weight' does not fit"),
        (without("exp_avg_sq"), "'adam.exp_avg_sq"),
        (without("adam.step"), "'adam.step"),
        (reshaped("ema.enter.bias"), "'ema.enter.bias' does not fit"),
        (reshaped("adam.exp_avg.enter.bias"), "'adam.exp_avg.enter.bias' does not fit"),
        (reshaped("adam.step.enter.bias"), "'adam.step.enter.bias' does not fit"),
        (reshaped("new"), "'new' does not fit the header; expected nothing"),
        (lambda header, tensors: header.update(step="x"), "step must be a whole number"),
        (lambda header, tensors: header.update(identity=[]), "identity must be an object"),
        (lambda header, tensors: header.update(identity={}), "was started with data = None"),
        (
            older,
            r"started with lr = 0\.001, weight_decay = 1e-06, not 0\.002, 0\.1; resume with the "
            "data and options it was started with",
        ),
    ],
)
def test_a_damaged_state_is_not_resumed(config, uninterrupted, tmp_path, snapshot, change, message):
    run = tmp_path / "run"
    shutil.copytree(config.out, run)
    rewrite(run / TRAINING_FILE, change)
    before = snapshot(run)
    with pytest.raises(DiffpolicyError, match=message):
        training.train(replace(config, out=run, steps=61, resume=True))
    assert snapshot(run) == before


@pytest.mark.parametrize(
    "line",
    [b"\xff\xfe", b'{"step": null}', b'{"step": "1"}', b'{"step": NaN}', b"[" * 100_000, b"[]"],
)
def test_lines_of_a_log_that_are_none_are_left_out(tmp_path, line):
    good = b'{"step": 100}\n'
    (tmp_path / "log.jsonl").write_bytes(good + line + b"\n" + good)
    training.Log(TrainConfig(data=tmp_path, out=tmp_path), 150)
    assert (tmp_path / "log.jsonl").read_bytes() == good + good


@pytest.mark.parametrize("as_older", [as_version_1, as_version_3, as_version_4, as_version_5])
def test_a_run_of_an_older_format_is_resumed_bit_for_bit(config, uninterrupted, tmp_path, as_older):
    """The target of format 1 is stored in its policy."""
    config = replace(config, out=tmp_path / "run")
    with pytest.raises(RuntimeError, match="power cut"):
        train_until(30, config)
    for name in (POLICY_FILE, TRAINING_FILE):
        rewrite(config.out / name, as_older)
    training.train(replace(config, steps=None, resume=True))
    assert_same(config.out, uninterrupted)


def test_a_run_keeps_its_normalisers(config, tmp_path):
    """Normalisers of format 1 shift constants; a resumed network expects that."""
    run = tmp_path / "run"
    training.train(replace(config, out=run, steps=2))

    def shift(header, tensors):
        tensors["normalizer.observation.offset"] += 1

    rewrite(run / POLICY_FILE, shift)
    expected = Policy.load(run).observation_normalizers[FLAT].offset
    training.train(replace(config, out=run, steps=4, resume=True))
    np.testing.assert_array_equal(Policy.load(run).observation_normalizers[FLAT].offset, expected)


def test_killed_before_the_first_policy_a_run_keeps_its_target(config, uninterrupted, tmp_path):
    run = tmp_path / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "SAVE_EVERY_S", 0.0)
        patch.setattr(training.checkpoints, "save_policy", power_cut)
        with pytest.raises(RuntimeError, match="power cut"):
            training.train(replace(config, out=run))
    assert (run / TRAINING_FILE).exists() and not (run / POLICY_FILE).exists()
    training.train(replace(config, out=run, steps=None, resume=True))
    assert_same(run, uninterrupted)


def power_cut(*_):
    raise RuntimeError("power cut")


def test_format_1_without_a_policy_has_to_be_told_its_target(config, uninterrupted, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(config.out, run)
    (run / POLICY_FILE).unlink()
    rewrite(run / TRAINING_FILE, as_version_1)
    with pytest.raises(DiffpolicyError, match="give --steps or --minutes"):
        training.train(replace(config, out=run, steps=None, resume=True))


def test_what_a_killed_writer_left_is_removed(config, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    stale, alive = (run / f".policy.safetensors.{n}.partial" for n in (ended.pid, os.getppid()))
    stale.touch()
    alive.touch()
    training.train(replace(config, out=run, steps=1))
    assert not stale.exists() and alive.exists()


def test_one_folder_is_for_one_training(config, tmp_path, snapshot):
    run = tmp_path / "run"
    run.mkdir()
    code = (
        "import sys; from pathlib import Path; from diffpolicy.files import alone_in\n"
        "with alone_in(Path(sys.argv[1])): print('locked', flush=True); sys.stdin.read()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", code, run], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert other.stdout and other.stdout.readline() == b"locked\n"
    with pytest.raises(DiffpolicyError, match="another process is training in"):
        training.train(replace(config, out=run, steps=1))
    assert not snapshot(run)
    other.kill()
    other.communicate()
    training.train(replace(config, out=run, steps=1))


@pytest.mark.parametrize("objective", ["denoising", "regression"])
def test_a_constant_comes_out_exactly_and_goes_in_as_nothing(tmp_path, objective):
    """True for every budget and engine, after saving and loading."""
    rng = np.random.default_rng(0)
    observations, actions = rng.standard_normal((2, 70, 3)).astype(np.float32)
    actions[:, 1], actions[:, 2], observations[:, 2] = 0.04, 8e-7 * actions[:, 0], 0.3
    of_observation, of_action = fit_limits(observations), fit_limits(actions)
    normal = {FLAT: of_observation.normalize(observations)}, of_action.normalize(actions)
    windows = make_windows(*normal, np.array([30, 70]), HORIZONS)
    task = Task("none", 0.1, False, flat_observation(3), 3)
    model = ModelConfig(hidden=32, blocks=1, objective=objective)
    learner = Learner(Specification(model, HORIZONS, task, 1.0, {}), torch.device("cpu"))
    for _ in range(300):
        learner.learn(windows, 64, 0.0)
    specification = Specification(model, HORIZONS, task, 1.0, {})
    policy = Checkpoint(specification, learner.ema, {FLAT: of_observation}, of_action)
    save_policy(tmp_path / POLICY_FILE, policy)
    history = observations[:4].reshape(2, 2, 3)
    other = history + np.float32([0, 0, 1e6])
    for steps in (0,) if objective == "regression" else (1, 2, 100):
        for engine in ("eager", "native"):
            policy = Policy.load(tmp_path, ddim_steps=steps, engine=engine)
            noise = rng.standard_normal(policy.noise_shape(2), np.float32)
            found = policy(history, noise)
            np.testing.assert_array_equal(found[..., 1], np.float32(0.04))
            assert np.ptp(found[..., 2]) > 0 and np.abs(found[..., 2]).max() < 8e-7 * 4
            np.testing.assert_array_equal(policy(other, noise), found)


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
    training.Log(TrainConfig(data=tmp_path, out=tmp_path), 150).write({"step": 200})
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


@pytest.mark.parametrize("recorded", ["diffpolicy.envs:Balance-v0", "Balance-v0"])
def test_demonstrations_of_another_environment_are_told(balance_store, tmp_path, recorded):
    gymnasium.register("Other-v0", "diffpolicy.envs.balance:BalanceEnv", max_episode_steps=9)
    store = shutil.copytree(balance_store, tmp_path / "a.zarr")
    zarr.open_group(store, mode="a").attrs["env_id"] = recorded
    try:
        for env, notes in (("Other-v0", 1), ("diffpolicy.envs:Balance-v0", 0), (None, 0)):
            found = read(TrainConfig(data=store, env=env, out=tmp_path / "run")).notes
            assert len(found) == notes
            assert all(f"was recorded in {recorded}, not in Other-v0" in note for note in found)
    finally:
        del gymnasium.registry["Other-v0"]
