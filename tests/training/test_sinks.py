"""Laws of the log: every sink has every line, once, also over an interruption."""

import json
import time
from dataclasses import replace

import pytest

from diffpolicy.errors import DiffpolicyError
from diffpolicy.training import sinks
from diffpolicy.training import train as training
from diffpolicy.training.config import TrainConfig


@pytest.fixture
def config(balance_store, tmp_path, monkeypatch) -> TrainConfig:
    monkeypatch.setattr(training, "LOG_EVERY", 10)
    small = {"hidden": 32, "blocks": 1, "batch": 16, "threads": 1}
    return TrainConfig(data=balance_store, out=tmp_path / "run", steps=20, **small)


def lines(config) -> list[dict]:
    return [json.loads(line) for line in (config.out / "log.jsonl").read_text().splitlines()]


def test_tensorboard_has_the_curves_of_the_log_also_when_resumed(config):
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    training.train(replace(config, log=("tensorboard",)))
    training.train(replace(config, log=("tensorboard",), steps=40, resume=True))
    found = events.EventAccumulator(str(config.out / "tensorboard"))
    found.Reload()
    losses = [(event.step, pytest.approx(event.value)) for event in found.Scalars("loss")]
    assert [(line["step"], line["loss"]) for line in lines(config)] == losses
    assert [step for step, _ in losses] == [10, 20, 30, 40]


def test_wandb_has_the_log_offline(config, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    training.train(replace(config, log=("wandb",)))
    [file] = config.out.glob("wandb/offline-run-*/*.wandb")
    end = time.monotonic() + 60  # its service may write after the training has ended
    while b"elapsed_s" not in file.read_bytes() and time.monotonic() < end:
        time.sleep(0.1)
    content = file.read_bytes()
    assert b"loss" in content and b"elapsed_s" in content
    assert len(lines(config)) == 2


def test_without_an_account_wandb_is_one_error(config, monkeypatch):
    pytest.importorskip("wandb").teardown()  # an earlier run's settings
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(config.out.parent))
    with pytest.raises(DiffpolicyError, match=r"--log wandb: .*; expected an account"):
        training.train(replace(config, log=("wandb",)))


@pytest.mark.parametrize("name", sinks.SINKS)
def test_a_sink_that_is_not_installed_is_refused_before_anything_is_written(
    config, monkeypatch, name
):
    monkeypatch.setattr(sinks, "find_spec", lambda _: None)
    with pytest.raises(DiffpolicyError, match=rf"pip install 'diffpolicy\[{name}\]'"):
        training.train(replace(config, log=(name,)))
    assert not config.out.exists()
