"""Distillation: pairs of a teacher's chain, and students of one and two evaluations."""

import json
import shutil
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch
import zarr

from diffpolicy.checkpoint import load_policy
from diffpolicy.config import ModelConfig, Sampling
from diffpolicy.data.windows import make_windows
from diffpolicy.errors import DiffpolicyError
from diffpolicy.eval.config import LatencyConfig, SweepConfig
from diffpolicy.eval.data_config import DenoiseConfig, OfflineConfig
from diffpolicy.eval.denoise import denoise
from diffpolicy.eval.latency import latency
from diffpolicy.eval.measure.steps import steps_of
from diffpolicy.eval.offline import offline
from diffpolicy.eval.sweep import sweep
from diffpolicy.policies.config import ExportPolicyConfig
from diffpolicy.policies.exporting import export_policy
from diffpolicy.policy import Policy
from diffpolicy.sampling.chain import make_chain
from diffpolicy.sampling.noise import flow_levels, make_levels
from diffpolicy.sampling.parameterisation import x0_coefficients
from diffpolicy.sampling.steps import states
from diffpolicy.specification import FLAT, Horizons, Specification, Task, flat_observation
from diffpolicy.training import distill as distillation
from diffpolicy.training.config import DistillConfig, TrainConfig
from diffpolicy.training.distill import distill, schedules
from diffpolicy.training.learner import Learner
from diffpolicy.training.objective import Distillation
from diffpolicy.training.train import train
from diffpolicy.training.trajectories import DISPLACEMENT, displaced, repeated, with_trajectories

LEVELS = make_levels("squaredcos", 100)
CHAIN = make_chain(ModelConfig(prediction="x0"), None, Sampling(16))
TIMES = torch.tensor([t for t, _ in CHAIN.grid])
HORIZONS = Horizons(1, 2, 1)
SMALL = {"steps": 30, "threads": 1, "device": "cpu"}


def trajectories(best, count: int, rows: int = 1) -> torch.Tensor:
    """[count, 17, rows, 1] of the chain of 16 steps with an exact x̂0(x, a, b)."""
    table = CHAIN.rows

    def denoise(x, k):
        return best(x, *LEVELS[table[k].t])

    generator = torch.Generator().manual_seed(0)
    z = torch.randn(count, rows, 1, generator=generator, dtype=torch.float64)
    return torch.stack([z, *(x for x, _ in states(denoise, z[None], table))], dim=1)


def normal(x, a: float, b: float):
    """The best x̂0 for data N(.5, .1²)."""
    gain = a * 0.01 / (a * a * 0.01 + b * b)
    return 0.5 + gain * (x - 0.5 * a)


def two_points(x, a: float, b: float):
    """The best x̂0 for data ±½."""
    return 0.5 * torch.tanh(0.5 * a * x / b**2)


def pairs_of(found: torch.Tensor, prediction: str = "x0", levels=LEVELS):
    signal, noise = torch.tensor(levels).float().T
    objective = Distillation(TIMES, prediction, signal, noise)
    return objective.pair(found, torch.Generator().manual_seed(1))


def linear_fit(z: torch.Tensor, y: torch.Tensor) -> tuple[float, float]:
    """Mean and slope of the best y = μ + s z."""
    slope = ((z - z.mean()) * (y - y.mean())).mean() / z.var(unbiased=False)
    return float(y.mean() - slope * z.mean()), float(slope)


def test_a_linear_student_of_a_normal_teacher_recovers_its_mean_and_spread():
    """The spread is the one of sixteen steps, .06455, not that of the data, .1."""
    found = trajectories(normal, 4000)
    x, t, y = pairs_of(found)
    first = t == 99
    assert 0.4 < float(first.float().mean()) < 0.6
    mean, spread = linear_fit(x[first], y[first])
    assert (mean, spread) == pytest.approx((0.49998, 0.06455), abs=1e-4)


def test_without_the_pairing_a_student_learns_the_mean_alone():
    found = trajectories(normal, 4000)
    shuffled = torch.cat([found[:, :-1], found[torch.randperm(4000), -1:]], dim=1)
    x, t, y = pairs_of(shuffled)
    mean, spread = linear_fit(x[t == 99], y[t == 99])
    assert (mean, spread) == pytest.approx((0.5, 0), abs=0.01)


def test_every_state_is_seen_at_its_timestep():
    found = torch.arange(17.0)[None, :, None, None].expand(4000, 17, 1, 1)
    x, t, y = pairs_of(found)
    assert (y == 16).all()
    assert torch.equal(TIMES[x.flatten().long()], t)
    assert set(t.tolist()) == set(TIMES.tolist())


