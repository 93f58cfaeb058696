"""LeRobot data sets by the commands: store → LeRobot → store, and opened as they are."""

import os
from contextlib import closing
from pathlib import Path

import pytest
from lerobot_sets import FACTS, Made, assert_equal, episodes

from diffpolicy.data.demonstration_writer import DemonstrationWriter
from diffpolicy.data.formats import lerobot_checks, open_source


@pytest.fixture
def store(tmp_path) -> Path:
    """A store that holds everything that LeRobot can hold."""
    with closing(DemonstrationWriter(tmp_path / "store.zarr", FACTS)) as writer:
        writer.extend(Made(episodes(pictures=True)).held)
    return tmp_path / "store.zarr"


@pytest.mark.parametrize("version", ["3.0", "2.1"])
def test_a_store_returns_from_lerobot(version, store, tmp_path, call):
    form = f"lerobot-{version}"
    code, out, _ = call("export", store, "--format", form, "--out", tmp_path / "there")
    assert code == 0
    assert "meta/diffpolicy.json" in out
    assert call("import", tmp_path / "there", "--out", tmp_path / "back.zarr").code == 0
    assert open_source(tmp_path / "back.zarr").attributes.items() >= FACTS.items()
    stored, back = open_source(store), open_source(tmp_path / "back.zarr")
    for found, expected in zip(back.episodes(), stored.episodes(), strict=True):
        assert_equal(found, expected)


def test_an_export_that_is_refused_leaves_nothing(store, tmp_path, refused, snapshot):
    before = snapshot(tmp_path)
    with closing(DemonstrationWriter(tmp_path / "slow.zarr", {"control_dt_s": 0.08})) as writer:
        writer.extend(Made(episodes()).held)
    line = refused(
        "export", tmp_path / "slow.zarr", "--format", "lerobot-3.0", "--out", tmp_path / "there"
    )
    assert "give --fps 12" in line
    assert {name.partition("/")[0] for name in snapshot(tmp_path).keys() - before.keys()} == {
        "slow.zarr",
    }


@pytest.mark.parametrize("kind", ["v2.1_png", "v3.0_lowdim", "v3.0_mp4"])
def test_a_sample_is_opened_as_it_is(kind, call):
    folder = os.environ.get("DIFFPOLICY_SAMPLES")
    if not folder:
        pytest.skip("DIFFPOLICY_SAMPLES does not name the folder of samples")
    code, out, _ = call("info", Path(folder) / f"lerobot_{kind}")
    assert code == 0
    assert "observation.state" in out


def test_a_command_without_options_names_the_one_that_skips_videos(monkeypatch, refused):
    folder = os.environ.get("DIFFPOLICY_SAMPLES")
    if not folder:
        pytest.skip("DIFFPOLICY_SAMPLES does not name the folder of samples")
    monkeypatch.setattr(lerobot_checks, "is_installed", lambda: False)
    path = Path(folder) / "lerobot_v3.0_mp4"
    told = refused("info", path)
    assert f"diffpolicy import {path} --out STORE, with that option" in told
