"""Correction heads in control: they see the tick before, and a head of zeros changes nothing."""

import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from diffpolicy.checkpoint import load_policy, save_policy, save_tensors
from diffpolicy.control import Controller
from diffpolicy.control.controller import ActionsNotFinite
from diffpolicy.control.episode import RolloutOptions
from diffpolicy.control.latency import LatencyProfile
from diffpolicy.control.rollout import run_episodes
from diffpolicy.control.workers import Workers
from diffpolicy.environment import make
from diffpolicy.errors import DiffpolicyError
from diffpolicy.eval.config import LatencyConfig
from diffpolicy.eval.latency import latency
from diffpolicy.eval.measure.result_files import read_result
from diffpolicy.late.correction import FILE, load_corrector, new_weights, save_corrector
from diffpolicy.policy import Policy
from diffpolicy.specification import FLAT, Horizons

OPTIONS = RolloutOptions(0.02, envs=4, batch=16)
JITTER = LatencyProfile(np.random.default_rng(3).uniform(1, 90, 200), "test")
SEEDS = range(4)


def make_balance():
    return make("diffpolicy.envs:Balance-v0", {}, max_steps=40)


def with_head(run, folder, last):
    """A copy of the run with a head of random weights, `last` in its last layer's bias."""
    out = shutil.copytree(run, folder / "run")
    policy = load_policy(out)
    weights = new_weights(policy.specification, torch.Generator().manual_seed(0))
    weights["2.bias"] += last
    save_corrector(out / FILE, weights, policy, {})
    return out


@pytest.fixture
def zeros(tiny_run, tmp_path):
    return with_head(tiny_run, tmp_path, 0.0)


def episodes(run, late, profile=JITTER, options=OPTIONS, seeds=SEEDS):
    return run_episodes(
        Policy.load(run, ddim_steps=2, late=late), make_balance, seeds, profile, options
    )


def test_a_head_of_zeros_changes_nothing(zeros):
    assert episodes(zeros, "correct") == episodes(zeros, "drop")


def test_a_correction_is_in_normalised_units_and_depends_on_its_row_alone(tiny_run, tmp_path):
    policy = Policy.load(with_head(tiny_run, tmp_path, 0.5), ddim_steps=2, late="correct")
    rng = np.random.default_rng(0)
    observation = {FLAT: rng.standard_normal((8, 2, 4), np.float32)}
    actions, index = rng.standard_normal((8, 1), np.float32), np.arange(8)
    found = policy.correct(observation, actions, index)
    expected = actions + 0.5 / policy.action_normalizer.scale
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert found.dtype == actions.dtype
    assert policy.network_evals == 2 and policy.chain.name == "2 steps, correct"


@pytest.mark.parametrize("profile", [LatencyProfile(np.zeros(1), "none"), JITTER])
def test_an_episode_depends_on_its_seed_alone(tiny_run, tmp_path, profile):
    run = with_head(tiny_run, tmp_path, 0.2)
    together = episodes(run, "correct", profile)
    assert together == episodes(run, "correct", profile, RolloutOptions(0.02, envs=1, batch=16))
    assert together[::-1] == episodes(run, "correct", profile, seeds=SEEDS[::-1])
    assert together != episodes(run, "drop", profile)


def test_any_number_of_workers_gives_the_same(tiny_run, tmp_path):
    run = with_head(tiny_run, tmp_path, 0.2)
    source = Policy.load(run, ddim_steps=2, late="correct")
    expected = run_episodes(source, make_balance, SEEDS, JITTER, OPTIONS)
    workers = Workers(2)
    assert workers.run_episodes(source, make_balance, SEEDS, JITTER, OPTIONS) == expected
    workers.close()


def values(observation):
    """The array of an observation with one key."""
    return next(iter(observation.values())) if isinstance(observation, dict) else observation


class Told:
    """A source whose chunks are zeros, with a head that keeps what it is told."""

    horizons = Horizons(2, 7, 2)
    change = 1.0

    def __init__(self):
        self.told = []

    def noise_shape(self, batch):
        return 0, batch

    def __call__(self, observation, noise):
        return np.zeros((len(next(iter(observation.values()))), 6, 1), np.float32)

    def correct(self, observation, actions, index):
        self.told.append((observation, index))
        return actions + np.float32(self.change)


