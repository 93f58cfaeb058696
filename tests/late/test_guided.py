"""Guidance towards the plan: its mask and weights, its gradient, costs and refusals."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from diffpolicy.checkpoint import Checkpoint
from diffpolicy.config import ModelConfig, Sampling
from diffpolicy.data.normalizer import identity
from diffpolicy.denoisers import build_network
from diffpolicy.engines.chain_loop import ChainLoop
from diffpolicy.errors import DiffpolicyError
from diffpolicy.eval.measure.description import describe
from diffpolicy.late.guided import SPREAD
from diffpolicy.late.plan import Plan
from diffpolicy.policy import Policy
from diffpolicy.sampling.guidance import guided, prior_weight, rtc_weight, soft_mask
from diffpolicy.sampling.noise import alpha_bar_table
from diffpolicy.sampling.steps import Row, read
from diffpolicy.specification import Horizons, Specification, Task, flat_observation

HORIZONS = Horizons(2, 8, 2)
LONG = [1, 1, 1, 1, 0.7410, 0.5326, 0.3677, 0.2402, 0.1448, 0.0767, 0.0322, 0.0076, 0, 0, 0, 0]


def checkpoint_of(prediction: str = "x0", **model) -> Checkpoint:
    """A small network with random weights."""
    torch.manual_seed(0)
    task = Task("none", 0.02, True, flat_observation(3), action_dim=2)
    config = ModelConfig(hidden=32, blocks=1, prediction=prediction, **model)
    spec = Specification(config, HORIZONS, task, 1.5, {SPREAD: [0.3, 0.4]})
    fresh = build_network(spec).state_dict()
    weights = {k: w + 0.05 * torch.randn(w.shape) for k, w in fresh.items()}
    return Checkpoint(spec, weights, {"observation": identity(3)}, identity(2))


def policy_of(late: str, checkpoint: Checkpoint | None = None, **options) -> Policy:
    about = {"engine": options.pop("engine", "eager"), "device": options.pop("device", "cpu")}
    return Policy(checkpoint or checkpoint_of(), Sampling(4, late=late, **options), **about)


def inputs(policy: Policy) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(0).standard_normal
    return draw((2, 2, 3), np.float32), draw(policy.noise_shape(2), np.float32)


def plan(count: int = 5, delay: int = 2) -> Plan:
    draw = np.random.default_rng(1).uniform
    return Plan(draw(-0.3, 0.3, (1, 2)), draw(-0.3, 0.3, (count, 2)), delay)


@pytest.mark.parametrize(
    ("delay", "planned", "usable", "expected"),
    [
        (2, 6, 8, [1, 1, 0.5706, 0.2871, 0.1145, 0.0258, 0, 0]),
        (4, 12, 16, LONG),
        (3, 2, 4, [1, 1, 0, 0]),
        (2, 0, 3, [0, 0, 0]),
    ],
)
def test_the_mask_is_that_of_rtc(delay, planned, usable, expected):
    found = soft_mask(torch.tensor([delay]), torch.tensor([planned]), usable)
    assert found[0].tolist() == pytest.approx(expected, abs=5e-5)


def test_weights_of_rtc_at_beta_5():
    table = alpha_bar_table("squaredcos", 100)
    found = [rtc_weight(table[t] ** 0.5, (1 - table[t]) ** 0.5) for t in (99, 80, 50, 20)]
    assert found == pytest.approx([5, 3.43, 1.45, 1.06], abs=5e-3)
    assert rtc_weight(0, 1) == 5


@pytest.mark.parametrize(("a", "b"), [(0.01, 0.99995), (0.6, 0.8), (0.9, 0.436), (0.3, 0.7)])
def test_the_weight_of_the_prior_brings_a_gaussian_to_the_plan(a, b):
    spread, target = 0.3, torch.full((1, 3, 1), 0.7, dtype=torch.float64)
    slope = a * spread**2 / (a**2 * spread**2 + b**2)
    row, weight = Row(0, 0, 1), torch.full((1, 1), prior_weight(a, b, spread), dtype=torch.float64)
    mask = torch.ones(1, 3, dtype=torch.float64)
    network = guided(lambda x, k: slope * x, [row], weight, mask, target)
    assert network(torch.randn(1, 3, 1).double(), 0) == pytest.approx(target, abs=1e-9)


@pytest.mark.parametrize("prediction", ["x0", "v", "epsilon"])
def test_the_gradient_is_that_of_finite_differences(prediction):
    policy = policy_of("drop", checkpoint_of(prediction), start=90)
    job = replace(policy.job(), precision="float64")
    loop = ChainLoop(job.denoiser, job.chain, torch.float64)
    network = loop.given(torch.randn(1, job.denoiser.condition).double())
    x, target = torch.randn(2, 1, 8, 2, dtype=torch.float64)
    mask, weights = torch.rand(1, 8).double(), torch.full((4, 2), 0.7, dtype=torch.float64)
    row = policy.chain.rows[1]._replace(clip=float("inf"))

    def x0(x: torch.Tensor) -> torch.Tensor:
        return read(x, network(x, 1), row)

    pull = mask[..., None] * (target - x0(x))
    step, small = torch.zeros_like(x), 1e-6
    for i in range(x.numel()):
        moved = torch.zeros_like(x)
        moved.view(-1)[i] = small
        slope = (x0(x + moved) - x0(x - moved)) / (2 * small)
        step.view(-1)[i] = (slope * pull).sum()
    assert step.abs().max() > 1e-3, "the Jacobian is not zero"
    y = guided(network, policy.chain.rows, weights, mask, target)(x, 1)
    assert read(x, y, row) == pytest.approx(x0(x) + 0.7 * step, abs=1e-7)


@pytest.mark.parametrize("late", ["guided", "guided:prior"])
def test_chunks_are_drawn_to_the_plan_and_free_without_one(late):
    policy, plain = policy_of(late), policy_of("drop")
    observation, noise = inputs(policy)
    free = plain(observation, noise)
    assert np.array_equal(policy(observation, noise), free)
    found = policy(observation, noise, [plan(), None])
    assert np.array_equal(found[1], free[1])
    far, near = (np.abs(x[0, :2] - plan().planned[:2]).mean() for x in (free, found))
    assert near < far


@pytest.mark.gpu
@pytest.mark.parametrize("late", ["guided", "guided:prior"])
def test_cuda_guides_as_the_cpu(late):
    policy = policy_of(late)
    observation, noise = inputs(policy)
    expected = policy(observation, noise, [plan(), None])
    found = policy_of(late, device="cuda")(observation, noise, [plan(), None])
    assert found == pytest.approx(expected, abs=1e-3)


def test_a_chunk_costs_as_many_gradients_as_evaluations():
    policy = policy_of("guided")
    assert (policy.network_evals, policy.gradient_evals) == (4, 4)
    assert describe(policy).cost == 8, "a declared robot pays both"
    assert (policy_of("drop").network_evals, policy_of("drop").gradient_evals) == (4, 0)


def test_auto_takes_eager_and_other_engines_are_refused(caplog):
    with caplog.at_level("INFO", "diffpolicy"):
        assert policy_of("guided", engine="auto").engine().name == "eager"
    assert "engine eager, the only one with gradients" in caplog.text
    for name in ("native", "onnx", "compiled"):
        with pytest.raises(DiffpolicyError, match=f"only one with gradients; got {name}"):
            policy_of("guided", engine=name)
        with pytest.raises(DiffpolicyError, match="only one with gradients"):
            policy_of("guided").with_engine(name)


def test_error_lines_name_what_is_missing():
    with pytest.raises(DiffpolicyError, match=r"amplifies errors .* t = 99.*--start 90"):
        policy_of("guided", checkpoint_of("epsilon"))
    assert policy_of("guided", checkpoint_of("epsilon"), start=90).gradient_evals == 4
    without = checkpoint_of()
    without = replace(without, specification=replace(without.specification, training={}))
    with pytest.raises(DiffpolicyError, match=r"does not hold action_std.*--late guided"):
        policy_of("guided:prior", without)
    with pytest.raises(DiffpolicyError, match="expected guided, guided:prior"):
        policy_of("guided:5")
    with pytest.raises(DiffpolicyError, match="regression policy does not start from noise"):
        Policy(checkpoint_of(objective="regression"), Sampling(late="guided"))


@pytest.mark.parametrize(
    ("spread", "said"),
    [
        ("wide", "action_std in the header of the run must be a list; got 'wide'"),
        ([0.3], "has 1 numbers; expected 2"),
        ([0.3, None], r"\[1\] must be a number; got None"),
        ([0.3, -1.0], "must be at least 0; got -1.0"),
    ],
)
def test_a_damaged_spread_is_refused(spread, said):
    damaged = checkpoint_of()
    specification = replace(damaged.specification, training={SPREAD: spread})
    with pytest.raises(DiffpolicyError, match=said):
        policy_of("guided:prior", replace(damaged, specification=specification))


def test_a_run_holds_the_spread_of_its_training_actions(tiny_run):
    assert Policy.load(tiny_run, ddim_steps=2, late="guided:prior:oracle", start=90).late.oracle


def test_latency_calls_a_strategy_with_a_plan(monkeypatch):
    from diffpolicy.eval.measure.timing import random_observation, timed_policy

    policy, seen = policy_of("guided"), []
    sampled = type(policy.late).sampled

    def watched(late, of, batch):
        inner = sampled(late, of, batch)
        return lambda *inputs: (seen.append(inputs[2]), inner(*inputs))[1]

    monkeypatch.setattr(type(policy.late), "sampled", watched)
    timed = timed_policy(policy, random_observation(policy, np.random.default_rng(0)))
    assert timed.call(timed.observation).shape == (1, HORIZONS.usable, 2)
    assert seen[0].planned.tolist() == [HORIZONS.usable - HORIZONS.action]


def test_latency_takes_the_option_and_refuses_what_does_not_fit(tiny_run, refused):
    assert "is not a strategy" in refused("latency", "--run", tiny_run, "--late", "nothing")
    assert "without committed actions" in refused("latency", "--run", tiny_run, "--late", "prefix")
    others = ("--policy", "m:f", "--env", "m:E-v0", "--late", "guided")
    assert "--late is for the network" in refused("latency", *others)
