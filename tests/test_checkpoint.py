"""Checkpoints: round trip, no code from any file, all or nothing on disk."""

import ast
import copy
import errno
import fcntl
import functools
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import (
    as_version_1,
    as_version_2,
    as_version_3,
    as_version_4,
    as_version_5,
    rewrite,
)
from safetensors import safe_open
from safetensors.torch import save_file

from diffpolicy.checked import validate
from diffpolicy.checkpoint import (
    FORMAT_VERSION,
    HEADER,
    POLICY_FILE,
    TRAINING_FILE,
    Checkpoint,
    load_policy,
    load_tensors,
    load_training,
    policy_path,
    save_policy,
    save_tensors,
)
from diffpolicy.config import ModelConfig
from diffpolicy.data.demonstrations import open_demonstrations
from diffpolicy.data.normalizer import Normalizer, identity, pixels
from diffpolicy.denoisers import build, build_network
from diffpolicy.errors import DiffpolicyError
from diffpolicy.files import check_writable, lock, write_atomically, write_text
from diffpolicy.policy import Policy
from diffpolicy.specification import (
    FLAT,
    Horizons,
    Specification,
    Task,
    flat_observation,
    picture,
)

ROOT = Path(__file__).parents[1]
TASK = Task("Some-v0", 0.05, True, flat_observation(5), 2)


def checkpoint() -> Checkpoint:
    rng = np.random.default_rng(0)

    def normalizer(width):
        return Normalizer(*rng.standard_normal((2, width), np.float32))

    model = ModelConfig(
        **{"denoiser": "unet", "unet_channels": (8, 16), "prediction": "v", "clip": False}
    )
    horizons = Horizons(3, 16, 8)
    constant = replace(normalizer(2), scale=np.float32([0, 2]), constant=np.float32([3, np.nan]))
    return Checkpoint(
        Specification(
            model=model,
            horizons=horizons,
            task=Task(
                "Some-v0", 0.05, True, flat_observation(5), 2, {"goal": [1, 2.5], "name": "ü"}
            ),
            clip_range=None,
            training={"fingerprint": "f", "step": 7, "config": {"lr": 1e-3, "obs": ["a"]}},
        ),
        build(model, horizons, 5, 2).state_dict(),
        {FLAT: normalizer(5)},
        constant,
    )


def normalizers_of(checkpoint):
    return *checkpoint.observation_normalizers.values(), checkpoint.action_normalizer


# Round trips


def test_what_was_saved_is_loaded(tmp_path):
    saved = checkpoint()
    save_policy(policy_path(tmp_path), saved)
    loaded = load_policy(tmp_path)
    assert loaded.specification == saved.specification
    assert loaded.weights.keys() == saved.weights.keys()
    for name, tensor in saved.weights.items():
        assert torch.equal(loaded.weights[name], tensor)
    for a, b in zip(normalizers_of(loaded), normalizers_of(saved), strict=True):
        for part in ("scale", "offset", "constant"):
            np.testing.assert_array_equal(getattr(a, part), getattr(b, part))
    assert saved.observation_normalizers[FLAT].constant is None


def test_a_run_folder_and_its_policy_file_are_the_same_policy(tiny_run):
    history = np.zeros((1, 2, 4), np.float32)
    folder, file = (Policy.load(p) for p in (tiny_run, tiny_run / "policy.safetensors"))
    np.testing.assert_array_equal(folder(history), file(history))


def test_the_header_is_readable_by_anybody(tiny_run):
    with safe_open(tiny_run / "policy.safetensors", framework="np") as file:
        header = json.loads(file.metadata()[HEADER])
    assert header["format_version"] == FORMAT_VERSION
    specification = validate(Specification, header["specification"], "the header")
    assert specification == load_policy(tiny_run).specification


def test_a_checkpoint_knows_its_data(tiny_run, balance_store):
    training = load_policy(tiny_run).specification.training
    store = open_demonstrations(balance_store)
    assert training["episodes"] == len(store.episode_ends)
    assert training["rows"] == len(store.action)
    assert training["step"] == 20 and training["fingerprint"]


# What is no checkpoint is refused


