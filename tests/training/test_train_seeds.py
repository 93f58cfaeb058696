"""train --seeds: a run for each seed, equal to the one trained alone."""

import json
import signal
import weakref
from dataclasses import replace

import numpy as np
import pytest
import torch
from stores import ENDS, joined, write_plainly

from diffpolicy.checkpoint import TRAINING_FILE, load_training
from diffpolicy.specification import NO_ENVIRONMENT
from diffpolicy.training import seeds
from diffpolicy.training import train as training
from diffpolicy.training.config import TrainConfig
from diffpolicy.training.seeds import command
from diffpolicy.training.together import Together
from diffpolicy.training.train import train

SMALL = {"steps": 12, "hidden": 32, "blocks": 1, "batch": 16, "device": "cpu", "threads": 1}


def same(a, b) -> bool:
    """True if two runs have the same weights and moments but for float noise."""
    ours, theirs = (load_training(run / TRAINING_FILE)[0] for run in (a, b))
    return all(torch.allclose(ours[name], theirs[name], atol=1e-5) for name in ours)


@pytest.mark.parametrize("gain", [0.0, 1e9], ids=["together", "one after the other"])
def test_every_seed_gives_the_run_that_it_gives_alone(balance_store, tmp_path, monkeypatch, gain):
    monkeypatch.setattr(seeds, "LEAST_GAIN", gain)
    config = TrainConfig(data=balance_store, out=tmp_path / "runs", seeds=(3, 1), **SMALL)
    command(config)
    assert sorted(path.name for path in config.out.iterdir()) == ["seed-1", "seed-3"]
    train(replace(config, seeds=(), seed=3, out=tmp_path / "alone"))
    assert same(config.out / "seed-3", tmp_path / "alone")
    assert not same(config.out / "seed-1", tmp_path / "alone")
    command(replace(config, resume=True))  # finished seeds stay as they are
    assert same(config.out / "seed-3", tmp_path / "alone")


def test_nothing_is_written_if_a_seed_cannot_start(balance_store, tmp_path, refused):
    (tmp_path / "seed-5").mkdir()
    (tmp_path / "seed-5" / TRAINING_FILE).write_bytes(b"")
    options = ["train", "--data", balance_store, "--out", tmp_path, "--seeds"]
    assert "seed-5 already holds a run; continue it with --resume" in refused(*options, "4", "5")
    assert not (tmp_path / "seed-4").exists()
    assert "--seeds expects different seeds; got [4, 4]" in refused(*options, "4", "4")


def test_a_seed_is_not_negative(balance_store, tmp_path, refused):
    said = refused("train", "--data", balance_store, "--out", tmp_path, "--seeds", "-1")
    assert "--seeds" in said and "-1" in said


def test_seeds_together_go_on_after_an_interruption(balance_store, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(seeds, "LEAST_GAIN", 0.0)
    monkeypatch.setattr(seeds, "LOG_EVERY", 2)
    whole = TrainConfig(data=balance_store, out=tmp_path / "whole", seeds=(3, 1), **SMALL)
    command(whole)
    said = capsys.readouterr().out
    assert "seeds: together; a step of all 2 together takes" in said
    learn = Together.learn

    def interrupt(self, *arguments):
        if self.step == 4:
            signal.raise_signal(signal.SIGINT)
        return learn(self, *arguments)

    parts = replace(whole, out=tmp_path / "parts")
    with monkeypatch.context() as patch:
        patch.setattr(Together, "learn", interrupt)
        with pytest.raises(KeyboardInterrupt):
            command(parts)
    assert "stopped at step 5; checkpoints saved" in capsys.readouterr().out
    command(replace(parts, resume=True))
    for seed in ("seed-3", "seed-1"):
        assert same(parts.out / seed, whole.out / seed)
        lines = (parts.out / seed / "log.jsonl").read_text().splitlines()
        assert [json.loads(line)["step"] for line in lines] == [2, 4, 6, 8, 10, 12]


def test_seeds_together_warn_as_one_alone_does(balance_store, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(seeds, "LEAST_GAIN", 0.0)
    monkeypatch.setattr(training, "busy_cores_warning", lambda: "busy")
    prepare = training.prepare
    monkeypatch.setattr(
        training, "prepare", lambda *about: replace(prepare(*about), notes=("rows are odd",))
    )
    command(TrainConfig(data=balance_store, out=tmp_path, seeds=(3, 1), **SMALL))
    said = capsys.readouterr().out
    assert said.count("warning: busy\nwarning: rows are odd\n") == 1
    assert said.count("warning: fewer than 500 steps") == 2


def test_pictures_of_one_seed_are_read_at_a_time(tmp_path, monkeypatch):
    image = np.random.default_rng(0).integers(0, 255, (ENDS[-1], 16, 16, 3), np.uint8)
    store = write_plainly(tmp_path / "store", {**joined(), "image": image}, ENDS)
    alive, whole = [], training.prepare

    def prepare(*about):
        found = whole(*about)
        alive.append(weakref.ref(found))
        assert sum(each() is not None for each in alive) == 1
        return found

    monkeypatch.setattr(training, "prepare", prepare)
    facts = {"env": NO_ENVIRONMENT, "control_dt": 0.1, "position_targets": True, **SMALL}
    command(TrainConfig(data=store, out=tmp_path, seeds=(3, 1, 2), **{**facts, "steps": 1}))
    assert len(alive) == 4


def test_seeds_at_different_steps_are_trained_one_after_the_other(
    balance_store, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(seeds, "LEAST_GAIN", 0.0)
    config = TrainConfig(data=balance_store, out=tmp_path, seeds=(3, 1), **SMALL)
    train(replace(config, seeds=(), seed=3, out=tmp_path / "seed-3", steps=5))
    command(replace(config, resume=True))
    assert "together" not in capsys.readouterr().out
    assert all(load_training(p / TRAINING_FILE)[1].step == 12 for p in tmp_path.iterdir())
