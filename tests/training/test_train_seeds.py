"""train --seeds: a run for each seed, equal to the one trained alone."""

from dataclasses import replace

import torch

from diffpolicy.checkpoint import TRAINING_FILE, load_training
from diffpolicy.training.config import TrainConfig
from diffpolicy.training.seeds import command
from diffpolicy.training.train import train

SMALL = {"steps": 12, "hidden": 32, "blocks": 1, "batch": 16, "device": "cpu", "threads": 1}


def same(a, b) -> bool:
    ours, theirs = (load_training(run / TRAINING_FILE)[0] for run in (a, b))
    return all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_every_seed_gives_the_run_that_it_gives_alone(balance_store, tmp_path):
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