class Malice:
    """Object that makes a folder when it is unpickled."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return Path.mkdir, (self.folder,)


@pytest.mark.parametrize("dump", [pickle.dump, torch.save])
def test_a_pickle_is_refused_and_not_run(tmp_path, dump):
    with (tmp_path / "policy.safetensors").open("wb") as file:
        dump(Malice(tmp_path / "malice"), file)
    with pytest.raises(DiffpolicyError, match="is corrupt or not a checkpoint"):
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
        {HEADER: '{"format_version": 1, "specification": {"task": {}}}'},
        {HEADER: '{"format_version": 2, "specification": {"model": {"colour": 1}}}'},
        {HEADER: '{"format_version": 2, "specification": {"task": {}, "model": {}}}'},
        {HEADER: '{"format_version": 3, "specification": {"task": {}, "model": {}}}'},
        {HEADER: '{"format_version": 4, "specification": {"model": {"colour": 1}}}'},
        {HEADER: '{"format_version": true}'},
    ],
)
def test_a_file_with_another_header_is_refused(tmp_path, metadata):
    save_file({"weights.a": torch.zeros(1)}, tmp_path / "policy.safetensors", metadata)
    with pytest.raises(DiffpolicyError, match=r"policy\.safetensors"):
        load_policy(tmp_path)


def fields_of(data: dict, *above: str):
    """Paths of all fields, outermost name first, without free-form provenance."""
    for name, value in data.items():
        yield *above, name
        if isinstance(value, dict) and name not in ("training", "env_kwargs", "identity"):
            yield from fields_of(value, *above, name)


WRONG = [None, "x", -1, 0, 1.5, 1e308, 10**30, 10**9, True, [], [1], ["x"], {}, {"a": 1}]
OPTIONAL = {
    "observation_keys": (list,),
    "crop": (list,),
    "minutes": (float, int),
    "steps": (type(None),),
}


def allowed(name: str, right, value) -> bool:
    """True if a value has the field's type and can be intended."""
    kinds = (type(right), *OPTIONAL.get(name, ()), *((int,) if type(right) is float else ()))
    return type(value) in kinds and value not in (-1, 1e308, 10**30)


def refusal_of(load, header) -> str:
    """The message that a header is refused with, or "" if it is taken."""
    try:
        load(header)
    except DiffpolicyError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("file", [POLICY_FILE, TRAINING_FILE])
def test_no_field_of_a_header_is_believed(tiny_run, tmp_path, file):
    """A field that is missing, unknown or of another type is refused in one short message."""
    tensors, header = load_tensors(tiny_run / file)
    header["format_version"] = FORMAT_VERSION

    def load(changed: dict):
        save_file(tensors, tmp_path / file, {HEADER: json.dumps(changed)})
        return load_policy(tmp_path) if file == POLICY_FILE else load_training(tmp_path / file)

    load(header)
    for *above, name in fields_of(header):
        for value in ["left out", "unknown", *WRONG]:
            changed = copy.deepcopy(header)
            inner = functools.reduce(dict.__getitem__, above, changed)
            right = inner.pop(name)
            if value != "left out":
                inner[name if value != "unknown" else "new"] = value
            refusal = refusal_of(load, changed)
            assert refusal or allowed(name, right, value), (*above, name, value)
            assert len(refusal) < 600


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 100_000, "nested too deeply"),
        ('{"a":' * 60 + "1" + "}" * 60, "nested too deeply"),
        ('{"format_version": 2, "format_version": 2}', "a duplicate name"),
        ('{"format_version": NaN}', "NaN is not a finite number"),
        ('{"format_version": 1e999}', "1e999 is not a finite number"),
        ('{"format_version": "\\ud800"}', "surrogates not allowed"),
        ('{"format_version": ' + "1" * 5000 + "}", "not a JSON document"),
    ],
)
def test_a_header_that_is_no_plain_json_is_refused(tiny_run, tmp_path, text, message):
    shutil.copytree(tiny_run, tmp_path / "run")
    rewrite(tmp_path / "run" / POLICY_FILE, lambda header, tensors: text)
    with pytest.raises(DiffpolicyError, match=message):
        load_policy(tmp_path / "run")


def test_sizes_of_the_header_are_not_allocated(tiny_run, tmp_path):
    """A width of 65,536 and a depth of 1000 would take terabytes."""
    shutil.copytree(tiny_run, tmp_path / "run")

    def grow(header, tensors):
        header["specification"]["model"].update(hidden=65_536, blocks=1000)

    rewrite(tmp_path / "run" / POLICY_FILE, grow)
    with pytest.raises(DiffpolicyError, match="does not fit the header"):
        load_policy(tmp_path / "run")


def broken(name, change):
    def spoil(header, tensors):
        tensors[name] = change(tensors[name])

    return spoil


