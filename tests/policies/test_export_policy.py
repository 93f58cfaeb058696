"""Exported policies: the program that is printed runs alone and gives the actions of the run."""

import hashlib
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pictured import image_checkpoint

from diffpolicy.checkpoint import Checkpoint, save_policy
from diffpolicy.data.normalizer import Normalizer, fit_limits, identity
from diffpolicy.denoisers import build_network
from diffpolicy.policies import exporting
from diffpolicy.policies.config import ImportPolicyConfig
from diffpolicy.policies.importing import import_policy
from diffpolicy.policy import Policy
from diffpolicy.specification import ObservationSpec

pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")

ALONE = """
import sys

class Alone:
    allowed = {*sys.stdlib_module_names, "numpy", "onnxruntime"}

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in self.allowed:
            raise ImportError(f"{name} is not on the robot")

sys.meta_path.insert(0, Alone())
"""


def saved(folder: Path, checkpoint: Checkpoint) -> Path:
    save_policy(folder / "policy.safetensors", checkpoint)
    return folder


def two_vectors(objective="denoising") -> Checkpoint:
    """Two vectors, one of them without a normaliser; constant dimensions in and out."""
    before = image_checkpoint("place").specification
    observations = {"a/b": ObservationSpec((3,)), "observation.state": ObservationSpec((2,))}
    observations["raw"] = ObservationSpec((1,), normalizer=None)
    task = replace(before.task, observations=observations, action_dim=3)
    model = replace(before.model, objective=objective)
    specification = replace(before, task=task, model=model)
    rows = np.array([[0, 7, -3], [500, 7, 9]], np.float32)
    normalizers = {"a/b": fit_limits(rows), "observation.state": identity(2)}
    weights = build_network(specification, normalizers).state_dict()
    return Checkpoint(specification, weights, normalizers, fit_limits(10 * rows))


@pytest.fixture
def runs(tiny_run, tmp_path):
    return {
        "vector": lambda: tiny_run,
        "picture": lambda: saved(tmp_path / "a", image_checkpoint("image", "place")),
        "vectors": lambda: saved(tmp_path / "b", two_vectors()),
        "regression": lambda: saved(tmp_path / "c", two_vectors(objective="regression")),
    }


@pytest.mark.parametrize(
    ("kind", "options", "sampling"),
    [
        ("vector", ["--ddim-steps", 3], {"ddim_steps": 3}),
        (
            "vector",
            ["--ddim-steps", 4, "--sampler", "dpm++", "--grid", "trailing"],
            {"ddim_steps": 4, "sampler": "dpm++", "grid": "trailing"},
        ),
        ("picture", ["--ddim-steps", 2], {"ddim_steps": 2}),
        ("vectors", ["--ddim-steps", 4, "--eta", 1], {"ddim_steps": 4, "eta": 1.0}),
        ("vectors", ["--grid", "85,20"], {"grid": "85,20"}),
        ("regression", [], {}),
    ],
)
def test_the_printed_program_runs_alone_and_gives_the_actions(
    runs, tmp_path, call, kind, options, sampling
):
    run, out = runs[kind](), tmp_path / "robot" / "policy.onnx"
    code, printed, errors = call("export-policy", run, "--out", out, *options)
    assert (code, errors) == (0, [])
    program = printed[printed.index("import json") :]
    assert len(program.splitlines()) in (9, 10)
    done = subprocess.run(
        [sys.executable, "-c", f"{ALONE}\n{program}\nnp.save('actions.npy', actions)"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    contract = json.loads(out.with_suffix(".json").read_text(encoding="utf-8"))
    policy = Policy.load(run, **sampling)
    assert contract["noise"] is None or contract["noise"]["shape"] == list(policy.noise_shape(1))
    noise = np.random.default_rng(0).standard_normal(policy.noise_shape(1), np.float32)
    zeros = {k: np.zeros(s["shape"], s["dtype"]) for k, s in contract["observations"].items()}
    actions, expected = np.load(tmp_path / "actions.npy"), policy(zeros, noise)
    assert list(actions.shape) == contract["actions"]["shape"]
    spread = 1 if kind in ("vector", "picture") else 1000
    np.testing.assert_allclose(actions, expected, atol=1e-4 * spread, rtol=0)
    assert contract["sha256"] == hashlib.sha256(out.read_bytes()).hexdigest()
    assert contract["difference_from_eager"]["normalised"] <= 1e-4
    assert f"{contract['difference_from_eager']['normalised']:.2g} normalised" in printed


def test_the_contract_says_all_that_a_robot_needs(runs, tmp_path, call):
    out = tmp_path / "policy.onnx"
    run = runs["picture"]()
    call("export-policy", run, "--ddim-steps", 2, "--out", out)
    contract = json.loads((tmp_path / "policy.json").read_text(encoding="utf-8"))
    assert contract["observations"] == {
        "image": {"shape": [1, 2, 16, 16, 3], "dtype": "uint8"},
        "place": {"shape": [1, 2, 1], "dtype": "float32"},
    }
    assert contract["actions"] == {"shape": [1, 5, 1], "dtype": "float32"}
    assert contract["horizons"] == {"observation": 2, "prediction": 6, "action": 2}
    assert (contract["control_dt_s"], contract["position_targets"]) == (0.1, False)
    assert contract["noise"]["shape"] == [1, 1, 6, 1]
    assert contract["sampling"]["timesteps"] == [99, 49]
    assert contract["sampling"]["ddim_steps"] == 2
    assert contract["file"] == "policy.onnx"
    source = (run / "policy.safetensors").read_bytes()
    assert contract["run_sha256"] == hashlib.sha256(source).hexdigest()
    assert contract["versions"].keys() == {"diffpolicy", "torch", "onnx", "onnxruntime", "numpy"}


def test_a_constant_dimension_comes_back_exactly(runs, tmp_path, call):
    from onnxruntime import InferenceSession

    out = tmp_path / "policy.onnx"
    call("export-policy", runs["vectors"](), "--ddim-steps", 1, "--out", out)
    rng = np.random.default_rng(1)
    session = InferenceSession(out, providers=["CPUExecutionProvider"])
    inputs = {i.name: rng.standard_normal(i.shape).astype(np.float32) for i in session.get_inputs()}
    [actions] = session.run(["actions"], inputs)
    assert np.all(actions[..., 1] == 70) and np.ptp(actions[..., 0]) > 0


def test_a_file_that_differs_is_not_written(runs, tmp_path, refused, monkeypatch, snapshot):
    out = tmp_path / "robot" / "policy.onnx"
    out.parent.mkdir()
    out.write_text("the one before")
    before = snapshot(out.parent)
    run = runs["vectors"]()
    monkeypatch.setattr(exporting, "_unnormalised", lambda g, x, normalizer: x)
    line = refused("export-policy", run, "--ddim-steps", 2, "--out", out)
    assert "the ONNX file differs from eager by" in line and "not written" in line
    assert snapshot(out.parent) == before


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("vectors", ["--out", "robot.json"], "is the name of the contract; try --out policy.onnx"),
        ("vectors", ["--out", "a.onnx", "--ddim-steps", 101], "between 1 and the 100 timesteps"),
        ("regression", ["--out", "a.onnx", "--ddim-steps", 5], "this is a regression policy"),
    ],
)
def test_what_cannot_be_exported_is_refused(
    runs, tmp_path, refused, monkeypatch, kind, options, message
):
    run = runs[kind]()
    monkeypatch.chdir(tmp_path)
    assert message in refused("export-policy", run, *options)
    assert not list(tmp_path.glob("*.onnx"))


