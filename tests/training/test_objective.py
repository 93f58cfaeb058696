"""Objectives: MIP, the timesteps that training draws, and the budgets that a run has."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from diffpolicy.checkpoint import Checkpoint
from diffpolicy.config import ModelConfig, Sampling
from diffpolicy.data.normalizer import identity
from diffpolicy.data.windows import make_windows
from diffpolicy.errors import DiffpolicyError
from diffpolicy.policy import Policy
from diffpolicy.sampling.chain import audit, make_chain, own_budgets
from diffpolicy.sampling.noise import alpha_bar_table
from diffpolicy.sampling.steps import sample
from diffpolicy.specification import FLAT, Horizons, Specification, Task, flat_observation
from diffpolicy.training.config import TrainConfig
from diffpolicy.training.learner import Learner
from diffpolicy.training.objective import draw_timesteps, make_objective
from diffpolicy.training.train import train

MODEL = ModelConfig(hidden=32, blocks=1, condition=16, objective="mip")
SPECIFICATION = Specification(
    MODEL, Horizons(1, 4, 2), Task("none", 0.1, True, flat_observation(1), 1), 1.0, {}
)
CPU = torch.device("cpu")


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def mip_of(denoise) -> float:
    """The action of MIP's two steps with a denoiser (x, t) -> x̂0."""
    chain = make_chain(MODEL, 1.0, Sampling())
    noise = chain.start_scale * torch.randn(1, 1, 1, 1, generator=generator())
    return float(sample(lambda x, k: denoise(x, chain.rows[k].t), noise, chain.rows))


def test_mip_is_two_steps_from_zero():
    chain = make_chain(MODEL, 1.0, Sampling())
    assert chain.start_scale == 0
    assert audit(chain)["timesteps"] == [99, 5] and audit(chain)["network_evals"] == 2


def test_mip_returns_the_mean_of_data_with_one_mode():
    assert mip_of(lambda x, t: torch.full_like(x, 0.3)) == pytest.approx(0.3, abs=1e-6)


@pytest.mark.parametrize("error", [0.0, 0.005, 0.01, 0.02, 0.05])
def test_mip_keeps_between_two_modes_what_its_first_step_leaves_there(error):
    """Points ±½: the best second step is ½ tanh(a x / 2b²), the best first one their mean, 0."""
    level = float(alpha_bar_table("squaredcos", 100)[5])

    def denoise(x, t):
        if t == 99:
            return torch.full_like(x, error)
        return 0.5 * torch.tanh(0.5 * math.sqrt(level) * x / (1 - level))

    expected = 0.5 * math.tanh(0.5 * level * error / (1 - level))
    assert mip_of(denoise) == pytest.approx(expected, rel=2e-3, abs=1e-7)
    assert expected <= 0.5 and (error < 0.02 or expected > 0.35)


def test_half_of_mips_samples_see_nothing_and_half_the_noised_chunk():
    x0 = torch.full((2000, 4, 1), 0.5)
    x, t, target = make_objective(MODEL, CPU).pair(x0, generator())
    assert torch.equal(target, x0)
    assert set(t.tolist()) == {99, 5} and int((t == 5).sum()) == 1000
    assert not x[t == 99].any()
    level = float(alpha_bar_table("squaredcos", 100)[5])
    seen = x[t == 5]
    assert float(seen.mean()) == pytest.approx(0.5 * math.sqrt(level), abs=0.01)
    assert float(seen.std()) == pytest.approx(math.sqrt(1 - level), rel=0.05)


def test_a_trained_mip_policy_ignores_its_noise_and_finds_one_mode():
    actions = np.full((16, 1), 0.4, np.float32)
    windows = make_windows(
        {FLAT: np.zeros((16, 1), np.float32)}, actions, np.array([16]), SPECIFICATION.horizons
    )
    learner = Learner(SPECIFICATION, CPU)
    for _ in range(300):
        learner.learn(windows, 64, 0.0)
    policy = Policy(Checkpoint(SPECIFICATION, learner.ema, {FLAT: identity(1)}, identity(1)))
    assert (policy.ddim_steps, policy.network_evals) == (2, 2)
    still = np.zeros((1, 1, 1), np.float32)
    first, second = policy(still), policy(still)
    np.testing.assert_array_equal(first, second)
    np.testing.assert_allclose(first, 0.4, atol=0.05)


@pytest.mark.parametrize(
    ("rule", "quantiles"),
    [
        ("uniform", (0.25, 0.5, 0.75)),
        ("logit-normal", (0.3375, 0.5, 0.6625)),  # of 1 / (1 + e^-z), z standard normal
        ("beta", (0.3969, 0.6300, 0.8255)),  # p^(2/3)
    ],
)
def test_timesteps_have_the_quantiles_of_their_distribution(rule, quantiles):
    t = draw_timesteps(rule, 1000, 100_000, generator()).double()
    assert t.min() >= 0 and t.max() <= 999
    found = torch.quantile(t, torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64)) / 1000
    assert found.tolist() == pytest.approx(quantiles, abs=0.01)


@pytest.mark.parametrize(
    ("objective", "schedules", "expected"),
    [
        ("denoising", ((99, 7),), None),
        ("regression", (), (0,)),
        ("mip", (), (2,)),
        ("distilled", ((99,), (99, 18)), (1, 2)),
    ],
)
def test_the_own_budgets_of_a_run_are_those_that_its_chain_takes(objective, schedules, expected):
    model = replace(MODEL, objective=objective)
    grid = "optimised" if objective == "distilled" else "trailing"
    run = replace(SPECIFICATION, model=model, schedules=schedules, grid=grid)
    assert own_budgets(run) == expected
    for steps in expected or ():
        chain = make_chain(model, 1.0, Sampling(steps), run.grid, True, run.schedules)
        assert chain.steps == steps


def test_a_mip_policy_has_one_budget():
    with pytest.raises(DiffpolicyError, match=r"MIP policy; give it --ddim-steps 2, .*got \{"):
        make_chain(MODEL, 1.0, Sampling(10))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"objective": "distilled"}, "needs a teacher; try diffpolicy distill"),
        ({"objective": "mip", "mip_timestep": 99}, "below the first one, 99; got 99"),
        ({"mip_timestep": 10}, "--mip-timestep is for --objective mip"),
        ({"objective": "mip", "time_sampling": "beta"}, "--time-sampling beta is for --objective"),
        ({"schedule": "flow", "prediction": "v"}, "unlike flow; try --prediction velocity"),
    ],
)
def test_an_objective_refuses_options_it_does_not_use(balance_store, tmp_path, options, message):
    with pytest.raises(DiffpolicyError, match=message):
        train(TrainConfig(data=balance_store, out=tmp_path / "run", **options))
    assert not (tmp_path / "run").exists()
