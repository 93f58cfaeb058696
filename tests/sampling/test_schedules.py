"""Optimised schedules: shortest paths against brute force, and optima of exact denoisers."""

from functools import cache
from itertools import combinations

import numpy as np
import pytest
import torch

from diffpolicy.config import ModelConfig, Sampling
from diffpolicy.errors import DiffpolicyError
from diffpolicy.sampling.chain import make_chain
from diffpolicy.sampling.noise import alpha_bar_table
from diffpolicy.sampling.schedules import cost_matrix, descend, endings, rms, shortest, teach

T = 100
TRAILING = {2: (99, 49), 3: (99, 66, 32), 4: (99, 74, 49, 24)}
Z = torch.linspace(-2.5, 2.5, 201, dtype=torch.float64)
NOISE = Z.repeat_interleave((40 * torch.exp(-(Z**2) / 2)).round().long())  # by its density
CHAIN = tuple(range(T - 1, -1, -1))


@cache
def table(times):
    grid = ",".join(map(str, times))
    return make_chain(ModelConfig(prediction="x0"), None, Sampling(grid=grid)).rows


def mixture(means, spread):
    """E[x0 | x_t] of equally likely N(mean, spread²)."""
    centres = torch.tensor(means, dtype=torch.float64)
    alpha_bar = alpha_bar_table("squaredcos", T)

    def predict(x, t):
        a, b = alpha_bar[t] ** 0.5, (1 - alpha_bar[t]) ** 0.5
        total = a**2 * spread**2 + b**2
        of_each = centres + a * spread**2 / total * (x[:, None] - a * centres)
        weights = torch.softmax(-((x[:, None] - a * centres) ** 2) / (2 * total), 1)
        return (weights * of_each).sum(1)

    return predict


@cache
def found(means, spread, steps):
    """Schedules by dynamic programming and after descent, and the terminal error as a function."""
    predict = mixture(means, spread)
    teacher = teach(predict, NOISE, CHAIN, table)
    cost = costs(means, spread)
    path = tuple(teacher.times[i] for i in shortest(cost, steps))
    end = endings(predict, NOISE, table)

    def error(times):
        return rms(end(times) - teacher.y)

    return path, descend(error, path, range(T - 1, T)), error


@cache
def costs(means, spread):
    predict = mixture(means, spread)
    return cost_matrix(predict, teach(predict, NOISE, CHAIN, table), table)


GAUSSIAN, TWO_MODES = ((0.5,), 0.1), ((-0.5, 0.5), 0.05)
GOLDEN = [  # data, steps, error of trailing, by dynamic programming and its error, after descent
    (GAUSSIAN, 2, 0.07934, (4,), 0.04117, (5,), 0.04096),
    (GAUSSIAN, 3, 0.07261, (8, 2), 0.02685, (9, 2), 0.02661),
    (GAUSSIAN, 4, 0.06704, (11, 4, 1), 0.01938, (12, 4, 1), 0.01926),
    (TWO_MODES, 2, 0.33162, (6,), 0.14205, (7,), 0.14157),
    (TWO_MODES, 3, 0.24247, (37, 5), 0.06153, (18, 5), 0.04769),
    (TWO_MODES, 4, 0.18345, (47, 25, 5), 0.03704, (34, 13, 5), 0.02466),
]


@pytest.mark.parametrize(("data", "steps", "usual", "path", "dp", "times", "least"), GOLDEN)
def test_optima_of_exact_denoisers(data, steps, usual, path, dp, times, least):
    by_dp, descended, error = found(*data, steps)
    assert error(TRAILING[steps]) == pytest.approx(usual, rel=1e-3)
    assert by_dp == (99, *path) and error(by_dp) == pytest.approx(dp, rel=1e-3)
    assert descended == (99, *times) and error(descended) == pytest.approx(least, rel=1e-3)


def test_moves_of_one_level_can_end_beside_the_optimum():
    _, descended, error = found(*GAUSSIAN, 4)
    assert error((99, 14, 5, 1)) == pytest.approx(0.01909, rel=2e-3)
    assert error((99, 14, 5, 1)) < error(descended) < 1.01 * error((99, 14, 5, 1))


