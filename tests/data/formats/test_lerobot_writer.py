"""LeRobot data sets that are written: exact round trips, files, statistics."""

import json
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
from lerobot_sets import FACTS, Made, assert_equal, episode, episodes, exported

from diffpolicy.data.demonstration import Demonstration
from diffpolicy.data.formats import lerobot_stats as statistics
from diffpolicy.data.formats import lerobot_tables
from diffpolicy.data.formats.lerobot import open_source
from diffpolicy.errors import DiffpolicyError

VERSIONS = pytest.mark.parametrize("version", ["3.0", "2.1"])


@VERSIONS
@pytest.mark.parametrize("pictures", [False, True])
def test_a_round_trip_is_exact(version, pictures, tmp_path):
    """Names, types, shapes, outcomes, success, tasks and the attributes of the store return."""
    held = episodes(pictures)
    notes = exported(tmp_path / "out", version, Made(held))
    source = open_source(tmp_path / "out")
    assert source.attributes == FACTS
    for found, expected in zip(source.episodes(), held, strict=True):
        assert_equal(found, expected)
    assert any("robot/joint is observation.robot.joint" in note for note in notes)
    assert any("PNG" in note for note in notes) == pictures


@VERSIONS
def test_names_are_those_that_policies_look_for(version, tmp_path):
    exported(tmp_path / "out", version, Made(episodes(pictures=True)))
    info = json.loads((tmp_path / "out/meta/info.json").read_text())
    assert {n: (f["dtype"], f["shape"]) for n, f in info["features"].items()} == {
        "observation.state": ("float32", [3]),
        "observation.robot.joint": ("float64", [2, 4]),
        "observation.contacts": ("int64", [1]),
        "observation.open": ("bool", [1]),
        "action": ("float32", [2]),
        "observation.images.top": ("image", [10, 12, 3]),
        "observation.images.grey": ("image", [8, 9, 1]),
        "next.reward": ("float32", [1]),
        "next.done": ("bool", [1]),
        "next.truncated": ("bool", [1]),
        "next.success": ("bool", [1]),
        "timestamp": ("float32", [1]),
        **{n: ("int64", [1]) for n in ("frame_index", "episode_index", "index", "task_index")},
    }
    counts = (info["total_episodes"], info["total_frames"], info["total_tasks"])
    assert (info["fps"], *counts, info["splits"]) == (20, 4, 15, 3, {"train": "0:4"})


def test_files_are_limited_in_size(tmp_path, monkeypatch):
    monkeypatch.setattr(lerobot_tables, "DATA_MB", 0.002)
    monkeypatch.setattr(lerobot_tables, "CHUNK_FILES", 2)
    monkeypatch.setattr(lerobot_tables, "EPISODES_TOGETHER", 3)
    held = episodes(pictures=True)
    exported(tmp_path / "out", source=Made(held))
    files = sorted(p.relative_to(tmp_path / "out/data") for p in tmp_path.glob("out/data/*/*"))
    assert [str(f) for f in files] == [
        *("chunk-000/file-000.parquet", "chunk-000/file-001.parquet"),
        *("chunk-001/file-000.parquet", "chunk-001/file-001.parquet"),
    ]
    for found, expected in zip(open_source(tmp_path / "out").episodes(), held, strict=True):
        assert_equal(found, expected)


def test_statistics_of_a_data_set_are_those_of_all_rows(tmp_path):
    """Minimum, maximum, mean and standard deviation are exact; quantiles lie between episodes'."""
    held = episodes(pictures=True)
    exported(tmp_path / "out", source=Made(held))
    stats = json.loads((tmp_path / "out/meta/stats.json").read_text())
    rows = np.concatenate([e.arrays["observation"] for e in held]).astype(float)
    found = stats["observation.state"]
    assert found["count"] == [15]
    for name in ("min", "max", "mean", "std"):
        assert np.allclose(found[name], getattr(rows, name)(axis=0), rtol=1e-12)
    pixels = np.concatenate([e.arrays["top"].reshape(-1, 3) for e in held]) / 255
    found = stats["observation.images.top"]
    for name in ("min", "max", "mean", "std"):
        assert np.allclose(np.ravel(found[name]), getattr(pixels, name)(axis=0), rtol=1e-12)
    assert np.shape(found["q50"]) == (3, 1, 1)
    meta = pq.read_table(tmp_path / "out/meta/episodes/chunk-000/file-000.parquet")
    assert meta["stats/observation.state/q50"].to_pylist()[2] == pytest.approx(
        np.quantile(held[2].arrays["observation"].astype(float), 0.5, axis=0)
    )


