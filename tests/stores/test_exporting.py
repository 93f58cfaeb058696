"""`diffpolicy export`: whole or not at all, and what is lost is said."""

import os
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import zarr
from foreign_data import a_source
from stores import ATTRIBUTES, ENDS, EPISODES, joined, write_plainly

from diffpolicy.data.demonstration import Demonstration
from diffpolicy.data.demonstration_writer import DemonstrationWriter
from diffpolicy.data.formats import diffusion_policy, open_source
from diffpolicy.data.formats.options import ExportOptions
from diffpolicy.errors import DiffpolicyError
from diffpolicy.stores.config import ExportConfig
from diffpolicy.stores.exporting import export_store


def full(number: int) -> Demonstration:
    length = number + 2
    rng = np.random.default_rng(number)
    return Demonstration(
        {
            "robot/joint": rng.standard_normal((length, 2)),
            "camera": rng.integers(0, 256, (length, 8, 9, 3), np.uint8),
            "action": rng.standard_normal((length, 2), np.float32),
        },
        {"reward": rng.standard_normal(length), "terminated": np.arange(length) > number},
        {"robot/joint": np.ones(2)},
        success=True,
        task="lift",
        name=f"demo_{number}",
    )


@pytest.fixture
def store(tmp_path):
    with closing(DemonstrationWriter(tmp_path / "s.zarr", ATTRIBUTES)) as writer:
        writer.extend([full(n) for n in range(5)])
    return tmp_path / "s.zarr"


def exported(store, out, kind="zarr") -> Path:
    export_store(ExportConfig(store=store, format=kind, out=out))
    return out


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.mark.parametrize("name", ["dp.zarr", "dp.zarr.zip"])
def test_diffusion_policys_layout_gives_the_same_episodes(tmp_path, store, name, capsys):
    out = exported(store, tmp_path / name)
    for number, episode in enumerate(open_source(out).episodes()):
        expected = full(number)
        arrays = {k.replace("/", "_"): x for k, x in expected.arrays.items()}
        for found, wanted in ((episode.arrays, arrays), (episode.outcomes, expected.outcomes)):
            assert set(found) == set(wanted)
            for key, values in wanted.items():
                np.testing.assert_array_equal(found[key], values, strict=True)
    told = capsys.readouterr().out
    for lost in ("group of robot/joint; written as robot_joint", "success", "task texts", "names"):
        assert f"not in zarr: {lost}" in told or f"not in zarr: the {lost}" in told
    assert "not in zarr: the observation after the last action" in told
    assert names(tmp_path) == {name, "s.zarr"}


def test_it_holds_what_diffusion_policys_reader_expects(tmp_path, store):
    """Format 2, arrays alone in data/ and meta/, each with a row for each of the last end."""
    root = zarr.open_group(exported(store, tmp_path / "dp.zarr"), mode="r", zarr_format=2)
    assert [name for name, _ in root["meta"].members()] == ["episode_ends"]
    ends = root["meta/episode_ends"]
    assert ends.dtype == np.int64 and list(ends[:]) == list(np.cumsum([2, 3, 4, 5, 6]))
    for _, array in root["data"].members():
        assert isinstance(array, zarr.Array) and array.shape[0] == 20
    assert dict(root.attrs) == ATTRIBUTES


def test_a_store_without_facts_loses_nothing(tmp_path, capsys):
    out = exported(write_plainly(tmp_path / "plain", joined(), ENDS), tmp_path / "out.zarr")
    assert "not in" not in capsys.readouterr().out
    for episode, expected in zip(open_source(out).episodes(), EPISODES, strict=True):
        for name, values in expected.items():
            np.testing.assert_array_equal(episode.arrays[name], values, strict=True)


def test_an_export_that_fails_leaves_nothing(tmp_path, store, monkeypatch):
    def fail(source, options, partial):
        partial.mkdir()
        (partial / "half").write_text("half")
        raise error

    monkeypatch.setattr(diffusion_policy, "write", fail)
    for error in (OSError("the disk is full"), KeyboardInterrupt()):
        with pytest.raises(type(error)):
            exported(store, tmp_path / "out.zarr")
        assert names(tmp_path) == {"s.zarr"}


def test_leftovers_of_killed_exports_are_removed(tmp_path, store):
    dead, alive = (tmp_path / f".out.zarr.{n}.partial" for n in (2**22 + 1, os.getppid()))
    for folder in (dead, alive):
        folder.mkdir()
    exported(store, tmp_path / "out.zarr")
    assert alive.exists() and not dead.exists()


def test_what_exists_is_not_overwritten(tmp_path, store, snapshot):
    before = snapshot(store)
    with pytest.raises(DiffpolicyError, match="exists, and nothing is overwritten"):
        exported(store, store)
    assert snapshot(store) == before


def test_names_that_are_equal_without_their_groups_are_refused(tmp_path):
    with closing(DemonstrationWriter(tmp_path / "s.zarr", ATTRIBUTES)) as writer:
        episode = full(0)
        arrays = {**episode.arrays, "robot_joint": episode.arrays["robot/joint"]}
        writer.append(replace(episode, arrays=arrays))
    with pytest.raises(DiffpolicyError, match="are not unique without their groups"):
        exported(tmp_path / "s.zarr", tmp_path / "out.zarr")
    assert names(tmp_path) == {"s.zarr"}


@pytest.mark.parametrize("change", [{"more": np.zeros(4)}, {"count": np.full(4, 0.5)}])
def test_episodes_unlike_the_first_are_not_written_in_part(tmp_path, change):
    arrays = {"count": np.arange(4), "action": np.zeros((4, 2))}
    source = a_source([Demonstration(arrays), Demonstration(arrays | change)])
    options = ExportOptions(format="zarr", out=tmp_path / "out.zarr")
    with pytest.raises(DiffpolicyError, match="episode 1 has"):
        diffusion_policy.write(source, options, tmp_path / "partial")


def test_seeds_that_no_format_holds_are_named(tmp_path, store, capsys):
    exported(store, tmp_path / "without.zarr")
    assert "reset seeds" not in capsys.readouterr().out
    with closing(DemonstrationWriter(store, ATTRIBUTES)) as writer:
        writer.append(full(9), seed=7)
    exported(store, tmp_path / "with.zarr")
    assert "not in zarr: the reset seeds of the episodes" in capsys.readouterr().out


def test_a_file_that_appeared_meanwhile_is_kept(tmp_path, store, monkeypatch):
    out = tmp_path / "out.zarr"

    def write(source, options, partial):
        partial.write_text("ours")
        out.write_text("theirs")
        return []

    monkeypatch.setattr(diffusion_policy, "write", write)
    with pytest.raises(DiffpolicyError, match="exists, and nothing is overwritten"):
        exported(store, out)
    assert out.read_text() == "theirs" and names(tmp_path) == {"out.zarr", "s.zarr"}