@pytest.mark.parametrize("data", [GAUSSIAN, TWO_MODES])
def test_descent_of_two_steps_is_brute_force(data):
    _, descended, error = found(*data, 2)
    assert descended == min([(99, t) for t in range(99)], key=error)


def test_schedules_that_begin_alike_share_their_evaluations():
    visited = []

    def predict(x, t):
        visited.append(t)
        return mixture(*TWO_MODES)(x, t)

    end = endings(predict, NOISE, table)
    for times in ((99, 50, 20), (99, 50, 10), (99, 40, 10)):
        expected = teach(mixture(*TWO_MODES), NOISE, times, table).y
        torch.testing.assert_close(end(times), expected, rtol=0, atol=0)
    assert visited == [99, 50, 20, 10, 40, 10]


def test_shortest_path_is_the_best_of_all():
    rng = np.random.default_rng(0)
    for _ in range(20):
        cost = rng.random((12, 13))
        cost[np.tril_indices(12)] = np.inf

        def total(path, cost=cost):
            return sum(cost[i, j] for i, j in zip(path, [*path[1:], 12], strict=True))

        paths = [(0, *rest) for rest in combinations(range(1, 12), 2)]
        assert tuple(shortest(cost, 3)) == min(paths, key=total)


def test_a_path_needs_as_many_levels_as_steps():
    with pytest.raises(ValueError, match="1 to 3 steps; got 4"):
        shortest(np.ones((3, 4)), 4)


def test_steps_of_the_teacher_itself_cost_nothing():
    cost = costs(*GAUSSIAN)
    levels = np.arange(T)
    assert np.all(cost[levels[:-1], levels[1:]] == 0) and cost[-1, -1] == 0
    assert (
        np.isinf(cost[np.tril_indices(T)]).all() and np.isfinite(cost[np.triu_indices(T, 1)]).all()
    )


def test_levels_can_be_left_out():
    predict = mixture(*GAUSSIAN)
    teacher = teach(predict, NOISE, CHAIN, table)
    coarse = teacher.every(2)
    assert coarse.times == tuple(range(99, 0, -2)) and torch.equal(coarse.y, teacher.y)
    assert torch.equal(coarse.x[3], teacher.x[6]) and torch.equal(coarse.x0[3], teacher.x0[6])


def test_a_free_start_stays_in_its_range():
    times = descend(lambda times: abs(times[0] - 30) + times[1], (99, 49), range(80, 100))
    assert times == (80, 0)
    assert descend(lambda times: -times[1], (4, 1), range(3, 5)) == (4, 3)


def optimised(**options):
    return make_chain(
        ModelConfig(), 1.0, Sampling(grid="optimised", **options), schedules=((85, 20), (60,))
    )


def test_a_stored_schedule_is_taken_by_its_length():
    assert optimised(ddim_steps=2).grid == [(85, 20), (20, -1)]
    assert optimised(ddim_steps=1, clip=1.0).grid == [(60, -1)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"eta": 0.5}, "η = 0 and the clip of the run.*got η 0.5"),
        ({"clip": 2.0}, "got η 0, clip 2.0"),
        ({"clip": 0.0}, "got η 0, clip 0.0"),
        ({"start": 90}, "has its own ends"),
        ({"end": 3}, "has its own ends"),
        ({"ddim_steps": 3}, "optimised grids for 1, 2 steps; got --ddim-steps 3"),
    ],
)
def test_a_stored_schedule_is_refused_where_it_was_not_chosen(options, message):
    with pytest.raises(DiffpolicyError, match=message):
        optimised(**{"ddim_steps": 2, **options})


def test_a_run_without_optimised_grids_is_told_how_to_get_them():
    for steps in (None, 4):
        with pytest.raises(DiffpolicyError, match="no optimised grids; make them"):
            make_chain(ModelConfig(), 1.0, Sampling(steps, grid="optimised"))