SCALE, OFFSET = "normalizer.action.scale", "normalizer.observation.offset"
WEIGHT = "weights.enter.weight"


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        (WEIGHT, lambda x: x.index_fill(0, torch.tensor(0), torch.nan), "is not finite"),
        (WEIGHT, lambda x: x * torch.inf, "is not finite"),
        (WEIGHT, lambda x: x.to(torch.complex64), "expected torch.float32"),
        (WEIGHT, lambda x: x.half(), "got torch.float16"),
        (WEIGHT, lambda x: x[:1], "does not fit the header"),
        (
            SCALE,
            torch.zeros_like,
            "the normaliser of action must be finite, with scale 0 only",
        ),
        (SCALE, lambda x: x * torch.nan, "the normaliser of action must be finite"),
        (SCALE, lambda x: x.repeat(2), "does not fit the header"),
        (SCALE, lambda x: x.int(), "got torch.int32"),
        (OFFSET, lambda x: x * 0 + torch.inf, "the normaliser of observation must be finite"),
        (OFFSET, lambda x: x[:1], "does not fit the header"),
    ],
)
def test_a_broken_policy_is_refused(tiny_run, tmp_path, name, change, message):
    shutil.copytree(tiny_run, tmp_path / "run")
    rewrite(tmp_path / "run" / POLICY_FILE, broken(name, change))
    with pytest.raises(DiffpolicyError, match=message):
        load_policy(tmp_path / "run")


@pytest.mark.parametrize(("constant", "scale"), [(np.inf, 0), (np.nan, 0), (3, 1)])
def test_a_scale_of_zero_is_for_constants_alone(tiny_run, tmp_path, constant, scale):
    shutil.copytree(tiny_run, tmp_path / "run")

    def spoil(header, tensors):
        tensors[SCALE] = torch.tensor([float(scale)])
        tensors["normalizer.action.constant"] = torch.tensor([float(constant)])

    rewrite(tmp_path / "run" / POLICY_FILE, spoil)
    with pytest.raises(DiffpolicyError, match="with scale 0 only for constant"):
        load_policy(tmp_path / "run")


def test_clip_and_its_range_belong_together(tiny_run, tmp_path):
    shutil.copytree(tiny_run, tmp_path / "run")
    rewrite(
        tmp_path / "run" / POLICY_FILE,
        lambda header, tensors: header["specification"].update(clip_range=None),
    )
    with pytest.raises(DiffpolicyError, match="clip = True, which contradicts clip_range = None"):
        load_policy(tmp_path / "run")


@pytest.mark.parametrize(
    "as_older", [as_version_1, as_version_2, as_version_3, as_version_4, as_version_5]
)
def test_a_checkpoint_of_an_older_format_gives_the_same_actions(tiny_run, tmp_path, as_older):
    shutil.copytree(tiny_run, tmp_path / "run")
    for name in (POLICY_FILE, TRAINING_FILE):
        rewrite(tmp_path / "run" / name, as_older)
    old, new = load_policy(tmp_path / "run"), load_policy(tiny_run)
    assert old.specification == new.specification
    history = np.random.default_rng(0).uniform(-1, 1, (3, 2, 4)).astype(np.float32)
    for steps in (1, 10):
        actions = [Policy.load(p, ddim_steps=steps)(history) for p in (tmp_path / "run", tiny_run)]
        np.testing.assert_array_equal(*actions)
    steps = load_training(tmp_path / "run" / TRAINING_FILE)[1].steps
    assert steps == (None if as_older is as_version_1 else 20)


def test_weights_that_do_not_fit_are_refused(tiny_run, tmp_path):
    loaded = load_policy(tiny_run)
    model = replace(loaded.specification.model, hidden=64)
    spec = replace(loaded.specification, model=model)
    save_policy(policy_path(tmp_path), replace(loaded, specification=spec))
    with pytest.raises(DiffpolicyError, match=r"'weights.*does not fit the header"):
        Policy.load(tmp_path)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.1, 0.5, 0.999])
def test_a_file_cut_short_is_refused(tiny_run, tmp_path, share):
    whole = (tiny_run / "policy.safetensors").read_bytes()
    (tmp_path / "policy.safetensors").write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(DiffpolicyError, match="is corrupt or not a checkpoint"):
        load_policy(tmp_path)


# All or nothing on disk


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
    assert header == {"n": 1} and torch.equal(tensors["x"], torch.ones(2))
    assert len(list(tmp_path.iterdir())) == 1