def test_an_absent_package_is_named_with_its_extra(runs, tmp_path, refused, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    out = tmp_path / "policy.onnx"
    message = refused("export-policy", runs["vectors"](), "--ddim-steps", 1, "--out", out)
    assert "ONNX graphs need onnx; install it with pip install 'diffpolicy[onnx]'" in message
    assert not out.exists()


def test_an_observation_named_as_the_noise_is_refused(tmp_path, refused):
    checkpoint = two_vectors()
    task = replace(checkpoint.specification.task, observations={"noise": ObservationSpec((1,))})
    specification = replace(checkpoint.specification, task=task)
    normalizers: dict[str, Normalizer] = {"noise": identity(1)}
    weights = build_network(specification, normalizers).state_dict()
    run = saved(
        tmp_path / "a",
        replace(
            checkpoint,
            specification=specification,
            weights=weights,
            observation_normalizers=normalizers,
        ),
    )
    line = refused("export-policy", run, "--out", tmp_path / "a.onnx")
    assert "an observation cannot be named noise" in line


def test_an_imported_policy_keeps_its_grid_and_its_own_numbers(tmp_path, call):
    """Inputs of LeRobot's figures were not normalised, so they are given as if they had been."""
    from onnxruntime import InferenceSession

    samples = os.environ.get("DIFFPOLICY_SAMPLES")
    if not samples:
        pytest.skip("DIFFPOLICY_SAMPLES does not name the folder of samples")
    source, run, out = (
        Path(samples) / "lerobot_diffusion_state",
        tmp_path / "a",
        tmp_path / "a.onnx",
    )
    import_policy(ImportPolicyConfig(source, run, control_dt=0.1, position_targets=True))
    assert call("export-policy", run, "--ddim-steps", 10, "--out", out).code == 0
    contract = json.loads(out.with_suffix(".json").read_text(encoding="utf-8"))
    assert contract["sampling"]["grid"] == "leading"
    assert contract["sampling"]["timesteps"] == list(range(90, -1, -10))
    policy, expected = Policy.load(run), np.load(source / "expected.npz")
    session = InferenceSession(out, providers=["CPUExecutionProvider"])
    for row in range(3):
        inputs = {key: expected[key][row : row + 1] for key in contract["observations"]}
        for key, normalizer in policy.observation_normalizers.items():
            inputs[key] = normalizer.unnormalize(inputs[key])
        noise = expected["noise"][None, row : row + 1]
        [actions] = session.run(["actions"], {**inputs, "noise": noise})
        figures = expected["actions_10"][row : row + 1, 1:]
        np.testing.assert_allclose(actions, figures, atol=1e-4, rtol=0)
