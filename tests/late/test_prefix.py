"""Committed actions: training's draw and loss, the strategy, and every engine."""

from dataclasses import replace

import numpy as np
import onnxruntime
import pytest
import torch

from diffpolicy.checkpoint import Checkpoint, load_policy
from diffpolicy.config import ModelConfig, Sampling
from diffpolicy.data.normalizer import Normalizer
from diffpolicy.denoisers import build_network
from diffpolicy.denoisers.committed import COMMITTED, committed, draw_counts, given_rows
from diffpolicy.errors import DiffpolicyError
from diffpolicy.late.plan import Plan
from diffpolicy.policies.exporting import contract, whole_policy
from diffpolicy.policy import Policy
from diffpolicy.specification import Horizons, Specification, Task, flat_observation
from diffpolicy.training.config import TrainConfig
from diffpolicy.training.learner import Learner
from diffpolicy.training.train import train

MOST, HORIZONS = 4, Horizons(2, 8, 2)
ACTIONS = Normalizer(np.array([2, 0.5], np.float32), np.array([0.25, -1], np.float32))


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    """A network with committed actions and fresh weights."""
    torch.manual_seed(0)
    model = ModelConfig(hidden=32, blocks=1, prefix_max=MOST, prediction="x0")
    task = Task("none", 0.02, True, flat_observation(3), action_dim=2)
    spec = Specification(model, HORIZONS, task, 1.5, {})
    normalizers = {"observation": Normalizer(np.ones(3, np.float32), np.zeros(3, np.float32))}
    weights = {
        k: w + 0.1 * torch.randn(w.shape) for k, w in build_network(spec).state_dict().items()
    }
    return Checkpoint(spec, weights, normalizers, ACTIONS)


def policy_of(
    checkpoint: Checkpoint, late: str = "prefix", engine: str = "eager", device: str = "cpu"
) -> Policy:
    return Policy(checkpoint, Sampling(3, late=late), device, engine=engine)


def inputs(policy: Policy, batch: int = 3) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    draw = rng.standard_normal
    return draw((batch, 2, 3), np.float32), draw(policy.noise_shape(batch), np.float32)


def plan(count: int, delay: int) -> Plan:
    draw = np.random.default_rng(1).uniform
    return Plan(draw(-0.3, 0.3, (1, 2)), draw(-0.3, 0.3, (count, 2)), delay)


def test_committed_rows_begin_at_the_newest_observation_and_carry_their_flag():
    chunk = torch.arange(16.0).reshape(1, 8, 2)
    found = committed(chunk.repeat(2, 1, 1), torch.tensor([2, 0]), ahead=1, most=3)
    assert found[0].tolist() == [[2, 3, 1], [4, 5, 1], [0, 0, 0]]
    assert not found[1].any()
    assert given_rows(torch.tensor([2, 0]), 1, 5).int().tolist() == [[0, 1, 1, 0, 0], [0] * 5]


def test_half_of_the_draws_of_training_give_nothing_and_the_rest_are_uniform():
    counts = draw_counts(40_000, 4, torch.Generator().manual_seed(0))
    shares = torch.bincount(counts, minlength=5) / len(counts)
    assert shares.tolist() == pytest.approx([0.5, *4 * [0.125]], abs=0.01)


def test_given_actions_come_back_and_m_is_the_least_of_delay_plan_and_limit(checkpoint):
    policy = policy_of(checkpoint)
    observation, noise = inputs(policy)
    plans = [plan(7, 2), plan(1, 3), plan(7, 6)]
    chunks = policy(observation, noise, plans)
    free = policy(observation, noise)
    for chunk, other, given, m in zip(chunks, free, plans, (2, 1, MOST), strict=True):
        assert chunk[:m] == pytest.approx(given.planned[:m], abs=1e-6)
        assert np.abs(chunk[m:] - other[m:]).min(1).max() > 1e-4, "the rest sees them"


def test_nothing_given_is_the_policy_without_the_strategy_to_the_bit(checkpoint):
    policy, plain = policy_of(checkpoint), policy_of(checkpoint, "drop")
    observation, noise = inputs(policy)
    expected = plain(observation, noise)
    for plans in (None, [None] * 3, [plan(7, 0)] * 3, [plan(0, 3)] * 3):
        assert np.array_equal(policy(observation, noise, plans), expected)


