"""lerobot's own reader against exports; see README.md in this folder.

lerobot has environments of its own: DIFFPOLICY_LEROBOT_PYTHON names the Python of one that reads
3.0, and DIFFPOLICY_LEROBOT_2_1_PYTHON the Python of an older one that reads 2.1.
"""

import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
from lerobot_sets import Made, episodes, exported

from diffpolicy.data.formats.lerobot import open_source

READ = Path(__file__).with_name("read_lerobot.py")
NAMES = {  # of the reader's source: of lerobot
    "observation": "observation.state",
    "robot/joint": "observation.robot.joint",
    "contacts": "observation.contacts",
    "open": "observation.open",
    "action": "action",
    "top": "observation.images.top",
    "grey": "observation.images.grey",
    "reward": "next.reward",
    "terminated": "next.done",
    "truncated": "next.truncated",
}


PYTHONS = {"3.0": "DIFFPOLICY_LEROBOT_PYTHON", "2.1": "DIFFPOLICY_LEROBOT_2_1_PYTHON"}
VERSIONS = pytest.mark.parametrize("version", PYTHONS)


@pytest.fixture
def by_lerobot(version, tmp_path):
    """Function by_lerobot(folder) -> {name: [N, …]} as lerobot reads it."""
    python = os.environ.get(PYTHONS[version])
    if not python:
        pytest.skip(f"{PYTHONS[version]} does not name a Python that has lerobot for {version}")

    def read(folder: Path):
        offline = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "home")}
        out = tmp_path / f"{folder.name}.npz"
        subprocess.run([python, READ, folder, out], check=True, env=offline)
        return np.load(out)

    return read


@VERSIONS
def test_lerobot_reads_what_was_written(version, by_lerobot, tmp_path):
    """Numbers, pictures, tasks and indices to the bit; statistics in lerobot's shapes."""
    held = episodes(pictures=True)
    exported(tmp_path / "out", version, Made(held))
    found = by_lerobot(tmp_path / "out")
    assert found["fps"] == 20
    for key, name in NAMES.items():
        rows = np.concatenate([{**e.arrays, **e.outcomes}[key] for e in held])
        expected = rows.astype(np.float32) if rows.dtype.kind == "f" else rows  # as torch does
        assert found[name].dtype == expected.dtype, name
        assert np.array_equal(found[name].reshape(rows.shape), expected), name
    assert found["task"].tolist() == [e.task for e in held for _ in range(len(e))]
    assert np.array_equal(found["index"], np.arange(15))
    assert np.array_equal(found["frame_index"], [t for e in held for t in range(len(e))])
    ends = [bool(e.success) and t == len(e) - 1 for e in held for t in range(len(e))]
    assert np.array_equal(found["next.success"].reshape(-1), ends)
    assert found["stats/observation.images.top/mean"].shape == (3, 1, 1)
    if version == "3.0":
        assert found["stats/observation.state/q99"].shape == (3,)


@VERSIONS
@pytest.mark.parametrize("kind", ["lowdim", "png"])
def test_an_exported_sample_is_the_sample_to_lerobot(kind, version, by_lerobot, tmp_path):
    """lerobot reads the same from its own data set and from the export of it."""
    folder = os.environ.get("DIFFPOLICY_SAMPLES")
    if not folder:
        pytest.skip("DIFFPOLICY_SAMPLES does not name the folder of samples")
    sample, out = Path(folder) / f"lerobot_v{version}_{kind}", tmp_path / kind
    exported(out, version, open_source(sample))
    theirs, ours = by_lerobot(sample), by_lerobot(out)
    assert set(theirs.files) == set(ours.files)
    for name in theirs.files:
        if not name.startswith("stats/"):
            assert np.array_equal(theirs[name], ours[name]), name
        elif name.split("/")[2] in ("min", "max", "mean", "std", "count"):
            assert theirs[name].shape == ours[name].shape
            if "images" not in name:  # of which lerobot takes a part
                assert np.allclose(theirs[name], ours[name], rtol=1e-6, atol=1e-9), name