def test_devices_and_pipes_are_not_replaced(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for write in (check_writable, functools.partial(write_text, text="new")):
        with pytest.raises(OSError, match="a regular file was expected") as error:
            write(pipe)
        assert error.value.filename == str(pipe)
    assert pipe.is_fifo() and list(tmp_path.iterdir()) == [pipe]


def test_control_c_waits_for_the_end_of_a_write(tmp_path):
    def interrupt(path):
        signal.raise_signal(signal.SIGINT)
        path.write_text("whole")

    with pytest.raises(KeyboardInterrupt):
        write_atomically(tmp_path / "file", interrupt)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["whole"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_control_c_while_training_leaves_a_run_that_goes_on(tmp_path, balance_store, call):
    """The real command, in its own process, is interrupted while it trains."""
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


def with_cameras() -> Checkpoint:
    observations = {"front": picture(16, 16), "side": picture(16, 16), **flat_observation(2)}
    task = Task("Some-v0", 0.1, True, observations, 2)
    model = ModelConfig(hidden=8, blocks=1, condition=8, keypoints=4)
    spec = Specification(model, Horizons(2, 8, 4), task, 1.0, {})
    normalizers = {"front": pixels(3), "side": pixels(3), FLAT: identity(2)}
    weights = build_network(spec, normalizers).state_dict()
    return Checkpoint(spec, weights, normalizers, identity(2))


def test_a_checkpoint_with_cameras_is_loaded_as_it_was_saved(tmp_path):
    saved = with_cameras()
    save_policy(policy_path(tmp_path), saved)
    loaded = load_policy(tmp_path)
    assert loaded.specification == saved.specification
    assert any(name.startswith("encoder.cameras.1.") for name in loaded.weights)
    assert all(torch.equal(loaded.weights[name], w) for name, w in saved.weights.items())
    for key, normalizer in saved.observation_normalizers.items():
        np.testing.assert_array_equal(loaded.observation_normalizers[key].scale, normalizer.scale)


@pytest.mark.parametrize(
    ("camera", "vector"),
    [("observation.image", "observation"), ("image", "action.last"), ("image", "image.scale")],
)
def test_keys_that_begin_alike_keep_their_normalisers(tmp_path, camera, vector):
    saved, offset = with_cameras(), np.float32([1, 2])
    task = saved.specification.task
    specs = {camera: picture(16, 16), vector: task.observations[FLAT]}
    specification = replace(saved.specification, task=replace(task, observations=specs))
    normalizers = {camera: pixels(3), vector: Normalizer(np.ones(2, np.float32), offset)}
    weights = build_network(specification, normalizers).state_dict()
    save_policy(policy_path(tmp_path), Checkpoint(specification, weights, normalizers, identity(2)))
    loaded = load_policy(tmp_path)
    assert list(loaded.observation_normalizers) == [camera, vector]
    np.testing.assert_array_equal(loaded.observation_normalizers[camera].scale, pixels(3).scale)
    np.testing.assert_array_equal(loaded.observation_normalizers[vector].offset, offset)
    np.testing.assert_array_equal(loaded.action_normalizer.offset, np.zeros(2))


@pytest.mark.parametrize(
    ("part", "changes", "message"),
    [
        (
            "model",
            {"encoder": "resnet18"},
            "describe a network: front: a crop of 14 × 14 px is too",
        ),
        ("model", {"encoder": "vit"}, "encoder must be one of cnn, resnet18"),
        ("model", {"keypoints": 5}, "does not fit the header"),
        ("model", {"share_encoder": True}, "does not fit the header"),
        ("model", {"crop": 0.05}, "crop must be at least 0.1"),
        ("model", {"crop": 1.5}, "crop must be at most 1"),
        ("task", {"camera": 4}, "camera must be at least 8"),
        ("front", {"shape": [16, 16]}, "a float32 vector or a uint8 picture"),
        ("front", {"shape": [16, 16, 4]}, "does not fit the header"),
        ("front", {"dtype": "float32"}, "a float32 vector or a uint8 picture"),
        ("front", {"normalizer": "limits"}, "a float32 vector or a uint8 picture"),
        ("front", {"normalizer": None}, r"does not fit the header|uint8 picture"),
    ],
)
def test_a_header_of_other_cameras_is_refused(tmp_path, part, changes, message):
    def change(header, tensors):
        specification = header["specification"]
        task = specification["task"]
        parts = {"model": specification["model"], "task": task, **task["observations"]}
        parts[part].update(changes)

    save_policy(policy_path(tmp_path), with_cameras())
    rewrite(policy_path(tmp_path), change)
    with pytest.raises(DiffpolicyError, match=message):
        load_policy(tmp_path)


def test_a_header_from_before_regression_is_read(tiny_run, tmp_path):
    def older(header, tensors):
        as_version_1(header, tensors)
        del header["specification"]["model"]["regression"]

    shutil.copytree(tiny_run, tmp_path / "run")
    rewrite(tmp_path / "run" / "policy.safetensors", older)
    assert load_policy(tmp_path / "run").specification.model.regression is False


def test_a_file_system_without_locks_is_a_warning(tmp_path, monkeypatch, caplog):
    def flock(*_):
        raise OSError(errno.ENOTSUP, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", flock)
    os.close(lock(tmp_path, "busy"))
    assert "cannot be locked (Operation not supported)" in caplog.text