def test_quantiles_of_pictures_are_levels_of_the_pixels():
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (6, 20, 30, 1), dtype=np.uint8)
    found = statistics.of_pictures(pictures)
    for name, q in statistics.QUANTILES.items():
        expected = np.quantile(pictures, q, method="inverted_cdf") / 255
        assert found[name].reshape(-1).tolist() == pytest.approx([expected] * 3)


def test_the_rate_is_a_whole_number(tmp_path):
    slow = Made(episodes(), {"control_dt_s": 0.08})
    with pytest.raises(DiffpolicyError, match=r"whole numbers.* has 12\.5; give --fps 12"):
        exported(tmp_path / "out", source=slow)
    with pytest.raises(DiffpolicyError, match="give --fps"):
        exported(tmp_path / "out", source=Made(episodes(), {}))
    with pytest.raises(DiffpolicyError, match="control_dt_s is not a positive number; got 'fast'"):
        exported(tmp_path / "out", source=Made(episodes(), {"control_dt_s": "fast"}))
    assert not (tmp_path / "out").exists()
    notes = exported(tmp_path / "out", source=slow, fps=12)
    assert "written at 12 frames per second; the control rate is 12.5 Hz" in notes


def test_numbers_are_not_named_as_pictures(tmp_path):
    """lerobot takes the statistics of every name with "image" for those of pictures."""
    arrays = {"action": np.zeros((3, 1)), "image_features": np.ones((3, 5))}
    exported(tmp_path / "out", source=Made([Demonstration(arrays)]))
    info = json.loads((tmp_path / "out/meta/info.json").read_text())
    assert "observation.img_features" in info["features"]
    assert set(next(open_source(tmp_path / "out").episodes()).arrays) == set(arrays)


def test_losses_are_named(tmp_path):
    final = {"observation": np.zeros(3, np.float32)}
    held = [episode(0, 3), episode(1, 4, success=True, name="demo_7")]
    held[1] = Demonstration(**{**vars(held[1]), "final": final})
    notes = "; ".join(exported(tmp_path / "out", source=Made(held, {**FACTS, "expert": "me"})))
    for part in (
        "the observations after the last action of 1 episodes are left out",
        "the names of 1 episodes are left out",
        "the success of 1 episodes is left out",
        "kept in meta/diffpolicy.json, which LeRobot does not read: position_targets, env_id",
        "attributes of the store: expert",
    ):
        assert part in notes


@pytest.mark.parametrize(
    ("arrays", "complaint"),
    [
        ({"a/b": np.zeros((3, 1)), "a.b": np.zeros((3, 1))}, "two arrays .* observation.a.b"),
        ({"text": np.array(["x"] * 3)}, "cannot hold text"),
        ({"six": np.zeros((3, 1, 1, 1, 1, 1, 1))}, "cannot hold six"),
    ],
)
def test_arrays_without_a_place_are_refused(arrays, complaint, tmp_path):
    held = [Demonstration({"action": np.zeros((3, 1)), **arrays})]
    with pytest.raises(DiffpolicyError, match=complaint):
        exported(tmp_path / "out", source=Made(held))


def test_episodes_must_be_alike(tmp_path):
    other = episode(1, 4)
    for arrays in ({"more": np.zeros(4)}, {"contacts": np.zeros((4, 2), int)}):
        held = [episode(0, 3), Demonstration({**other.arrays, **arrays}, other.outcomes)]
        with pytest.raises(DiffpolicyError, match="episode 1 holds"):
            exported(tmp_path / f"out{len(arrays)}{next(iter(arrays))}", source=Made(held))


def test_rewards_of_64_bits_return_exactly(tmp_path):
    made = episode(0, 5)
    made = replace(made, outcomes={**made.outcomes, "reward": np.arange(5) / 3})
    exported(tmp_path / "out", source=Made([made]))
    [found] = open_source(tmp_path / "out").episodes()
    np.testing.assert_array_equal(found.outcomes["reward"], np.arange(5) / 3, strict=True)