def test_the_rest_does_not_read_the_plan_beyond_the_expected_delay(checkpoint):
    policy = policy_of(checkpoint)
    observation, noise = inputs(policy, 1)
    short, long = plan(7, 2), plan(7, 2)
    long.planned[2:] += 1
    found = [policy(observation, noise, [p]) for p in (short, long)]
    assert np.array_equal(*found)


@pytest.mark.parametrize("engine", ["compiled", "native", "onnx"])
def test_every_engine_gives_the_actions_of_eager(checkpoint, engine):
    policy = policy_of(checkpoint)
    observation, noise = inputs(policy)
    plans = [plan(7, 2), None, plan(7, 4)]
    expected = policy(observation, noise, plans)
    found = policy_of(checkpoint, engine=engine)(observation, noise, plans)
    assert found == pytest.approx(expected, abs=1e-4)


@pytest.mark.gpu
def test_a_graph_gives_the_actions_of_eager_on_the_cpu(checkpoint):
    policy = policy_of(checkpoint)
    observation, noise = inputs(policy)
    plans = [plan(7, 2), None, plan(7, 4)]
    expected = policy(observation, noise, plans)
    found = policy_of(checkpoint, engine="cuda-graph", device="cuda")(observation, noise, plans)
    assert found == pytest.approx(expected, abs=1e-4)


def test_an_exported_policy_takes_committed_actions_in_the_units_of_the_robot(checkpoint):
    policy = policy_of(checkpoint)
    observation, noise = inputs(policy, 1)
    given = plan(7, 3)
    inputs_ = {"observation": observation, "noise": noise}
    inputs_[COMMITTED] = np.zeros((1, MOST, 3), np.float32)
    inputs_[COMMITTED][0, :3] = np.c_[given.planned[:3], np.ones(3)]
    session = onnxruntime.InferenceSession(whole_policy(policy).SerializeToString())
    [actions] = session.run(None, inputs_)
    assert actions[:, 3:] == pytest.approx(policy(observation, noise, [given])[:, 3:], abs=1e-4)
    assert contract(policy)["observations"][COMMITTED]["shape"] == [1, MOST, 3]


def test_training_sees_the_prefix_and_counts_no_loss_on_it(balance_store, tmp_path):
    out = tmp_path / "run"
    train(
        TrainConfig(
            data=balance_store, out=out, steps=20, hidden=32, blocks=1, prefix_max=3, device="cpu"
        )
    )
    assert Policy.load(out, late="prefix:oracle").late.oracle
    assert load_policy(out).specification.model.prefix_max == 3


def test_the_loss_leaves_committed_rows_out(checkpoint, monkeypatch):
    from diffpolicy.data.windows import make_windows
    from diffpolicy.training import learner as module

    rng, wrong = np.random.default_rng(0), 1e6
    actions = rng.uniform(-1, 1, (40, 2)).astype(np.float32)
    observations = {"observation": rng.standard_normal((40, 3), np.float32)}
    windows = make_windows(observations, actions, np.array([40]), HORIZONS)
    learner = Learner(checkpoint.specification, torch.device("cpu"))
    monkeypatch.setattr(module, "draw_counts", lambda batch, *_: torch.full((batch,), 3))

    def network(x, t, seen):
        assert seen[COMMITTED].shape == (len(x), MOST, 3)
        assert seen[COMMITTED][:, :, 2].sum(1).eq(3).all()
        found = torch.zeros_like(x)
        found[:, 1:4] = wrong  # the rows of the committed actions
        return found

    assert learner.loss(network, windows, 16, torch.Generator().manual_seed(0)) < 2


def test_error_lines_name_the_option(checkpoint, tiny_run):
    with pytest.raises(DiffpolicyError, match=r"trained without committed actions.*--prefix-max"):
        Policy.load(tiny_run, late="prefix")
    with pytest.raises(DiffpolicyError, match="expected prefix or prefix:oracle"):
        policy_of(checkpoint, "prefix:2")
    spec = checkpoint.specification
    with pytest.raises(DiffpolicyError, match=r"--prefix-max 7 leaves no action.*less than.* 7"):
        build_network(replace(spec, model=replace(spec.model, prefix_max=7)))
    named = replace(spec.task, observations={COMMITTED: spec.task.observations["observation"]})
    with pytest.raises(DiffpolicyError, match="cannot be named 'committed'"):
        build_network(replace(spec, task=named))