@pytest.mark.parametrize(("prediction", "levels"), [("v", LEVELS), ("velocity", flow_levels(100))])
def test_targets_of_every_prediction_are_read_as_the_end(prediction, levels):
    found = trajectories(normal, 400)
    (x, t, y), (_, _, end) = pairs_of(found, prediction, levels), pairs_of(found)
    of_time = torch.tensor([x0_coefficients(prediction, *level) for level in levels])
    p, q, r = of_time[t].T[:, :, None, None]
    torch.testing.assert_close(((p * x + q * y) / r).float(), end, rtol=0, atol=1e-5)


def test_a_student_keeps_both_modes_as_often_as_its_teacher():
    model = ModelConfig(hidden=64, blocks=2, condition=16, objective="distilled", prediction="x0")
    task = Task("none", 0.1, True, flat_observation(1), 1)
    specification = Specification(model, HORIZONS, task, 1.0, {})
    still = {FLAT: np.zeros((4000, 1), np.float32)}
    windows = make_windows(still, np.zeros((4000, 1), np.float32), np.array([4000]), HORIZONS)
    found = trajectories(two_points, 4000, rows=2)
    windows = replace(windows, trajectories=found.half().numpy())
    learner = Learner(specification, torch.device("cpu"), teacher_times=TIMES.tolist())
    for step in range(1000):
        learner.learn(windows, 128, step / 1000)
    held_out = trajectories(two_points, 8000, rows=2)[4000:].float()
    with torch.no_grad():
        learner.network.load_state_dict(learner.ema)
        last = torch.full((4000,), 99)
        one = learner.network(held_out[:, 0], last, {FLAT: torch.zeros(4000, 1, 1)})
    share, teachers = (float((chunk[:, 0] > 0).float().mean()) for chunk in (one, held_out[:, -1]))
    assert share == pytest.approx(teachers, abs=0.05)
    near = float(((one.abs() - 0.5).abs() < 0.15).float().mean())
    assert near > 0.75  # one step of the teacher gives the mean, 0


def test_the_second_evaluation_is_the_teachers_nearest_to_its_noise():
    model = ModelConfig()
    assert schedules(model, make_chain(model, 1.0, Sampling(16))) == ((99,), (99, 18))
    assert schedules(model, make_chain(model, 1.0, Sampling(2))) == ((99,), (99, 49))


@pytest.fixture(scope="module")
def teacher(balance_store, tmp_path_factory):
    out = tmp_path_factory.mktemp("teacher") / "x0"
    options = {"hidden": 32, "blocks": 1, "steps": 40, "prediction": "x0", "device": "cpu"}
    train(TrainConfig(data=balance_store, out=out, batch=32, **options))
    return out


@pytest.fixture(scope="module", autouse=True)
def few_pairs():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(distillation, "PAIRS", 500)
        patch.setattr(distillation, "VALIDATION_PAIRS", 100)
        yield


@pytest.fixture(scope="module")
def student(teacher, tmp_path_factory):
    out = tmp_path_factory.mktemp("student") / "run"
    distill(DistillConfig(teacher, out, teacher_steps=4, **SMALL))
    return out


def test_a_trajectory_ends_at_the_teachers_own_chunk(teacher):
    policy = Policy.load(teacher, ddim_steps=4)
    rng = np.random.default_rng(0)
    seen = rng.uniform(-1, 1, (10, 4)).astype(np.float32)
    windows = make_windows(
        {FLAT: seen}, np.zeros((10, 1), np.float32), np.array([10]), policy.horizons
    )
    found = with_trajectories(windows, policy, seed=3).trajectories
    history, _, _ = windows.gather(np.arange(10))
    raw = policy.observation_normalizers[FLAT].unnormalize(history[FLAT])
    noise = found[:, 0].astype(np.float32)[None]
    chunk = policy(raw.astype(np.float32), noise)
    end = policy.action_normalizer.unnormalize(found[:, -1].astype(np.float32))
    np.testing.assert_allclose(end[:, policy.horizons.observation - 1 :], chunk, atol=2e-3)
    assert found.shape == (10, 5, policy.horizons.prediction, 1)
    assert len(repeated(windows, 25)) == 30


