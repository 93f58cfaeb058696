"""Data of another format are read into memory and used as a store is, without a conversion."""

from pathlib import Path

import numpy as np
import pytest
from stores import EPISODES

from diffpolicy.config import InfoConfig
from diffpolicy.data import demonstrations, formats, zarr_store
from diffpolicy.data.demonstration import Demonstration
from diffpolicy.data.demonstrations import contents, open_demonstrations
from diffpolicy.data.formats.options import OptionNeeded
from diffpolicy.errors import DiffpolicyError
from diffpolicy.info import info


class Elsewhere:
    """A source in a format of its own."""

    format, notes = "lerobot", ("videos are skipped",)
    attributes = {"control_dt_s": 0.1}  # noqa: RUF012

    def __init__(self, path, episodes):
        self.path, self.given = path, episodes

    def __len__(self):
        return len(self.given)

    def episodes(self, start=0):
        yield from self.given[start:]


def pictures(number: int, length: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, (length, 8, 9, 3), np.uint8)


GIVEN = [
    Demonstration(
        {**arrays, "camera": pictures(n, len(arrays["action"]))},
        {"reward": np.ones(len(arrays["action"]))},
        {"observation": np.ones(3)},
    )
    for n, arrays in enumerate(EPISODES)
]


@pytest.fixture
def opened(monkeypatch, tmp_path):
    """Function that makes `contents` meet a source of these episodes."""

    def make(episodes=GIVEN):
        source = Elsewhere(tmp_path, episodes)
        monkeypatch.setattr(demonstrations, "recognised", lambda path: "lerobot")
        monkeypatch.setattr(formats, "open_source", lambda path: source)
        return tmp_path

    return make


def test_the_arrays_are_those_of_the_source(opened):
    path = opened()
    source = contents(path)
    assert source.names == ["action", "camera", "observation"] and source.outcomes == ("reward",)
    store = open_demonstrations(path)
    assert store.notes == ("videos are skipped",) and store.attributes == {"control_dt_s": 0.1}
    np.testing.assert_array_equal(store.episode_ends, [5, 16, 25, 27])
    for name in source.names:
        expected = np.concatenate([episode.arrays[name] for episode in GIVEN])
        np.testing.assert_array_equal(store.arrays[name], expected, strict=True)


def test_info_prints_them(opened, capsys):
    info(InfoConfig(opened()))
    told = capsys.readouterr().out
    assert "4 episodes, 27 steps" in told and "videos are skipped" in told
    assert "data/camera" in told and "pictures: uint8" in told and "control_dt_s: 0.1" in told


def test_more_than_the_memory_is_refused_with_the_command_that_helps(opened, monkeypatch):
    path = opened()
    monkeypatch.setattr(zarr_store, "_memory_bytes", lambda: 1000)
    with pytest.raises(DiffpolicyError, match=rf"more than 50% of .*import {path} --out STORE"):
        contents(path)


def test_a_missing_option_is_told_with_the_command_that_takes_it(opened, monkeypatch):
    def fail(path: Path):
        raise OptionNeeded(f"{path} needs --map")

    path = opened()
    monkeypatch.setattr(formats, "open_source", fail)
    with pytest.raises(DiffpolicyError, match=rf"needs --map; .*diffpolicy import {path} --out"):
        contents(path)


def test_episodes_that_differ_are_refused(opened):
    with pytest.raises(DiffpolicyError, match=r"holds rows of .*; episode 1 has rows of"):
        contents(opened([GIVEN[0], Demonstration(EPISODES[1])]))


def test_an_episode_of_another_type_is_refused(opened):
    """Numbers are never rounded to the whole numbers of the first episode."""
    arrays = {"observation": np.arange(8).reshape(4, 2), "action": np.arange(8).reshape(4, 2)}
    other = {**arrays, "observation": arrays["observation"] + 0.5}
    path = opened([Demonstration(arrays), Demonstration(other)])
    with pytest.raises(DiffpolicyError, match="'observation' as int64; episode 1 has float64"):
        contents(path)
