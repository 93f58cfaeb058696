"""Policy: equals the plain loop, repeats with its noise; a row ignores its neighbours."""

import numpy as np
import pytest
import torch

from diffpolicy.checkpoint import load_policy
from diffpolicy.config import Sampling
from diffpolicy.denoisers import build_network
from diffpolicy.errors import DiffpolicyError
from diffpolicy.policy import Policy
from diffpolicy.sampling.chain import audit, audit_line
from diffpolicy.sampling.noise import alpha_bar_table
from diffpolicy.sampling.steps import sample
from diffpolicy.specification import FLAT


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def inputs(policy: Policy, rng, batch: int = 3):
    shape = (batch, policy.horizons.observation, policy.task.observation_dim)
    noise = rng.standard_normal(policy.noise_shape(batch), np.float32)
    return rng.uniform(-0.3, 0.3, shape).astype(np.float32), noise


@pytest.mark.parametrize(("steps", "eta"), [(1, 0.0), (4, 0.0), (5, 0.5), (100, 1.0)])
def test_equals_the_plain_loop(tiny_run, rng, steps, eta):
    """No hoisting, no engine: the network called with t at every step."""
    checkpoint = load_policy(tiny_run)
    policy = Policy(checkpoint, Sampling(steps, eta=eta))
    spec = checkpoint.specification
    network = build_network(spec)
    network.load_state_dict(checkpoint.weights)
    history, noise = inputs(policy, rng)
    observation = torch.from_numpy(checkpoint.observation_normalizers[FLAT].normalize(history))

    def denoise(x, k):
        t = torch.full((len(x),), policy.chain.rows[k].t)
        return network(x, t, observation)

    with torch.no_grad():
        x = sample(denoise, torch.from_numpy(noise), policy.chain.rows)
    usable = x[:, spec.horizons.observation - 1 :].numpy()
    expected = checkpoint.action_normalizer.unnormalize(usable)
    np.testing.assert_allclose(policy(history, noise), expected, atol=1e-4)


def test_gives_the_usable_actions_within_the_data(tiny_run, rng):
    policy = Policy.load(tiny_run, ddim_steps=2)
    actions = policy(*inputs(policy, rng))
    assert actions.shape == (3, policy.horizons.usable, policy.task.action_dim)
    assert actions.dtype == np.float32
    assert np.abs(actions).max() <= 1 + 1e-5


def test_same_noise_same_actions_and_seeds_repeat(tiny_run, rng):
    policy = Policy.load(tiny_run, ddim_steps=3)
    history, noise = inputs(policy, rng)
    np.testing.assert_array_equal(policy(history, noise), policy(history, noise))
    a, b = (Policy.load(tiny_run, ddim_steps=3, seed=7)(history) for _ in range(2))
    np.testing.assert_array_equal(a, b)


def test_row_depends_on_neither_neighbours_nor_place(tiny_run, rng):
    policy = Policy.load(tiny_run, ddim_steps=4)
    history, noise = inputs(policy, rng, 16)
    expected = policy(history, noise)
    order = rng.permutation(16)
    np.testing.assert_array_equal(policy(history[order], noise[:, order]), expected[order])
    history[1:], noise[:, 1:] = 0, 0
    np.testing.assert_array_equal(policy(history, noise)[0], expected[0])


@pytest.mark.parametrize("shape", [(2, 4), (1, 2, 5), (1, 3, 4)])
def test_wrong_history_says_what_was_expected(tiny_run, shape):
    with pytest.raises(DiffpolicyError, match=r"\[B, T_o, …\] = \[B, 2, 4\]; got"):
        Policy.load(tiny_run)(np.zeros(shape))


def test_wrong_noise_says_what_was_expected(tiny_run):
    with pytest.raises(DiffpolicyError, match="noise must be"):
        Policy.load(tiny_run)(np.zeros((1, 2, 4)), np.zeros((1, 2, 24, 1), np.float32))


