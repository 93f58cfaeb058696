"""Windows hold what a loop over the episodes would cut out, and nothing of a neighbour."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diffpolicy.data.windows import make_windows
from diffpolicy.errors import DiffpolicyError
from diffpolicy.specification import FLAT, Horizons, default_horizons

lengths = st.lists(st.integers(1, 12), min_size=1, max_size=6)


@st.composite
def horizons(draw) -> Horizons:
    observation = draw(st.integers(1, 4))
    usable = draw(st.integers(1, 9))
    return Horizons(observation, usable + observation - 1, draw(st.integers(1, usable)))


def numbered_rows(lengths):
    """observations {key: [N, 1]} and actions [N, 2] that carry their own row numbers."""
    row = np.arange(sum(lengths), dtype=np.float32)
    return {FLAT: row[:, None]}, np.stack([row, -row], axis=1), np.cumsum(lengths)


def gathered(windows, index):
    observations, *others = windows.gather(index)
    return observations[FLAT], *others


def by_hand(lengths, episodes, horizons):
    """(history, chunk, real) as rows, one window for each row of each chosen episode."""
    for episode in sorted(episodes):
        first = sum(lengths[:episode])
        rows = range(first, first + lengths[episode])
        for newest in rows:
            seen = [max(newest - back, rows[0]) for back in reversed(range(horizons.observation))]
            begin = newest - horizons.observation + 1
            wanted = range(begin, begin + horizons.prediction)
            chunk = [min(max(row, rows[0]), rows[-1]) for row in wanted]
            yield seen, chunk, [row in rows for row in wanted]


@settings(deadline=None)
@given(lengths, horizons(), st.data())
def test_windows_are_what_a_loop_cuts_out(lengths, horizons, data):
    numbers = st.integers(0, len(lengths) - 1)
    episodes = data.draw(st.none() | st.lists(numbers, min_size=1, unique=True))
    observations, actions, ends = numbered_rows(lengths)
    chosen = None if episodes is None else np.array(episodes)
    windows = make_windows(observations, actions, ends, horizons, chosen)
    expected = list(by_hand(lengths, range(len(lengths)) if chosen is None else chosen, horizons))
    assert len(windows) == len(expected)

    index = np.arange(len(windows))
    history, chunk, real = gathered(windows, index)
    rows = [list(column) for column in zip(*expected, strict=True)]
    assert history[..., 0].tolist() == rows[0]
    assert chunk[..., 0].tolist() == rows[1]
    assert (chunk[..., 1] == -chunk[..., 0]).all()
    assert real.tolist() == rows[2]

    for ours, theirs in zip(
        (history, chunk, real), gathered(windows.to("cpu"), index), strict=True
    ):
        assert np.array_equal(ours, theirs.numpy())


@given(lengths, horizons(), st.data())
def test_episodes_left_out_never_show(lengths, horizons, data):
    observations, actions, ends = numbered_rows(lengths)
    left_out = data.draw(st.integers(0, len(lengths) - 1))
    inside = slice(ends[left_out] - lengths[left_out], ends[left_out])
    observations[FLAT][inside] = actions[inside] = np.nan
    kept = np.delete(np.arange(len(lengths)), left_out)
    windows = make_windows(observations, actions, ends, horizons, kept)
    history, chunk, _ = gathered(windows, np.arange(len(windows)))
    assert len(windows) == sum(lengths) - lengths[left_out]
    assert np.isfinite(history).all() and np.isfinite(chunk).all()


def test_the_table_of_the_docstring():
    """T_o = 2, T_p = 8, T_a = 4, newest observation in row t = 10 of a long episode."""
    horizons = Horizons(observation=2, prediction=8, action=4)
    windows = make_windows(*numbered_rows([30]), horizons)
    history, chunk, real = gathered(windows, np.array([10]))
    assert history[0, :, 0].tolist() == [9, 10]
    assert chunk[0, :, 0].tolist() == [9, 10, 11, 12, 13, 14, 15, 16]
    assert real.all()
    assert horizons.usable == 7
    executed = chunk[0, horizons.observation - 1 :, 0][: horizons.action]
    assert executed.tolist() == [10, 11, 12, 13]


def test_the_ends_of_an_episode_repeat_and_say_so():
    windows = make_windows(*numbered_rows([3, 3]), Horizons(2, 4, 2))
    history, chunk, real = gathered(windows, np.array([3, 5]))
    assert history[..., 0].tolist() == [[3, 3], [4, 5]]
    assert chunk[..., 0].tolist() == [[3, 3, 4, 5], [4, 5, 5, 5]]
    assert real.tolist() == [[False, True, True, True], [True, True, False, False]]


@pytest.mark.parametrize("bad", [(0, 8, 4), (2, 0, 1), (2, 8, 0), (-1, 8, 4), (2, 8, 8), (9, 8, 1)])
def test_horizons_that_do_not_fit_are_refused(bad):
    got = "got T_o {}, T_p {}, T_a {}".format(*bad)
    with pytest.raises(DiffpolicyError, match=got):
        Horizons(*bad)


def test_every_usable_action_may_be_executed():
    assert Horizons(2, 8, 7).usable == 7


@pytest.mark.parametrize(("control_dt_s", "expected"), [(0.1, (16, 8)), (0.02, (24, 2))])
def test_fast_tasks_predict_longer_and_replan_sooner(control_dt_s, expected):
    default = default_horizons(control_dt_s, observation=2, prediction=None, action=None)
    assert (default.prediction, default.action) == expected
    assert default_horizons(control_dt_s, 2, 12, 3) == Horizons(2, 12, 3)
