"""Checkpoints: a round trip, no code from any file, and wholly there or not at all."""

import ast
import json
import pickle
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from diffpolicy.checkpoint import (
    HEADER,
    Checkpoint,
    Specification,
    load_policy,
    load_tensors,
    parse_specification,
    policy_path,
    save_policy,
    save_tensors,
)
from diffpolicy.config import ModelConfig
from diffpolicy.demonstrations import open_demonstrations
from diffpolicy.environment import Task
from diffpolicy.errors import DiffpolicyError
from diffpolicy.files import write_atomically, write_text
from diffpolicy.normalizer import Normalizer
from diffpolicy.policy import Policy
from diffpolicy.windows import Horizons

ROOT = Path(__file__).parents[1]


def checkpoint() -> Checkpoint:
    rng = np.random.default_rng(0)

    def normalizer(width):
        return Normalizer(*rng.standard_normal((2, width), np.float32))

    return Checkpoint(
        Specification(
            model=ModelConfig(denoiser="unet", unet_channels=(8, 16), prediction="v"),
            horizons=Horizons(3, 16, 8),
            task=Task("Some-v0", 0.05, True, 5, 2, {"goal": [1, 2.5], "name": "ü"}),
            clip_range=None,
            training={"fingerprint": "f", "step": 7, "config": {"lr": 1e-3, "obs": ["a"]}},
        ),
        {"a.weight": torch.randn(3, 4), "b": torch.arange(3), "t": torch.randn(4, 3).T},
        normalizer(5),
        normalizer(2),
    )


# Round trips


def test_what_was_saved_is_loaded(tmp_path):
    saved = checkpoint()
    save_policy(policy_path(tmp_path), saved)
    loaded = load_policy(tmp_path)
    assert loaded.specification == saved.specification
    assert loaded.weights.keys() == saved.weights.keys()
    for name, tensor in saved.weights.items():
        assert torch.equal(loaded.weights[name], tensor)
    for name in ("observation_normalizer", "action_normalizer"):
        for part in ("scale", "offset"):
            expected = getattr(getattr(saved, name), part)
            np.testing.assert_array_equal(getattr(getattr(loaded, name), part), expected)


def test_a_run_folder_and_its_policy_file_are_the_same_policy(tiny_run):
    history = np.zeros((1, 2, 4), np.float32)
    folder, file = (Policy.load(p) for p in (tiny_run, tiny_run / "policy.safetensors"))
    np.testing.assert_array_equal(folder(history), file(history))


def test_the_header_is_readable_by_anybody(tiny_run):
    with safe_open(tiny_run / "policy.safetensors", framework="np") as file:
        header = json.loads(file.metadata()[HEADER])
    assert header["format_version"] == 1
    assert parse_specification(header["specification"]) == load_policy(tiny_run).specification


def test_a_checkpoint_knows_its_data(tiny_run, balance_store):
    training = load_policy(tiny_run).specification.training
    store = open_demonstrations(balance_store)
    assert training["episodes"] == len(store.episode_ends)
    assert training["rows"] == len(store.action)
    assert training["step"] == 20 and training["fingerprint"]


# What is no checkpoint is refused


