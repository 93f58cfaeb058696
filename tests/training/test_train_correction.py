"""Training of correction heads: their pairs, a shift that one must learn, and the command."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
import zarr

from diffpolicy.checkpoint import Checkpoint, load_policy, load_tensors, save_policy
from diffpolicy.config import ModelConfig
from diffpolicy.data.normalizer import identity
from diffpolicy.data.windows import make_windows
from diffpolicy.errors import DiffpolicyError
from diffpolicy.late import correction as head
from diffpolicy.policy import Policy
from diffpolicy.specification import FLAT, Horizons, Specification, Task, flat_observation
from diffpolicy.training import correction
from diffpolicy.training.config import CorrectionConfig, TrainConfig
from diffpolicy.training.correction import fit, pairs, train_correction
from diffpolicy.training.train import train

HORIZONS = Horizons(2, 5, 2)
SPECIFICATION = Specification(
    ModelConfig(), HORIZONS, Task("none", 0.02, False, flat_observation(1), 1), 1.0, {}
)
POLICY = Checkpoint(SPECIFICATION, {}, {FLAT: identity(1)}, identity(1))


def with_chunks(observations, actions, ends, chunks):
    windows = make_windows({FLAT: observations}, actions, np.array(ends), HORIZONS)
    return replace(windows, trajectories=chunks[:, None])


def test_a_pair_has_the_observation_of_the_tick_before_and_ends_with_the_episode():
    """Row r of the chunk of tick t belongs to tick t - 1 + r; its values say which it is."""
    rows = np.arange(9, dtype=np.float32)[:, None]
    chunks = np.arange(9 * 5, dtype=np.float32).reshape(9, 5, 1)
    windows = with_chunks(rows, 100 * rows, [4, 9], chunks).to("cpu")
    index = torch.arange(9).repeat(50)
    given, wanted = pairs(windows, index, torch.Generator().manual_seed(0))
    before, newest, action, place = given.T
    row = (place * HORIZONS.usable).round().long()
    first, last = torch.where(index < 4, 0, 4), torch.where(index < 4, 3, 8)
    tick = index + row
    assert (tick <= last).all()
    assert torch.equal(newest.long(), (tick - 1).maximum(first))
    assert torch.equal(before.long(), (tick - 2).maximum(first))
    assert torch.equal(action, (5 * index + 1 + row).float())
    assert torch.equal(wanted[:, 0], 100.0 * tick - action)
    assert set(row[index == 0].tolist()) == {0, 1, 2, 3} and set(row[index == 3].tolist()) == {0}


def test_a_head_learns_the_shift_that_the_newer_observation_tells():
    """Demonstrations follow a ∓½ that changes at random; chunks know nothing of it."""
    rng = np.random.default_rng(0)
    side = rng.choice(np.float32([-0.5, 0.5]), (2001, 1))
    windows = with_chunks(
        side[1:], 0.6 * side[:-1], [2000], np.zeros((2000, 5, 1), np.float32)
    )  # the action of a tick is told by the observation of the tick before
    weights = fit(POLICY, windows, 300, seed=0)
    given, wanted = pairs(windows.to("cpu"), torch.arange(1, 2000), torch.Generator())
    change = head.evaluate(weights, given)
    assert float(wanted.square().mean().sqrt()) == pytest.approx(0.3, abs=1e-6)
    assert float((change - wanted).square().mean().sqrt()) < 0.02
    again = fit(POLICY, windows, 300, seed=0)
    assert all(torch.equal(again[name], weight) for name, weight in weights.items())


@pytest.fixture(scope="module", autouse=True)
def few_chunks():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(correction, "CHUNKS", 500)
        patch.setattr(correction, "VALIDATION_CHUNKS", 100)
        yield


@pytest.fixture
def run(tiny_run, tmp_path):
    return shutil.copytree(tiny_run, tmp_path / "run")


def test_the_command_writes_a_head_that_control_takes(run, call):
    found = call("train-correction", "--run", run, "--steps", "30")
    assert found.code == 0 and "use it with --late correct" in found.out
    _, header = load_tensors(run / head.FILE)
    before, after = header["training"]["held_out_rms"]
    assert after < before
    assert header["training"]["chunks"] >= 500 and header["training"]["config"]["steps"] == 30
    policy = Policy.load(run, ddim_steps=1, late="correct")
    action = np.zeros((1, policy.task.action_dim), np.float32)
    seen = {FLAT: np.zeros((1, 2, 4), np.float32)}
    assert not np.array_equal(policy.correct(seen, action, np.array([1])), action)


def test_the_same_command_gives_the_same_head(run):
    train_correction(CorrectionConfig(run, steps=5))
    first = (run / head.FILE).read_bytes()
    train_correction(CorrectionConfig(run, steps=5))
    assert (run / head.FILE).read_bytes() == first


@pytest.mark.parametrize("objective", ["regression", "mip"])
def test_a_policy_without_noise_is_corrected_as_it_is(objective, balance_store, tmp_path):
    small = {"hidden": 16, "blocks": 1, "steps": 3, "device": "cpu", "batch": 8}
    out = tmp_path / "run"
    train(TrainConfig(data=balance_store, out=out, objective=objective, **small))
    assert train_correction(CorrectionConfig(out, steps=2)) == out / head.FILE


def test_a_student_starts_at_its_second_timestep(run):
    policy = load_policy(run)
    model = replace(policy.specification.model, objective="distilled", prediction="x0")
    about = replace(policy.specification, model=model, schedules=((99,), (99, 18)))
    sampler, start = correction._sampler(replace(policy, specification=about))
    assert start == 18 and [row.t for row in sampler.chain.rows] == [18]
    assert correction._sampler(policy)[0].chain.rows[0].t == 50


def test_other_data_are_refused_and_the_old_head_stays(run, tmp_path, refused):
    train_correction(CorrectionConfig(run, steps=2))
    kept = (run / head.FILE).read_bytes()
    other = tmp_path / "other.zarr"
    shutil.copytree(load_policy(run).specification.training["config"]["data"], other)
    zarr.open_group(other)["data/action"][0] = 0.01
    line = refused("train-correction", "--run", run, "--data", other, "--steps", "2")
    assert "are not the demonstrations that" in line and "--data" in line
    assert "--steps must be positive" in refused("train-correction", "--run", run, "--steps", "0")
    assert (run / head.FILE).read_bytes() == kept


def test_a_head_that_could_not_be_written_is_not_trained(run, refused, monkeypatch):
    (run / head.FILE).unlink(missing_ok=True)
    (run / head.FILE).mkdir()
    monkeypatch.setattr(correction, "prepare", None)
    assert "is a folder; a file was expected" in refused("train-correction", "--run", run)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda s: replace(s, model=replace(s.model, prefix_max=2)), "without --prefix-max"),
        (lambda s: replace(s, training={}), "does not say how it was trained"),
    ],
)
def test_runs_that_cannot_be_corrected_are_refused(run, change, told):
    policy = load_policy(run)
    changed = replace(policy, specification=change(policy.specification))
    with pytest.raises(DiffpolicyError, match=told):
        correction._prepared(CorrectionConfig(run), changed)
    save_policy(run / "policy.safetensors", policy)
