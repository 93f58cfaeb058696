"""The zero-step baseline: the same network without diffusion gives the demonstrations' mean."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from diffpolicy.checkpoint import Checkpoint
from diffpolicy.config import ModelConfig, Sampling
from diffpolicy.data.normalizer import identity
from diffpolicy.data.windows import make_windows
from diffpolicy.errors import DiffpolicyError
from diffpolicy.eval.compare import Candidate, recommend
from diffpolicy.eval.config import LatencyConfig, SweepConfig
from diffpolicy.eval.latency import latency
from diffpolicy.eval.measure.budgets import load_budgets
from diffpolicy.eval.measure.profiles import replay
from diffpolicy.eval.report.sentences import headline, reason
from diffpolicy.eval.sweep import sweep
from diffpolicy.policy import Policy
from diffpolicy.sampling.chain import make_chain
from diffpolicy.specification import FLAT, Horizons, Specification, Task, flat_observation
from diffpolicy.training.config import TrainConfig
from diffpolicy.training.learner import Learner
from diffpolicy.training.train import train

HORIZONS = Horizons(1, 4, 2)
TASK = Task("none", 0.1, True, flat_observation(1), 1)
TWO_WAYS = np.repeat(np.array([1.0, -1.0], np.float32), 8)[:, None]  # two episodes, left and right
WINDOWS = make_windows({FLAT: np.zeros((16, 1), np.float32)}, TWO_WAYS, np.array([8, 16]), HORIZONS)
SMALL = {"episodes": 4, "envs": 4, "batch": 4, "max_steps": 30, "engine": "eager"}


def learned(steps: int, **model) -> Policy:
    """A policy trained on demonstrations that go left as often as right."""
    config = ModelConfig(hidden=64, blocks=2, condition=16, train_timesteps=20, **model)
    specification = Specification(config, HORIZONS, TASK, 1.0, {})
    learner = Learner(specification, torch.device("cpu"))
    for _ in range(steps):
        learner.learn(WINDOWS, 64, 0.0)
    sampling = Sampling(0) if config.regression else Sampling(10)
    return Policy(
        Checkpoint(specification, learner.ema, {FLAT: identity(1)}, identity(1)), sampling
    )


def test_regression_goes_between_two_ways_and_diffusion_takes_one():
    still = np.zeros((64, 1, 1), np.float32)
    between, taken = learned(200, objective="regression")(still), learned(600)(still)
    assert np.abs(between).max() < 0.2
    assert np.abs(np.abs(taken) - 1).mean() < 0.2
    assert 0.2 < (taken[:, 0] > 0).mean() < 0.8


def test_the_loss_is_the_squared_error_of_one_evaluation_that_sees_no_chunk():
    config = ModelConfig(hidden=8, blocks=1, objective="regression")
    learner = Learner(
        Specification(config, HORIZONS, TASK, 1.0, {}),
        torch.device("cpu"),
    )

    def network(x, t, observation):
        assert not x.any() and (t == config.train_timesteps - 1).all()
        return torch.full_like(x, 0.5)

    loss = learner.loss(network, WINDOWS, 4096, torch.Generator().manual_seed(0))
    assert float(loss) == pytest.approx((0.5**2 + 1.5**2) / 2, rel=0.05)


@pytest.fixture(scope="module")
def run_with_baseline(tiny_run, balance_store, tmp_path_factory):
    """A run, and in it the regression baseline of the same network and data.

    It may name another prediction, which regression does not have.
    """
    run = tmp_path_factory.mktemp("both") / "run"
    shutil.copytree(tiny_run, run)
    options = {"prediction": "x0", "steps": 19, "hidden": 32, "blocks": 1, "device": "cpu"}
    train(
        TrainConfig(data=balance_store, out=run / "regression", objective="regression", **options)
    )
    return run


@pytest.mark.parametrize("engine", ["eager", "native", "onnx"])
def test_one_evaluation_whatever_the_noise_on_every_engine(run_with_baseline, engine):
    if engine == "onnx":
        pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    path = run_with_baseline / "regression"
    policy, eager = (
        Policy.load(path, ddim_steps=0, engine=name, seed=3) for name in (engine, "eager")
    )
    assert (policy.ddim_steps, policy.network_evals) == (0, 1)
    assert Policy.load(path).ddim_steps == 0
    history = np.random.default_rng(0).uniform(-0.05, 0.05, (1, 2, 4)).astype(np.float32)
    first, second = policy(history), policy(history)
    np.testing.assert_array_equal(first, second)
    np.testing.assert_allclose(first, eager(history), atol=1e-5)


def test_a_regression_policy_has_no_budgets(run_with_baseline, refused):
    path = run_with_baseline / "regression"
    with pytest.raises(DiffpolicyError, match=r"--ddim-steps 0, .* got \{'ddim_steps': 3\}"):
        Policy.load(path, ddim_steps=3)
    with pytest.raises(DiffpolicyError, match="no other sampler's option"):
        Policy.load(path, ddim_steps=0, eta=1.0)
    assert "no budgets to sweep" in refused("sweep", "--run", path)
    with pytest.raises(DiffpolicyError, match="between 1 and the 100 timesteps"):
        make_chain(ModelConfig(), 1.0, Sampling(0))


def test_a_sweep_has_the_baseline_as_its_first_row(run_with_baseline, tmp_path):
    config = SweepConfig(
        run=run_with_baseline, ddim_steps=(1, 2), ddpm=False, ms_per_step=2, out=tmp_path, **SMALL
    )
    assert [p.chain.name for p in load_budgets(config)] == ["regression", "1 step", "2 steps"]
    result = sweep(replace(config, floor=0.0, margin=1.0, pictures=False))
    rows = [row for row in result.rows if row.clock == "simulated"]
    assert [(row.ddim_steps, row.network_evals) for row in rows] == [(0, 1), (1, 1), (2, 2)]
    assert result.provenance.checkpoint.step == 20 != rows[0].trained.step == 19
    assert rows[0].latency_ms.p50 == 2 and rows[0].variant == "regression"
    assert result.recommendation.ddim_steps == 1  # regression is never recommended
    assert "regression, without denoising, reaches" in result.recommendation.reason


def test_a_baseline_of_another_network_is_refused(run_with_baseline, balance_store, tmp_path):
    options = {"steps": 1, "hidden": 16, "blocks": 1, "device": "cpu"}
    train(TrainConfig(data=balance_store, out=tmp_path / "r", objective="regression", **options))
    config = SweepConfig(run=run_with_baseline, regression=str(tmp_path / "r"), **SMALL)
    with pytest.raises(DiffpolicyError, match=r"cannot be the regression policy of .* network"):
        load_budgets(config)
    with pytest.raises(DiffpolicyError, match="its regression is False, not True"):
        load_budgets(replace(config, regression=str(run_with_baseline)))
    assert not any(p.regression for p in load_budgets(replace(config, regression="none")))


def test_latencies_of_a_baseline_can_be_replayed(run_with_baseline, tmp_path, refused):
    run, path = run_with_baseline / "regression", tmp_path / "latency.json"
    config = LatencyConfig(run=run, ddim_steps=(0,), engine=("eager",), seconds=0.05, json=path)
    latency(config)
    [profile] = replay(path, [Policy.load(run, ddim_steps=0)])
    assert profile.source == "replayed, eager"
    with pytest.raises(DiffpolicyError, match="no denoising loop to compare"):
        latency(replace(config, baseline="diffusers"))


def test_a_budget_is_recommended_against_regression():
    good = np.ones(200, bool)
    budget = Candidate("2 steps", 2, 2, True, good)
    plain = Candidate("regression", 0, 1, True, good, comparator_only=True)
    worse = replace(plain, outcomes=~good)
    advice = recommend([worse, budget], 0.05, 0.5, "success")
    assert advice.ddim_steps == 2 and not advice.cheaper
    assert reason(advice).endswith("; regression, without denoising, reaches 0.00")
    assert "regression" not in reason(recommend([budget], 0.05, 0.5, "success"))
    beaten = replace(budget, outcomes=np.arange(200) > 40)
    better = reason(recommend([plain, beaten], 0.05, 0.5, "success"))
    assert "2 steps, the best budget" in better and "is worse than regression" in better


def test_regression_is_enough_where_it_passes_all_that_a_budget_must():
    good = np.ones(400, bool)
    budget = Candidate("2 steps", 2, 2, True, good)
    plain = Candidate("regression", 0, 1, True, good, comparator_only=True)

    def suffices(*candidates: Candidate) -> bool:
        return recommend(candidates, 0.05, 0.5, "success").regression_suffices

    assert suffices(plain, budget)
    assert not suffices(budget)
    for worse in (
        replace(plain, outcomes=~good),
        replace(plain, meets_deadline=False),
        replace(plain, outcomes=np.arange(400) >= 16),  # 0.96: loses 4 points, too many to tell
    ):
        assert not suffices(worse, budget)
    poor = np.arange(400) < 100
    assert not suffices(replace(plain, outcomes=poor), replace(budget, outcomes=poor))
    few = replace(budget, name="1 step", ddim_steps=1, outcomes=np.arange(400) >= 14)
    nearly = replace(plain, outcomes=np.arange(400) >= 16)  # as good as 1 step, not as 2
    assert not suffices(nearly, few, budget)


def test_the_headline_says_what_is_enough():
    good = np.ones(200, bool)
    plain = Candidate("regression", 0, 1, True, good, comparator_only=True)
    use = recommend([Candidate("2 steps", 2, 2, True, good)], 0.05, 0.5, "success")
    assert headline(use) == "use 2 steps"
    both = recommend([plain, Candidate("2 steps", 2, 2, True, good)], 0.05, 0.5, "success")
    assert headline(both) == "regression is sufficient; if you denoise, use 2 steps"
    none = replace(use, verdict="worse")
    assert headline(none) == "no budget can be recommended"
