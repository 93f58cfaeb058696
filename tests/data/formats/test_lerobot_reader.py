"""LeRobot data sets: samples that lerobot wrote, and damaged ones."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from lerobot_sets import Made, assert_equal, episodes, exported

from diffpolicy.data.demonstrations import contents
from diffpolicy.data.formats import lerobot_checks
from diffpolicy.data.formats.lerobot import matches, open_source
from diffpolicy.data.formats.lerobot_layout import Feature
from diffpolicy.data.formats.options import SourceOptions
from diffpolicy.errors import DiffpolicyError

SAMPLES = [(version, kind) for version in ("v2.1", "v3.0") for kind in ("lowdim", "png", "mp4")]
TOP = "observation.images.top"
DATA = "data/chunk-000/file-000.parquet"


@pytest.fixture(scope="module")
def samples() -> Path:
    folder = os.environ.get("DIFFPOLICY_SAMPLES")
    if not folder:
        pytest.skip("DIFFPOLICY_SAMPLES does not name the folder of samples")
    return Path(folder)


@pytest.fixture(scope="module")
def truth(samples):
    return np.load(samples / "source.npz")


@pytest.fixture
def made(tmp_path) -> Path:
    """A small data set 3.0 of this project."""
    exported(tmp_path / "made")
    return tmp_path / "made"


@pytest.mark.parametrize(("version", "kind"), SAMPLES)
def test_a_sample_equals_its_source(version, kind, samples, truth):
    path = samples / f"lerobot_{version}_{kind}"
    assert matches(path)
    source = open_source(path)
    assert len(source) == 3
    assert source.attributes == {"control_dt_s": 0.02}
    for start in range(3):
        found = list(source.episodes(start))
        assert len(found) == 3 - start
        for i, episode in enumerate(found, start):
            steps = len(truth[f"actions_{i}"])
            arrays = episode.arrays
            assert np.array_equal(arrays["observation.state"], truth[f"observations_{i}"][:steps])
            assert np.array_equal(arrays["action"], truth[f"actions_{i}"])
            assert np.array_equal(episode.outcomes["reward"], truth[f"rewards_{i}"])
            assert episode.success == truth[f"success_{i}"].any()
            assert episode.task == "balance the pole"
            assert episode.name == f"episode_{i:06d}"
            if kind == "png":
                assert np.array_equal(arrays[TOP], truth[f"images_{i}"] // 64 * 16)


@pytest.mark.parametrize("version", ["v2.1", "v3.0"])
@pytest.mark.parametrize("start", [0, 2])
def test_frames_of_a_video_are_those_of_their_rows(version, start, samples, truth):
    source = open_source(samples / f"lerobot_{version}_mp4")
    for i, episode in enumerate(source.episodes(start), start):
        found = episode.arrays[TOP].astype(float).mean(axis=-1).reshape(len(episode), -1)
        expected = truth[f"images_{i}"].astype(float).mean(axis=-1).reshape(len(episode), -1)
        alike = np.corrcoef(found, expected)[: len(episode), len(episode) :]
        assert np.diag(alike).min() > 0.6
        assert np.abs(alike - np.diag(np.diag(alike))).max() < 0.2


@pytest.mark.parametrize("version", ["v2.1", "v3.0"])
def test_a_video_gives_the_same_frames_from_any_episode_on(version, samples):
    source = open_source(samples / f"lerobot_{version}_mp4")
    whole = [episode.arrays[TOP] for episode in source.episodes()]
    for start in (1, 2):
        for found, expected in zip(source.episodes(start), whole[start:], strict=True):
            assert np.array_equal(found.arrays[TOP], expected)


def test_version_2_0_is_read_as_2_1(tmp_path):
    exported(tmp_path / "made", "2.1")
    (tmp_path / "made/meta/episodes_stats.jsonl").rename(tmp_path / "made/meta/stats.json")
    edited("codebase_version", "v2.0")(tmp_path / "made")
    for found, expected in zip(open_source(tmp_path / "made").episodes(), episodes(), strict=True):
        assert_equal(found, expected)


@pytest.mark.parametrize(
    "kind", [pa.list_(pa.float32()), pa.large_list(pa.float32()), pa.list_(pa.float32(), 3)]
)
def test_vectors_may_be_lists_of_any_type(kind, made):
    rows = pq.read_table(made / DATA)
    place = rows.column_names.index("observation.state")
    lists = rows["observation.state"].combine_chunks().cast(kind)
    pq.write_table(rows.set_column(place, "observation.state", lists), made / DATA)
    for found, expected in zip(open_source(made).episodes(), episodes(), strict=True):
        assert_equal(found, expected)


@pytest.mark.parametrize(
    ("shape", "names", "picture"),
    [
        ((48, 64, 3), None, (48, 64, 3)),
        ((3, 48, 64), None, (48, 64, 3)),
        ((3, 48, 3), ["channels", "height", "width"], (48, 3, 3)),
        ((48, 64), None, (48, 64, 1)),
        ((48, 64, 2), None, ()),
        ((48,), None, ()),
    ],
)
def test_channels_of_a_picture_are_first_or_last(shape, names, picture):
    assert Feature("image", shape, names).picture == picture


def test_videos_need_a_decoder_or_are_skipped(samples, monkeypatch):
    monkeypatch.setattr(lerobot_checks, "is_installed", lambda: False)
    path = samples / "lerobot_v3.0_mp4"
    with pytest.raises(DiffpolicyError, match=rf"{TOP}.*'diffpolicy\[lerobot\]'.*--skip {TOP}"):
        open_source(path)
    with pytest.raises(DiffpolicyError, match=r"import .* --out STORE, with that option"):
        contents(path)  # as --data, which has no --skip
    [first, *_] = open_source(path, SourceOptions(skip=(TOP,))).episodes()
    assert set(first.arrays) == {"observation.state", "action"}


def rewritten(file: Path, change) -> None:
    """Replace a parquet file by a changed table, in row groups of three rows."""
    found = change(pq.read_table(file))
    pq.write_table(found, file, row_group_size=3)


@pytest.mark.parametrize("start", range(5))
def test_row_groups_and_files_need_not_be_those_of_episodes(made, start):
    rewritten(made / DATA, lambda rows: rows)
    meta = made / "meta/episodes/chunk-000/file-000.parquet"
    rows = pq.read_table(made / DATA)
    pq.write_table(rows[:6], made / DATA)  # episodes 0 and 1; the others move to file 7
    pq.write_table(rows[6:], made / "data/chunk-000/file-007.parquet", row_group_size=4)
    moved = pq.read_table(meta).set_column(4, "data/file_index", pa.array([0, 0, 7, 7]))
    assert moved.column_names[4] == "data/file_index"
    pq.write_table(moved[:1], meta)
    pq.write_table(moved[1:], meta.with_name("file-001.parquet"))
    found = list(open_source(made).episodes(start))
    for one, other in zip(found, episodes()[start:], strict=True):
        assert_equal(one, other)


def edited(name: str, value: object):
    def change(folder: Path) -> None:
        file = folder / "meta/info.json"
        info = json.loads(file.read_text())
        info[name] = value
        file.write_text(json.dumps(info))

    return change


def renamed(key: str, other: str):
    def change(folder: Path) -> None:
        file = folder / "meta/diffpolicy.json"
        file.write_text(file.read_text().replace(f'"{key}"', f'"{other}"'))

    return change


def column(name: str, values, file: str = DATA):
    def change(folder: Path) -> None:
        rows = pq.read_table(folder / file)
        place = rows.column_names.index(name)
        new = pa.array(values(np.array(rows[name])) if callable(values) else values)
        pq.write_table(rows.set_column(place, name, new), folder / file)

    return change


EPISODES = "meta/episodes/chunk-000/file-000.parquet"


def without(name: str):
    def change(folder: Path) -> None:
        shutil.rmtree(folder / name) if (folder / name).is_dir() else (folder / name).unlink()

    return change


DAMAGES = [
    (edited("codebase_version", "v1.6"), "expected v2.0, v2.1 or v3.0"),
    (edited("fps", 0), "fps must be positive"),
    (edited("data_path", "../{chunk_index}/{file_index}"), "leads out of the data set"),
    (edited("data_path", "/{chunk_index}/{file_index}"), "leads out of the data set"),
    (edited("data_path", "{episode_chunk:03d}"), "has a field 'episode_chunk'"),
    (edited("features", {}), "has no feature action"),
    (renamed("observation", "action"), "'action' is not the name of one array"),
    (renamed("observation", "../x"), "'../x' is not the name of one array"),
    (renamed("contacts", "reward"), "keeps another array as reward; --skip"),
    (without(DATA), "is not there"),
    (without("meta/episodes"), "lacks meta/episodes"),
    (column("frame_index", lambda v: v + 1), "does not count its frames from 0"),
    (column("episode_index", lambda v: v[::-1].copy()), "not where meta/ says"),
    (column("index", lambda v: v + 1), "--skip index"),
    (column("timestamp", lambda v: 2 * v), "--skip timestamp"),
    (column("task_index", lambda v: v + 9), "task_index 9, which meta/ does not name"),
    (column("observation.contacts", lambda v: v.astype(float)), "holds float64; .* says int64"),
    (column("observation.state", lambda v: np.arange(len(v))), "says lists of 3"),
    (column("length", [5, 1, 7, 3], EPISODES), "not as long as its range"),
    (column("dataset_to_index", [5, 6, 13, 14], EPISODES), "not as long as its range"),
    (column("episode_index", [0, 1, 1, 2], EPISODES), "in the order of their numbers"),
    (column("data/file_index", [0, 0, 0, 1], EPISODES), "holds 15 rows; meta/ counts 13"),
]


@pytest.mark.parametrize(("damage", "complaint"), DAMAGES)
def test_damage_is_one_line(made, damage, complaint):
    damage(made)
    with pytest.raises(DiffpolicyError, match=complaint) as error:
        list(open_source(made).episodes())
    assert "\n" not in str(error.value)


def test_a_check_can_be_left_out(made):
    column("timestamp", lambda v: 2 * v)(made)
    found = list(open_source(made, SourceOptions(skip=("timestamp",))).episodes())
    assert len(found) == 4
    for name in ("absent", "action", "frame_index"):
        with pytest.raises(DiffpolicyError, match=f"--skip {name}"):
            open_source(made, SourceOptions(skip=(name,)))


def test_counts_that_contradict_the_episodes_are_named(made):
    edited("total_frames", 16)(made)
    [note] = [note for note in open_source(made).notes if "16" in note]
    assert note.endswith("there are 4 and 15")


def test_facts_without_a_place_are_named(samples):
    notes = open_source(samples / "lerobot_v3.0_lowdim").notes
    assert "the names of the dimensions are not kept: observation.state, action" in notes
    assert "robot_type is not kept: 'balance'" in notes


def test_texts_are_left_out_by_name(made):
    info = json.loads((made / "meta/info.json").read_text())
    info["features"]["hint"] = {"dtype": "string", "shape": [1], "names": None}
    (made / "meta/info.json").write_text(json.dumps(info))
    source = open_source(made)
    assert "hint is left out: a store holds no string" in source.notes
    assert "hint" not in next(source.episodes()).arrays


def test_pictures_must_be_of_the_declared_size(tmp_path):
    exported(tmp_path / "made", source=Made(episodes(pictures=True)))
    info = json.loads((tmp_path / "made/meta/info.json").read_text())
    info["features"]["observation.images.top"]["shape"] = [12, 10, 3]
    (tmp_path / "made/meta/info.json").write_text(json.dumps(info))
    with pytest.raises(DiffpolicyError, match=r"a picture \(10, 12, 3\); expected 8 bit"):
        list(open_source(tmp_path / "made").episodes())