class Malice:
    """Whoever unpickles it makes the folder."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return Path.mkdir, (self.folder,)


@pytest.mark.parametrize("dump", [pickle.dump, torch.save])
def test_a_pickle_is_refused_and_not_run(tmp_path, dump):
    with (tmp_path / "policy.safetensors").open("wb") as file:
        dump(Malice(tmp_path / "malice"), file)
    with pytest.raises(DiffpolicyError, match="is damaged or no checkpoint"):
        load_policy(tmp_path)
    assert not (tmp_path / "malice").exists()


@pytest.mark.parametrize(
    "metadata",
    [
        None,
        {"format": "pt"},
        {HEADER: "{"},
        {HEADER: "[]"},
        {HEADER: "{}"},
        {HEADER: '{"format_version": 99}'},
        {HEADER: '{"format_version": 1}'},
        {HEADER: '{"format_version": 1, "specification": 5}'},
        {HEADER: '{"format_version": 1, "specification": {"model": {"colour": 1}}}'},
    ],
)
def test_a_file_with_another_header_is_refused(tmp_path, metadata):
    save_file({"weights.a": torch.zeros(1)}, tmp_path / "policy.safetensors", metadata)
    with pytest.raises(DiffpolicyError, match=r"policy\.safetensors"):
        load_policy(tmp_path)


def test_weights_that_do_not_fit_are_refused(tiny_run, tmp_path):
    loaded = load_policy(tiny_run)
    model = replace(loaded.specification.model, hidden=64)
    spec = replace(loaded.specification, model=model)
    save_policy(policy_path(tmp_path), replace(loaded, specification=spec))
    with pytest.raises(DiffpolicyError, match="the weights do not fit the network"):
        Policy.load(tmp_path)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.1, 0.5, 0.999])
def test_a_file_cut_short_is_refused(tiny_run, tmp_path, share):
    whole = (tiny_run / "policy.safetensors").read_bytes()
    (tmp_path / "policy.safetensors").write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(DiffpolicyError, match="is damaged or no checkpoint"):
        load_policy(tmp_path)


# Wholly there or not at all


def fail_half_way(path):
    path.write_text("new")
    raise OSError(28, "No space left on device")


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    file = tmp_path / "file"
    file.write_text("old")
    with pytest.raises(OSError, match="No space"):
        write_atomically(file, fail_half_way)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["old"]


def test_a_write_that_fails_leaves_no_file_where_there_was_none(tmp_path):
    with pytest.raises(OSError, match="No space"):
        write_atomically(tmp_path / "folder" / "file", fail_half_way)
    assert not list((tmp_path / "folder").iterdir())


def test_a_write_replaces_the_old_file_and_makes_the_folder(tmp_path):
    file = tmp_path / "new folder" / "ü"
    for text in ("old", "ε_θ"):
        write_text(file, text)
        assert file.read_text(encoding="utf-8") == text
    assert list(file.parent.iterdir()) == [file]


def test_tensors_that_cannot_be_saved_leave_the_old_file(tmp_path, monkeypatch):
    from safetensors import SafetensorError
    from safetensors import torch as safetensors_torch

    def full(tensors, path, metadata):
        path.write_bytes(b"half")
        raise SafetensorError("No space left on device")

    save_tensors(tmp_path / "a", {"x": torch.ones(2)}, {"n": 1})
    monkeypatch.setattr(safetensors_torch, "save_file", full)
    with pytest.raises(DiffpolicyError, match=r"cannot write .*No space left"):
        save_tensors(tmp_path / "a", {"x": torch.zeros(2)}, {"n": 2})
    tensors, header = load_tensors(tmp_path / "a")
    assert header == {"format_version": 1, "n": 1} and torch.equal(tensors["x"], torch.ones(2))
    assert len(list(tmp_path.iterdir())) == 1


def test_control_c_waits_for_the_end_of_a_write(tmp_path):
    def interrupt(path):
        signal.raise_signal(signal.SIGINT)
        path.write_text("whole")

    with pytest.raises(KeyboardInterrupt):
        write_atomically(tmp_path / "file", interrupt)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["whole"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_control_c_while_training_leaves_a_run_that_goes_on(tmp_path, balance_store, call):
    """The real command in a process of its own, interrupted while it trains."""
    size = ["--hidden", "32", "--blocks", "1", "--batch", "8", "--device", "cpu"]
    command = ["train", "--data", str(balance_store), "--out", str(tmp_path / "run"), *size]
    code = "from diffpolicy.cli import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", code, *command, "--threads", "1", "--steps", "1000000"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    log = tmp_path / "run" / "log.jsonl"
    while process.poll() is None and not (log.exists() and log.read_text()):
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    errors = process.communicate()[1]
    assert process.returncode == 130
    assert errors.splitlines()[-1] == "interrupted" and "Traceback" not in errors
    step = load_policy(tmp_path / "run").specification.training["step"]
    assert step >= 100
    assert call(*command, "--steps", step + 2, "--resume").code == 0
    assert load_policy(tmp_path / "run").specification.training["step"] == step + 2


# No code from any file

FORBIDDEN = {
    *("eval", "exec", "compile", "__import__"),
    *(f"{module}.{name}" for module in ("pickle", "dill", "marshal") for name in ("load", "loads")),
    *("pickle.Unpickler", "joblib.load", "shelve.open", "torch.load", "torch.jit.load"),
    *("yaml.load", "yaml.unsafe_load", "yaml.full_load"),
}


def calls_of(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                yield f"{node.module}.{alias.name}", node


def sources():
    folders = ("diffpolicy", "eval", "envs", "datasets")
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_that_runs_code_from_a_file_is_called(path):
    for name, node in calls_of(path):
        assert name not in FORBIDDEN, f"line {node.lineno}"
        allowing = [k for k in getattr(node, "keywords", []) if k.arg == "allow_pickle"]
        assert not allowing or ast.unparse(allowing[0].value) == "False", f"line {node.lineno}"
