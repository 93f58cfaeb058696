"""Deadline cut: laws with a clock of our own, and the strategy on a policy."""

import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_warm import MODEL, NOISE, OBSERVATION, SPECIFICATION, policy

from diffpolicy.control.episode import RolloutOptions
from diffpolicy.control.latency import PAUSED
from diffpolicy.control.rollout import run_episodes
from diffpolicy.errors import DiffpolicyError
from diffpolicy.late import parse_late
from diffpolicy.late.cut import rows_of
from diffpolicy.sampling.deadline import Deadline, levels_after, sample_in_time
from diffpolicy.sampling.grids import pairs, trailing
from diffpolicy.sampling.steps import sample


class Slow:
    """A denoiser whose evaluations each last so long, the clock it moves, and its levels."""

    def __init__(self, lasts):
        self.now, self.lasts = 0.0, lasts

    def __call__(self, x, t):
        self.now += self.lasts(t)
        return 0.5 * torch.tanh(x + t / 100)

    def run(self, x, times, ends, evaluation=1.0):
        deadline = Deadline(ends, evaluation, lambda: self.now)
        return sample_in_time(self, x, times, rows_of(policy()), deadline)


@given(st.integers(1, 30), st.integers(1, 30))
def test_a_deadline_is_kept_when_evaluations_last_equally_long(steps, allowed):
    slow = Slow(lambda t: 0.1)
    _, visited = slow.run(torch.zeros(1, 2, 1), trailing(100, steps), 0.1 * allowed, 0.1)
    assert slow.now <= 0.1 * allowed + 1e-9
    assert visited == trailing(100, min(steps, allowed))


@given(st.lists(st.floats(0.2, 5), min_size=40, max_size=40), st.floats(0.5, 40))
def test_a_cut_chain_equals_the_chain_of_the_levels_it_visited(lasts, ends):
    slow, x = Slow(lambda t: lasts[t % 40]), torch.randn(2, 3, 2)
    found, visited = slow.run(x, trailing(100, 16), ends)
    rows = [rows_of(policy())(*pair) for pair in pairs(visited)]
    expected = sample(lambda x, k: slow(x, visited[k]), x[None], rows)
    assert torch.equal(found, expected)
    assert visited == sorted(set(visited), reverse=True) and visited[0] == 99


def test_an_evaluation_that_stalls_costs_levels_and_no_more_time():
    slow = Slow(lambda t: 6.0 if t == 87 else 1.0)
    _, visited = slow.run(torch.zeros(1, 2, 1), trailing(100, 8), 10.0)
    assert visited[:2] == [99, 87] and len(visited) == 5 and slow.now == 10


def test_no_time_left_makes_the_predicted_actions_the_chunk():
    assert levels_after(50, [40, 20], 0) == []
    assert levels_after(50, [40, 20], 2) == [40, 20]
    assert levels_after(49, [40, 30, 20, 10], 1) == [24]


def test_a_policy_with_time_gives_its_own_chunk_and_one_without_that_of_a_step():
    for late, steps in (("cut:1000000", 8), ("cut:0.000001", 1)):
        found = policy(late, 8)
        actions = found(OBSERVATION, NOISE)
        np.testing.assert_allclose(actions, policy(steps=steps)(OBSERVATION, NOISE), atol=1e-6)
        assert found.evaluations_made == [steps]


@pytest.mark.gpu
def test_cuda_gives_the_chunk_of_the_cpu():
    found = policy("cut:1000000", 8, device="cuda")(OBSERVATION, NOISE)
    np.testing.assert_allclose(found, policy(steps=8)(OBSERVATION, NOISE), atol=1e-4)


@pytest.mark.parametrize("text", ["cut", "cut:0", "cut:-1", "cut:nan", "cut:x", "cut:1:2"])
def test_other_texts_are_one_error(text):
    with pytest.raises(DiffpolicyError, match=re.escape(repr(text)) + " is not a deadline cut"):
        parse_late(text)


def test_what_it_cannot_cut_is_refused():
    with pytest.raises(DiffpolicyError, match=r"cuts chains of DDIM without noise; got .* --eta 1"):
        policy("cut:10", eta=1.0).prepare()
    with pytest.raises(
        DiffpolicyError, match=r"runs on the eager engine.*got onnx; try --engine eager"
    ):
        policy("cut:10", engine="onnx").prepare()
    regression = replace(MODEL, objective="regression")
    with pytest.raises(DiffpolicyError, match="a regression policy has no chain to cut"):
        parse_late("cut:10").check(replace(SPECIFICATION, model=regression))
    source, options = policy("cut:10"), RolloutOptions(control_dt_s=0.02)
    with pytest.raises(DiffpolicyError, match="depends on real time; expected the wall clock"):
        list(run_episodes(source, object, [0], PAUSED, options))