def test_copies_are_displaced_by_one_draw_for_each_episode():
    still = {FLAT: np.zeros((10, 3), np.float32)}
    actions = np.arange(10, dtype=np.float32)[:, None]
    windows = make_windows(still, actions, np.array([4, 10]), Horizons(2, 4, 1))
    copies = displaced(windows, 4000, seed=0)
    seen, chunks, _ = copies.gather(np.arange(len(copies)))
    assert len(copies) == 4000 and not seen[FLAT][:10].any()
    np.testing.assert_array_equal(chunks[:10], chunks[-10:])
    further = seen[FLAT][10:].reshape(399, 10, 2, 3)
    for episode in (slice(0, 4), slice(4, 10)):
        assert (further[:, episode] == further[:, episode.start, None, :1]).all()
    assert further.std() == pytest.approx(DISPLACEMENT, rel=0.05)
    assert len(np.unique(further)) == 399 * 2 * 3


def test_a_student_names_its_teacher_and_takes_one_or_two_steps(teacher, student):
    specification = load_policy(student).specification
    about = specification.training["teacher"]
    assert specification.model.objective == "distilled" and specification.model.prediction == "x0"
    assert about["chain"]["timesteps"] == [99, 74, 49, 24]
    assert about["fingerprint"] == distillation.weights_fingerprint(load_policy(teacher).weights)
    assert specification.training["pairs"] >= 500
    assert specification.schedules == ((99,), (99, 24))
    assert Policy.load(student).ddim_steps == 2
    for engine in ("eager", "native"):
        for steps in (1, 2):
            policy = Policy.load(student, ddim_steps=steps, engine=engine, seed=1)
            assert policy.network_evals == steps
            assert policy(np.zeros((1, 2, 4), np.float32)).shape == (1, 23, 1)
    with pytest.raises(DiffpolicyError, match="optimised grids for 1, 2 steps; got --ddim-steps 4"):
        Policy.load(student, ddim_steps=4)


@pytest.mark.gpu
def test_a_student_is_trained_on_cuda(teacher, tmp_path):
    out = tmp_path / "student"
    distill(DistillConfig(teacher, out, teacher_steps=4, **{**SMALL, "device": "cuda"}))
    assert np.isfinite(Policy.load(out, ddim_steps=1)(np.zeros((1, 2, 4), np.float32))).all()


def test_a_student_of_v_or_velocity_predicts_the_same(balance_store, tmp_path):
    options = {"hidden": 32, "blocks": 1, "steps": 2, "device": "cpu", "batch": 32}
    for kind in ({"prediction": "v"}, {"prediction": "velocity", "schedule": "flow"}):
        run, out = tmp_path / kind["prediction"], tmp_path / f"{kind['prediction']}-student"
        train(TrainConfig(data=balance_store, out=run, **options, **kind))
        distill(DistillConfig(run, out, teacher_steps=2, **{**SMALL, "steps": 1}))
        found, taught = load_policy(out), load_policy(run)
        assert found.specification.model.prediction == kind["prediction"]
        ours, theirs = found.weights, taught.weights
        assert all(torch.allclose(ours[name], theirs[name], atol=1e-3) for name in theirs)
        actions = Policy.load(out, ddim_steps=2, seed=1)(np.zeros((1, 2, 4), np.float32))
        assert np.isfinite(actions).all()


def test_a_student_starts_from_the_weights_of_a_teacher_that_reads_x0(teacher, tmp_path):
    distill(DistillConfig(teacher, tmp_path / "run", teacher_steps=2, **{**SMALL, "steps": 1}))
    ours, theirs = load_policy(tmp_path / "run").weights, load_policy(teacher).weights
    assert all(torch.allclose(ours[name], theirs[name], atol=1e-3) for name in theirs)