def test_the_head_sees_the_observation_of_the_tick_before():
    source, env = Told(), make_balance()
    first = env.reset(seed=3)[0]
    seen = [first, *(env.step(np.float32([x]))[0] for x in (0, 1, 1, 1, 1))]
    env.close()
    late = LatencyProfile(np.full(9, 20.0), "one tick")
    found = run_episodes(source, make_balance, [3], late, RolloutOptions(0.02, envs=1, batch=2))
    assert found[0].ticks == len(source.told) + 1
    for tick, (observation, index) in enumerate(source.told[:5], start=1):
        pair = (max(tick - 2, 0), tick - 1)
        expected = np.stack([values(seen[t]) for t in pair])
        given = values(observation)
        np.testing.assert_array_equal(given[0], expected.astype(np.float32))
        assert not given[1].any()
        assert index.tolist() == [[1, 2, 1, 2, 1][tick - 1], 0]


def test_a_controller_of_a_robot_corrects_from_the_second_tick_on():
    source, found = Told(), []
    with Controller(source, control_dt_s=1e-3) as controller:
        for tick in range(4):
            found.append(float(controller.act(np.array([float(tick)]))[0]))
    assert found == [0, 1, 1, 1]
    given = [next(iter(observation.values()))[0, :, 0].tolist() for observation, _ in source.told]
    assert given == [[0, 0], [0, 1], [1, 2]]


def test_a_correction_that_is_not_finite_fails_its_episode():
    source = Told()
    source.change = np.nan
    options = RolloutOptions(0.02, envs=1, batch=1)
    found = run_episodes(source, make_balance, [3], LatencyProfile(np.zeros(1), "none"), options)
    assert found[0].failure and "actions are not finite at tick 1" in found[0].failure


@pytest.mark.parametrize(("change", "expected"), [(np.nan, ActionsNotFinite), ("x", ValueError)])
def test_a_controller_whose_head_fails_stays_failed_until_reset(change, expected):
    """So no observation is counted twice, and a robot learns of it at every tick."""
    source = Told()
    with Controller(source, control_dt_s=1e-3) as controller:
        controller.act(np.zeros(1))
        source.change = change
        for _ in range(2):
            with pytest.raises(expected) as caught:
                controller.act(np.zeros(1))
            assert caught.value.__notes__ == ["in the correction of the action of tick 1"]
        source.change = 1.0
        controller.reset()
        assert [float(controller.act(np.zeros(1))[0]) for _ in range(2)] == [0, 1]


def test_a_run_without_a_head_is_told_how_to_train_one(tiny_run):
    with pytest.raises(DiffpolicyError, match="has no correction head; try: diffpolicy train-corr"):
        Policy.load(tiny_run, ddim_steps=2, late="correct")
    with pytest.raises(DiffpolicyError, match="correct takes nothing after its name"):
        Policy.load(tiny_run, ddim_steps=2, late="correct:2")


def test_a_head_of_other_weights_is_refused(zeros):
    policy = load_policy(zeros)
    name = next(iter(policy.weights))
    policy.weights[name] += 1
    save_policy(zeros / "policy.safetensors", policy)
    with pytest.raises(DiffpolicyError, match="was trained for other weights than those"):
        load_corrector(zeros / FILE, load_policy(zeros))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda w: w.pop("1.bias"), "1.bias.* does not fit the header; expected .*, got nothing"),
        (lambda w: w["0.bias"].fill_(torch.nan), "0.bias.* is not finite"),
    ],
)
def test_a_damaged_head_is_refused(zeros, change, told):
    weights = load_file(zeros / FILE)
    change(weights)
    policy = load_policy(zeros)
    save_corrector(zeros / FILE, weights, policy, {})
    with pytest.raises(DiffpolicyError, match=told):
        load_corrector(zeros / FILE, policy)


def test_a_file_of_another_kind_is_refused(zeros):
    save_tensors(zeros / FILE, {}, {"policy": 3})
    with pytest.raises(DiffpolicyError, match="header"):
        load_corrector(zeros / FILE, load_policy(zeros))


def test_latency_times_the_head_apart(zeros, tmp_path, capsys):
    options = {"ddim_steps": (2,), "engine": ("eager",), "seconds": 0.05, "device": "cpu"}
    for late in ("correct", "drop"):
        file = tmp_path / f"{late}.json"
        latency(LatencyConfig(run=zeros, late=late, json=file, **options))
        [row] = read_result(file).rows
        assert (row.head_ms is not None) == (late == "correct")
        titles = next(line for line in capsys.readouterr().out.splitlines() if "p50" in line)
        assert ("head" in titles.split()) == (late == "correct")
    assert "head_ms" in (tmp_path / "correct_budgets.csv").read_text()
