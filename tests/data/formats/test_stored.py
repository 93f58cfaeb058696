"""Stores as a source: this project's own, and Diffusion Policy's folders and zips."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import zarr
from stores import ENDS, EPISODES, joined, write_plainly

from diffpolicy.data.demonstrations import contents
from diffpolicy.data.formats import open_source, recognised, stored
from diffpolicy.data.formats.options import SourceOptions
from diffpolicy.errors import DiffpolicyError


def sample(name: str) -> Path:
    folder = os.environ.get("DIFFPOLICY_SAMPLES")
    if not folder:
        pytest.skip("DIFFPOLICY_SAMPLES does not name the folder of samples")
    return Path(folder) / name


@pytest.mark.parametrize("name", ["dp.zarr", "dp.zarr.zip"])
def test_what_diffusion_policy_wrote_is_read_to_the_bit(name):
    source = open_source(sample(name))
    expected = np.load(sample("source.npz"))
    assert recognised(sample(name)) == source.format == "zarr"
    assert [len(episode) for episode in source.episodes()] == [40, 41, 42] and len(source) == 3
    for number, episode in enumerate(source.episodes()):
        for key, name in (("state", "observations"), ("action", "actions")):
            rows = expected[f"{name}_{number}"][: len(episode)]
            np.testing.assert_array_equal(episode.arrays[key], rows, strict=True)


@pytest.mark.parametrize("most", [1, 100, 10**6])
@pytest.mark.parametrize("zarr_format", [2, 3])
def test_blocks_do_not_matter(tmp_path, monkeypatch, most, zarr_format):
    monkeypatch.setattr(stored, "READ_BYTES", most)
    path = write_plainly(tmp_path / "s", joined(), [0, *ENDS[:2], 16, *ENDS[2:]], zarr_format)
    source = open_source(path)
    assert source.notes == ("2 episodes without steps are left out",)
    for episode, expected in zip(source.episodes(), EPISODES, strict=True):
        for name, values in expected.items():
            np.testing.assert_array_equal(episode.arrays[name], values, strict=True)


def test_rewards_of_others_are_outcomes(tmp_path):
    arrays = {"reward": np.arange(27.0)[:, None], "truncated": np.ones((27, 2)), **joined()}
    source = open_source(write_plainly(tmp_path / "s", arrays, ENDS))
    for number, episode in enumerate(source.episodes()):
        assert set(episode.arrays) == {"observation", "action"}
        np.testing.assert_array_equal(
            episode.outcomes["reward"], np.arange(27.0)[[0, 5, 16, 25][number] : ENDS[number]]
        )
    [note] = source.notes
    assert note.startswith("data/truncated has rows of [2], not one number")


def test_arrays_are_skipped_on_request(tmp_path):
    path = write_plainly(tmp_path / "s", joined(), ENDS)
    [first, *_] = open_source(path, SourceOptions(skip=("observation",))).episodes()
    assert set(first.arrays) == {"action"}
    for name in ("camera", "action"):
        with pytest.raises(DiffpolicyError, match=f"has no {name} to skip; its observations are: "):
            open_source(path, SourceOptions(skip=(name,)))


def test_an_episode_beyond_the_memory_is_refused(tmp_path, monkeypatch):
    source = open_source(write_plainly(tmp_path / "s", joined(), ENDS))
    monkeypatch.setattr("diffpolicy.data.zarr_store._memory_bytes", lambda: 100)
    with pytest.raises(DiffpolicyError, match=r"episode 0 takes 0\.0 GiB; this machine has"):
        next(source.episodes())


@pytest.mark.parametrize(
    ("arrays", "ends", "message"),
    [
        ({"actions": np.ones((3, 2))}, [3], "has no data/action; it holds: actions"),
        ({"action": np.ones((3, 2))}, [0], "no finished episode"),
        ({"action": np.ones((3, 2)), "x": np.ones(4)}, [3], "4 rows for 3 actions"),
    ],
)
def test_what_has_no_demonstrations_is_refused(tmp_path, arrays, ends, message):
    with pytest.raises(DiffpolicyError, match=message):
        open_source(write_plainly(tmp_path / "s", arrays, ends))


def test_a_damaged_chunk_is_refused_when_it_is_read(tmp_path):
    path = write_plainly(tmp_path / "s", joined(), ENDS, chunks=(5, 1))
    (path / "data/action/4.0").write_bytes(b"damaged")
    episodes = open_source(path).episodes()
    with pytest.raises(DiffpolicyError, match="action cannot be read"):
        list(episodes)


def test_what_is_no_data_set_is_refused(tmp_path):
    (tmp_path / "text").write_text("nothing")
    for path, message in (
        (tmp_path / "absent", "no demonstrations at"),
        (tmp_path / "text", "is not a data set of a known format; expected one of zarr"),
        (tmp_path, "is not a data set of a known format"),
    ):
        with pytest.raises(DiffpolicyError, match=message):
            open_source(path)


def test_the_data_set_around_a_path_and_those_in_it_are_named(tmp_path):
    store = write_plainly(tmp_path / "sets" / "inner" / "s", joined(), ENDS)
    (store / "notes").mkdir()
    for path, message in (
        (store / "notes", f"is a part of the data set {store}; give that"),
        (tmp_path / "sets", f"it holds {store}: give one of them"),
    ):
        with pytest.raises(DiffpolicyError, match=message):
            open_source(path)
        with pytest.raises(DiffpolicyError, match=message):
            contents(path)


def test_other_zips_are_not_stores(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "text").write_text("nothing")
    packed = shutil.make_archive(str(tmp_path / "x"), "zip", tmp_path / "folder")
    assert recognised(Path(packed)) is None


def test_another_format_is_not_read_under_the_name_of_zarr(tmp_path):
    with pytest.raises(DiffpolicyError, match="no demonstration store at"):
        open_source(sample("robomimic.hdf5"), SourceOptions(format="zarr"))


def test_arrays_of_others_under_meta_are_named(tmp_path):
    path = write_plainly(tmp_path / "s", joined(), ENDS)
    zarr.open_group(path, mode="r+").create_array("meta/weights", data=np.ones(4))
    assert open_source(path).notes == ("left out: meta/weights",)
