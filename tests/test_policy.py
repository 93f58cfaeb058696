"""Policy: equals the plain loop, repeats with its noise; a row ignores its neighbours."""

import numpy as np
import pytest
import torch

from diffpolicy.checkpoint import load_policy
from diffpolicy.denoisers import build
from diffpolicy.errors import DiffpolicyError
from diffpolicy.policy import Policy
from diffpolicy.sampler import ddim_sample


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
    policy = Policy(checkpoint, steps, eta)
    spec = checkpoint.specification
    network = build(spec.model, spec.horizons, spec.task.observation_dim, spec.task.action_dim)
    network.load_state_dict(checkpoint.weights)
    history, noise = inputs(policy, rng)
    observation = torch.from_numpy(checkpoint.observation_normalizer.normalize(history))

    def denoise(x, k):
        t = torch.full((len(x),), policy.steps[k].t)
        return network(x, t, observation)

    with torch.no_grad():
        x = ddim_sample(
            denoise, torch.from_numpy(noise), policy.steps, spec.model.prediction, spec.clip_range
        )
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
    with pytest.raises(DiffpolicyError, match=r"\[B, T_o, D_o\] = \[B, 2, 4\]; got"):
        Policy.load(tiny_run)(np.zeros(shape))


def test_wrong_noise_says_what_was_expected(tiny_run):
    with pytest.raises(DiffpolicyError, match="noise must be"):
        Policy.load(tiny_run)(np.zeros((1, 2, 4)), np.zeros((1, 2, 24, 1), np.float32))


@pytest.mark.parametrize("steps", [0, -1, 101])
def test_budget_must_fit_the_chain(tiny_run, steps):
    with pytest.raises(DiffpolicyError, match="between 1 and the 100 timesteps"):
        Policy.load(tiny_run, ddim_steps=steps)
