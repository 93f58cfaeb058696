"""Survey of a store in `info`, and its picture."""

import numpy as np
import pytest
import zarr
from stores import write_plainly
from tended import demonstration, write

from diffpolicy.data.demonstrations import contents
from diffpolicy.stores.frames import strips
from diffpolicy.stores.survey import MOST_ROWS, lines, survey

MAGIC = {"png": b"\x89PNG", "pdf": b"%PDF", "svg": b"<?xml"}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    episodes = [demonstration(i, 25 + i, pictures=True) for i in range(6)]
    return write(tmp_path_factory.mktemp("seen") / "store", [*episodes, episodes[2]])


@pytest.mark.parametrize("suffix", MAGIC)
def test_the_picture_has_the_format_of_its_suffix(store, tmp_path, call, suffix):
    code, out, errors = call("info", store, "--plot", tmp_path / f"new/picture.{suffix}")
    assert (code, errors) == (0, [])
    assert (tmp_path / f"new/picture.{suffix}").read_bytes().startswith(MAGIC[suffix])
    assert [p.name for p in (tmp_path / "new").iterdir()] == [f"picture.{suffix}"]
    assert "near-duplicate pairs: 1" in out


def test_another_suffix_is_refused_and_nothing_written(store, tmp_path, refused):
    message = refused("info", store, "--plot", tmp_path / "picture.jpg")
    assert "--plot must end in .png, .pdf, .svg; got" in message
    assert list(tmp_path.iterdir()) == []


def test_facts_are_those_of_the_store(balance_store, call, tmp_path):
    out = call("info", balance_store, "--plot", tmp_path / "b.png").out
    for words in ("idle: ", "in 0.5 s", "no jumps; largest change", "at a limit of their space:"):
        assert words in out
    without = call("info", balance_store).out
    assert "at their smallest or largest value:" in without


@pytest.mark.parametrize("rows", [1, 2])
def test_a_store_of_one_short_episode_is_drawn(tmp_path, call, rows):
    path = write(tmp_path / "store", [demonstration(0, rows)])
    assert call("info", path, "--plot", tmp_path / "p.png").code == 0


def test_actions_alone_and_constant_ones_are_drawn(tmp_path, call):
    for name, action in {"ones": np.ones(20), "rising": np.arange(20.0)}.items():
        path = write_plainly(tmp_path / name, {"action": action}, [8, 20])
        assert call("info", path, "--plot", tmp_path / f"{name}.png").code == 0


def test_a_long_store_is_sampled_and_says_so(tmp_path):
    count = 3 * MOST_ROWS
    values = np.arange(float(count)) % 1000
    path = write_plainly(tmp_path / "s", {"action": values}, np.arange(100, count + 1, 100))
    found = survey(contents(path))
    assert len(found.values) <= MOST_ROWS
    assert (found.episodes[0], found.episodes[-1]) == (0, count // 100 - 1)
    assert lines(found) and any("evenly spaced" in line for line in lines(found))
    start = found.episodes[1] * 100
    np.testing.assert_array_equal(found.values[found.rows_of(1), 0], values[start : start + 100])


def test_a_single_long_episode_is_cut(tmp_path):
    count = MOST_ROWS + 500
    path = write_plainly(tmp_path / "s", {"action": np.arange(float(count))}, [count])
    found = survey(contents(path))
    np.testing.assert_array_equal(found.values[:, 0], np.arange(MOST_ROWS))


def test_strips_hold_the_pictures_of_one_episode(store):
    [(name, pictures, steps)], episode = strips(contents(store))
    number = 2 if episode == 6 else episode  # the last one is a copy
    original = demonstration(number, 25 + number, pictures=True).arrays["camera"]
    assert name == "camera" and steps[0] == 0 and steps[-1] == len(original) - 1
    np.testing.assert_array_equal(pictures, original[steps])


def test_pictures_with_channels_first_and_floats_are_shown(tmp_path):
    frames = np.random.default_rng(0).random((12, 3, 9, 8))
    path = write_plainly(tmp_path / "s", {"action": np.arange(12.0), "camera": frames}, [12])
    [(_, pictures, steps)], _ = strips(contents(path))
    expected = np.rint(255 * np.moveaxis(frames, 1, 3))[steps]
    np.testing.assert_array_equal(pictures, expected)


def test_a_store_without_actions_cannot_be_drawn(tmp_path, refused):
    path = write_plainly(tmp_path / "store", {"actions": np.ones(27)}, [27])
    assert "no data/action, which --plot needs" in refused(
        "info", path, "--plot", tmp_path / "p.png"
    )


def test_the_table_has_a_line_for_each_dimension(balance_store, call):
    lines = call("info", balance_store).out.splitlines()
    first = next(i for i, line in enumerate(lines) if line.split()[:1] == ["dimension"])
    rows = [line.split() for line in lines[first + 1 :]]
    assert [row[0] for row in rows] == ["action", *(f"observation[{i}]" for i in range(4))]
    values = np.asarray(zarr.open_group(balance_store, mode="r")["data/observation"])
    for row, column in zip(rows[1:], values.T, strict=True):
        told = [float(cell) for cell in row[1:5]]
        expected = (column.min(), column.max(), column.mean(), column.std())
        np.testing.assert_allclose(told, expected, rtol=1e-3, atol=1e-6)
        assert 0 <= float(row[5].rstrip("%")) <= 100
    assert "50 Hz" in lines[0]