def test_a_resumed_student_equals_an_uninterrupted_one(teacher, student, tmp_path, monkeypatch):
    config, learn = (
        DistillConfig(teacher, tmp_path / "run", teacher_steps=4, **SMALL),
        Learner.learn,
    )

    def interrupted(self, *inputs):
        if self.step == 10:
            signal.raise_signal(signal.SIGINT)
        return learn(self, *inputs)

    monkeypatch.setattr(Learner, "learn", interrupted)
    with pytest.raises(KeyboardInterrupt):
        distill(config)
    monkeypatch.undo()
    assert load_policy(config.out).specification.training["step"] == 11
    with pytest.raises(DiffpolicyError, match="already holds a run"):
        distill(config)
    with monkeypatch.context() as patched:
        patched.setattr(distillation, "with_trajectories", None)  # refused before any pair is made
        with pytest.raises(DiffpolicyError, match="a student of another teacher or of another"):
            distill(replace(config, teacher_steps=8, resume=True))
    distill(replace(config, steps=None, resume=True))
    ours, theirs = load_policy(config.out).weights, load_policy(student).weights
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_a_signal_during_the_pairs_leaves_nothing(teacher, tmp_path, monkeypatch):
    def stopped(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(distillation, "with_trajectories", stopped)
    with pytest.raises(KeyboardInterrupt):
        distill(DistillConfig(teacher, tmp_path / "run", **SMALL))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"teacher_steps": 101}, r"--teacher-steps must be at most 100.*got 101"),
        ({"sampler": "euler"}, "--sampler euler cannot teach; expected one of: ddim"),
        ({"steps": 3, "minutes": 1.0}, "give --steps or --minutes, not both"),
    ],
)
def test_bad_options_are_refused_before_anything_is_written(teacher, tmp_path, options, message):
    out = tmp_path / "run"
    with pytest.raises(DiffpolicyError, match=message):
        distill(DistillConfig(teacher, out, **options))
    assert not out.exists()


def test_only_a_diffusion_run_with_its_own_data_teaches(teacher, student, tmp_path, refused):
    out = tmp_path / "run"
    line = refused("distill", "--run", student, "--out", out)
    assert "cannot teach: its objective is distilled; expected a diffusion policy" in line
    other = tmp_path / "other.zarr"
    shutil.copytree(load_policy(teacher).specification.training["config"]["data"], other)
    store = zarr.open_group(other)
    store["data/action"][0] = 0.01
    line = refused("distill", "--run", teacher, "--data", other, "--out", out, "--threads", "1")
    assert "are not the demonstrations that" in line and "--data" in line
    assert "--teacher-steps must be at least 2" in refused(
        "distill", "--run", teacher, "--out", out, "--teacher-steps", "1"
    )
    assert not out.exists()


EPISODES = {
    **{"episodes": 2, "envs": 2, "batch": 2, "max_steps": 12, "engine": "eager", "workers": 1},
    **{"ms_per_step": 2, "pictures": False},
}


@pytest.fixture(scope="module")
def mip(balance_store, tmp_path_factory):
    out = tmp_path_factory.mktemp("mip") / "run"
    options = {"hidden": 32, "blocks": 1, "steps": 20, "objective": "mip", "device": "cpu"}
    train(TrainConfig(data=balance_store, out=out, batch=32, **options))
    return out


@pytest.mark.parametrize(("kind", "budgets"), [("student", [1, 2]), ("mip", [2])])
def test_a_sweep_and_offline_take_the_runs_own_budgets(kind, budgets, request, tmp_path):
    run = request.getfixturevalue(kind)
    rows = sweep(SweepConfig(run=run, out=tmp_path / "sweep", **EPISODES)).rows
    assert [row.ddim_steps for row in rows if row.clock == "paused"] == budgets
    assert [row.network_evals for row in rows if row.clock == "paused"] == budgets
    small = {"latency_seconds": 0.05, "engine": "eager", "out": tmp_path / "offline"}
    figures = offline(OfflineConfig(run=run, episodes=1, samples=2, **small))
    assert [row.ddim_steps for row in figures.rows] == budgets


def test_asked_steps_are_chosen_among_those_of_the_run(student, tiny_run):
    own, any_number = (load_policy(run).specification for run in (student, tiny_run))
    assert steps_of((1, 4), own) == [1]
    assert steps_of((4, 8), own) == [1, 2]
    assert steps_of((4, 1, 4), any_number) == [1, 4]


@pytest.mark.parametrize("kind", ["student", "mip"])
def test_latency_and_denoise_take_such_a_run(kind, request, tmp_path, capsys):
    run = request.getfixturevalue(kind)
    latency(LatencyConfig(run=run, engine=("eager", "native"), seconds=0.05))
    denoise(DenoiseConfig(run=run, out=tmp_path / "found.webp", chunks=2))
    assert "2 network evaluations" in capsys.readouterr().out


@pytest.mark.parametrize(("kind", "noise"), [("student", True), ("mip", False)])
def test_an_exported_file_has_noise_where_the_policy_has(kind, noise, request, tmp_path):
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    out = tmp_path / "policy.onnx"
    export_policy(ExportPolicyConfig(run=request.getfixturevalue(kind), out=out))
    contract = json.loads(out.with_suffix(".json").read_text())
    assert (contract["noise"] is not None) == noise