@pytest.mark.parametrize("steps", [0, -1, 101])
def test_budget_must_fit_the_chain(tiny_run, steps):
    with pytest.raises(DiffpolicyError, match="between 1 and the 100 timesteps"):
        Policy.load(tiny_run, ddim_steps=steps)


# Sampling


def test_states_lead_from_the_noise_to_the_actions(tiny_run, rng):
    policy = Policy.load(tiny_run, ddim_steps=4)
    history, noise = inputs(policy, rng)
    xs, x0s = policy.states(history, noise)
    shape = (3, policy.horizons.usable, policy.task.action_dim)
    assert (xs.shape, x0s.shape) == ((5, *shape), (4, *shape))
    np.testing.assert_array_equal(xs[-1], policy(history, noise))
    np.testing.assert_array_equal(xs[-1], x0s[-1])
    unnormalize = load_policy(tiny_run).action_normalizer.unnormalize
    np.testing.assert_array_equal(
        xs[0], unnormalize(noise[0, :, policy.horizons.observation - 1 :])
    )


@pytest.mark.parametrize(
    ("sampling", "timesteps"),
    [
        ({"ddim_steps": 2, "grid": "leading"}, [50, 0]),
        ({"ddim_steps": 2, "start": 85, "end": 20, "grid": "linspace"}, [85, 20]),
        ({"grid": "85,20"}, [85, 20]),
        ({"ddim_steps": 3, "grid": "quadratic"}, [99, 44, 11]),
    ],
)
def test_the_grid_is_the_one_asked_for_and_audited(tiny_run, rng, sampling, timesteps):
    policy = Policy.load(tiny_run, **sampling)
    found = audit(policy.chain)
    assert found["timesteps"] == timesteps
    assert found["network_evals"] == policy.network_evals == len(timesteps) == policy.ddim_steps
    assert found["duplicates"] == 0
    start = alpha_bar_table("squaredcos", 100)[timesteps[0]] ** 0.5
    assert found["sqrt_alpha_bar_start"] == pytest.approx(start)
    assert f"t = {' '.join(map(str, timesteps))}; √ᾱ at the start {start:.4f}; duplicates 0" in (
        audit_line(policy.chain)
    )
    assert np.isfinite(policy(*inputs(policy, rng))).all()


def test_noise_scale_is_what_injected_noise_is_multiplied_by(tiny_run, rng):
    """At 0 the chain needs no noise but the first; its direction is still the ancestral one."""
    silent = Policy.load(tiny_run, ddim_steps=5, eta=1.0, noise_scale=0.0)
    assert silent.noise_shape(3)[0] == 1
    loud = Policy.load(tiny_run, ddim_steps=5, eta=1.0)
    history, noise = inputs(loud, rng)
    noise[1:] = 0
    np.testing.assert_array_equal(silent(history, noise[:1]), loud(history, noise))
    still = Policy.load(tiny_run, ddim_steps=5)
    assert not np.array_equal(still(history, noise[:1]), loud(history, noise))


def test_clip_can_be_another_or_none(tiny_run):
    trained = load_policy(tiny_run).specification.clip_range
    for sampling, clip in (({}, trained), ({"clip": 0.5}, 0.5), ({"clip": 0.0}, float("inf"))):
        assert {row.clip for row in Policy.load(tiny_run, **sampling).chain.rows} == {clip}


def test_a_batch_beyond_the_memory_is_refused_with_its_size(tiny_run):
    policy = Policy.load(tiny_run, ddim_steps=100, eta=1.0)
    with pytest.raises(DiffpolicyError, match=r"a batch of \d+ for 100 steps .* GiB of memory"):
        policy.engine(10**12)


def test_an_unknown_sampler_is_refused_with_the_names_of_all(tiny_run):
    with pytest.raises(
        DiffpolicyError, match="'euler' is not a sampler; expected one of: ddim, dpm"
    ):
        Policy.load(tiny_run, sampler="euler")
