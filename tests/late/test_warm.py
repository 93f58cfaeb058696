"""Warm start: the plan with noise is denoised; without a plan the chain is a cold one."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from diffpolicy.checkpoint import Checkpoint
from diffpolicy.config import ModelConfig, Sampling
from diffpolicy.control.episode import RolloutOptions
from diffpolicy.control.latency import LatencyProfile
from diffpolicy.control.rollout import run_episodes
from diffpolicy.data.normalizer import Normalizer, identity
from diffpolicy.denoisers import build
from diffpolicy.environment import make
from diffpolicy.errors import DiffpolicyError
from diffpolicy.late import parse_late
from diffpolicy.late.plan import Plan
from diffpolicy.late.warm import Warm
from diffpolicy.policy import Policy
from diffpolicy.sampling.steps import sample
from diffpolicy.specification import FLAT, Horizons, Specification, Task, flat_observation

HORIZONS, BATCH = Horizons(2, 8, 2), 4
MODEL = ModelConfig(hidden=16, blocks=1, condition=8, prediction="x0")
TASK = Task("none", 0.02, False, flat_observation(3), 2)
SPECIFICATION = Specification(MODEL, HORIZONS, TASK, 1.0, {})
OF_ACTION = Normalizer(np.array([2.0, 0.5]), np.array([0.1, -0.2]))
RNG = np.random.default_rng(0)
OBSERVATION = RNG.standard_normal((BATCH, 2, 3), np.float32)
NOISE = RNG.standard_normal((1, BATCH, 8, 2), np.float32)
PLAN = Plan(np.full((1, 2), 0.2), RNG.uniform(-0.3, 0.3, (4, 2)), 1)


def policy(late="drop", steps=8, model=MODEL, engine="eager", device="cpu", **sampling):
    """A policy with random weights, the same ones for all."""
    torch.manual_seed(3)
    weights = build(model, HORIZONS, 3, 2).state_dict()
    checkpoint = Checkpoint(
        replace(SPECIFICATION, model=model), weights, {FLAT: identity(3)}, OF_ACTION
    )
    return Policy(checkpoint, Sampling(steps, late=late, **sampling), device, engine=engine)


@pytest.mark.gpu
@pytest.mark.parametrize("engine", ["eager", "cuda-graph"])
def test_cuda_denoises_the_plan_as_the_cpu(engine):
    plans = [PLAN, None] * (BATCH // 2)
    expected = policy("warm:50:2")(OBSERVATION, NOISE, plans)
    found = policy("warm:50:2", engine=engine, device="cuda")(OBSERVATION, NOISE, plans)
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_a_chunk_that_control_waits_for_is_the_policys_own():
    expected = policy()(OBSERVATION, NOISE)
    found = policy("warm:50:2")
    np.testing.assert_array_equal(found(OBSERVATION, NOISE), expected)
    np.testing.assert_array_equal(found(OBSERVATION, NOISE, [None] * BATCH), expected)


def test_without_a_plan_the_chain_is_the_cold_one_of_as_many_steps():
    starved = Plan(np.full((1, 2), 0.2), np.empty((0, 0)), 1)
    found = policy("warm:50:2")(OBSERVATION, NOISE, [starved] * BATCH)
    np.testing.assert_array_equal(found, policy(steps=2)(OBSERVATION, NOISE))


def test_each_row_is_that_of_its_own_plan_whatever_the_others_have():
    warm, starved = policy("warm:50:2"), Plan(np.empty((0, 2)), np.empty((0, 0)), 1)
    mixed = warm(OBSERVATION, NOISE, [None, PLAN, starved, PLAN])
    alone = [warm(OBSERVATION, NOISE, [plan] * BATCH) for plan in (None, PLAN, starved, PLAN)]
    for row, found in enumerate(alone):
        np.testing.assert_array_equal(mixed[row], found[row])


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_from_pure_noise_on_it_is_the_cold_chain_up_to_its_signal(steps):
    """t' = T - 1, K' = K: the plan counts by √ᾱ_{T-1} = 0.0005."""
    cold = policy(steps=steps)(OBSERVATION, NOISE)
    warm = policy(f"warm:99:{steps}")(OBSERVATION, NOISE, [PLAN] * BATCH)
    assert 0 < np.abs(warm - cold).max() < 2e-3


@pytest.mark.parametrize(
    ("start", "steps", "of_plan", "of_noise"),
    [
        *((80, 2, 0.0041, 0.0134), (49, 2, 0.0223, 0.0226), (24, 2, 0.0991, 0.0421)),
        *((9, 2, 0.3607, 0.0611), (9, 4, 0.4310, 0.0730)),
    ],
)
def test_how_much_of_the_plan_survives(start, steps, of_plan, of_noise):
    """Data N(0.5, 0.1²): weight of the plan in the result, and the spread that noise gives."""
    late = Warm(timestep=start, steps=steps)
    rows = late.chain(SPECIFICATION, 0, start).rows  # without a clip
    a, b = late.begin(SPECIFICATION, torch.eye(2)[0], torch.eye(2)[1]).tolist()
    levels = {row.t: late_levels(row.t) for row in rows}

    def oracle(x, k):
        signal, noise = levels[rows[k].t]
        return 0.5 + 0.01 * signal / (0.01 * signal**2 + noise**2) * (x - signal * 0.5)

    def result(planned, z):
        return sample(oracle, torch.tensor([[[[a * planned + b * z]]]]).double(), rows).item()

    base = result(0.0, 0.0)
    assert result(1.0, 0.0) - base == pytest.approx(of_plan, abs=6e-5)
    assert abs(result(0.0, 1.0) - base) == pytest.approx(of_noise, abs=6e-5)


def late_levels(t):
    """(√ᾱ_t, √(1-ᾱ_t)) of the squaredcos schedule."""
    return Warm(timestep=t, steps=1).begin(SPECIFICATION, torch.eye(2)[0], torch.eye(2)[1]).tolist()


@pytest.mark.parametrize("engine", ["native", "onnx"])
def test_engines_agree(engine):
    expected = policy("warm:50:2")(OBSERVATION[:1], NOISE[:, :1], [PLAN])
    found = policy("warm:50:2", engine=engine)(OBSERVATION[:1], NOISE[:, :1], [PLAN])
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_it_costs_its_own_steps_and_is_part_of_the_name():
    warm = policy("warm:50:2")
    assert (warm.network_evals, warm.gradient_evals, warm.ddim_steps) == (2, 0, 8)
    assert warm.chain.name == "8 steps, warm:50:2"


def test_noise_that_the_policys_own_sampler_injects_is_not_used():
    warm = policy("warm:50:2", eta=1.0)
    noise = RNG.standard_normal(warm.noise_shape(BATCH), np.float32)
    found = warm(OBSERVATION, noise, [PLAN] * BATCH)
    expected = policy("warm:50:2")(OBSERVATION, noise[:1], [PLAN] * BATCH)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    "text", ["warm", "warm:50", "warm:a:2", "warm:-1:2", "warm:5:2:1", "warm:9999999:2"]
)
def test_other_texts_are_refused(text):
    with pytest.raises(DiffpolicyError, match=f"{text}' is not a warm start; expected warm:T:K"):
        parse_late(text)


@pytest.mark.parametrize(
    ("late", "model", "told"),
    [
        ("warm:100:2", {}, "--late warm:100:2: a grid must have 0 <= end <= start <= 99"),
        ("warm:3:5", {}, "--late warm:3:5: ddim_steps must lie between 1 and the 4 timesteps"),
        ("warm:3:0", {}, "--late warm:3:0: ddim_steps must lie between 1 and"),
        ("warm:3:1", {"objective": "regression"}, "a regression policy does not start from noise"),
    ],
)
def test_starts_that_do_not_fit_the_run_are_refused(late, model, told):
    steps = 0 if model else 8
    with pytest.raises(DiffpolicyError, match=told):
        policy(late, steps, replace(MODEL, **model))


class Spy(Policy):
    """A policy that keeps the first row of its chunks."""

    chunks: list[np.ndarray]

    def __call__(self, observation, noise=None, plans=None):
        found = super().__call__(observation, noise, plans)
        self.chunks.append(found[0])
        return found


@pytest.fixture(scope="module")
def spy(tiny_run):
    found = Spy.load(tiny_run, ddim_steps=4, late="warm:50:2")
    found.chunks = []
    return found


def run(source, samples_ms, seeds=range(3), envs=3):
    options = RolloutOptions(0.02, envs=envs, batch=16)
    profile = LatencyProfile(np.array(samples_ms), "test")
    return run_episodes(
        source,
        lambda: make("diffpolicy.envs:Balance-v0", {}, max_steps=40),
        seeds,
        profile,
        options,
    )


def test_an_episode_depends_on_its_seed_alone(spy):
    samples = np.random.default_rng(3).uniform(1, 90, 200)
    assert run(spy, samples, envs=1) == run(spy, samples)


def test_no_chunk_depends_on_a_delay_that_has_not_passed(spy):
    """Delays of 1, 2, then of 1 or of 4 ticks: four chunks are the same, the fifth is not."""
    found = []
    for ticks in (1, 4):
        spy.chunks = []
        run(spy, [20.0, 40.0, *[20.0 * ticks] * 9, 200.0], [3], 1)
        found.append(spy.chunks)
    first, second = found
    for mine, theirs in zip(first[:4], second[:4], strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert not np.array_equal(first[4], second[4])


def test_a_distilled_policy_starts_where_it_was_trained():
    student = replace(
        SPECIFICATION,
        model=replace(MODEL, objective="distilled"),
        grid="optimised",
        schedules=((99,), (99, 20)),
    )
    parse_late("warm:20:1").check(student)
    for text in ("warm:50:1", "warm:20:2"):
        with pytest.raises(DiffpolicyError, match="timesteps 20 99 alone; expected warm:20:1"):
            parse_late(text).check(student)
