"""Stores through Minari and robomimic and back, by the commands: equal to the bit."""

from dataclasses import replace

import numpy as np
import pytest
from foreign_data import assert_alike, samples

from diffpolicy.data.formats import open_source

SOURCES = {
    "minari": ("minari/diffpolicy/balance-parquet-v0", "minari/diffpolicy/balance-image-jpeg0-v0"),
    "robomimic": ("robomimic.hdf5",),
}


@pytest.mark.parametrize("name", ["minari", "robomimic"])
def test_a_recorded_store_comes_back(name, balance_store, call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    out = f"mine/balance-v0{'.hdf5' * (name == 'robomimic')}"
    assert call("export", balance_store, "--format", name, "--out", out).code == 0
    assert call("import", out, "--out", "back.zarr").code == 0
    before, after = open_source(balance_store), open_source("back.zarr")
    for key in ("env_id", "env_kwargs", "control_dt_s", "position_targets"):
        assert after.attributes[key] == before.attributes[key]
    for found, expected in zip(after.episodes(), before.episodes(), strict=True):
        if name == "robomimic":
            kept = {"reward": expected.outcomes["reward"]}
            expected = replace(expected, outcomes=kept, success=None)
        assert_alike(found, expected)


@pytest.mark.parametrize(("name", "sample"), [(n, s) for n in SOURCES for s in SOURCES[n]])
def test_a_sample_comes_back(name, sample, call, tmp_path):
    out = tmp_path / "mine" / "sample-v0"
    assert call("import", samples() / sample, "--out", tmp_path / "one.zarr").code == 0
    assert call("export", tmp_path / "one.zarr", "--format", name, "--out", out).code == 0
    assert call("import", out, "--out", tmp_path / "two.zarr").code == 0
    one, two = open_source(tmp_path / "one.zarr"), open_source(tmp_path / "two.zarr")
    for found, expected in zip(two.episodes(), one.episodes(), strict=True):
        assert_alike(found, expected)
        assert np.array_equal(list(found.arrays), list(expected.arrays))


def test_a_failed_export_leaves_nothing(balance_store, refused, tmp_path):
    error = refused("export", balance_store, "--format", "minari", "--out", tmp_path / "a.b" / "c")
    assert "FOLDER/NAMESPACE/NAME-vN" in error
    assert not any((tmp_path / "a.b").glob("*"))
