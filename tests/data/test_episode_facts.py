"""Outcomes, final observations, success, tasks and names: kept to the bit, whatever crashed."""

import hashlib
import itertools
import json
import os
import shutil
from contextlib import closing

import numpy as np
import pytest
import zarr
from stores import ATTRIBUTES, EPISODES

from diffpolicy.data import demonstration_writer
from diffpolicy.data.demonstration import OUTCOMES, Demonstration
from diffpolicy.data.demonstration_writer import DemonstrationWriter
from diffpolicy.data.demonstrations import contents, open_demonstrations
from diffpolicy.data.episode_facts import content_hash, stored_facts
from diffpolicy.data.formats import open_source
from diffpolicy.errors import DiffpolicyError


def full(number: int, length: int | None = None, **changes) -> Demonstration:
    """An episode with everything that an episode can have."""
    length = number % 5 + 1 if length is None else length
    rng = np.random.default_rng([number, length])
    return Demonstration(
        **{
            "arrays": {
                "observation": rng.standard_normal((length, 3), np.float32),
                "robot/joint": rng.standard_normal((length, 2)),
                "camera": rng.integers(0, 256, (length, 8, 9, 3), np.uint8),
                "action": rng.standard_normal((length, 2), np.float32),
            },
            "outcomes": {
                "reward": rng.standard_normal(length),
                "terminated": np.arange(length) == length - 1,
                "truncated": np.zeros(length, bool),
            },
            "final": {
                "observation": rng.standard_normal(3, np.float32),
                "camera": rng.integers(0, 256, (8, 9, 3), np.uint8),
            },
            "success": [True, False, None][number % 3],
            "task": ["open the drawer", "", "schließe sie"][number % 3],
            "name": f"demo_{number}",
            **changes,
        }
    )


def assert_equal(found: Demonstration, expected: Demonstration):
    for kind in ("arrays", "outcomes", "final"):
        one, other = getattr(found, kind), getattr(expected, kind)
        assert set(one) == set(other)
        for name, values in one.items():
            np.testing.assert_array_equal(values, other[name], strict=True)
    for name in ("success", "task", "name"):
        assert getattr(found, name) == getattr(expected, name)


def assert_holds(path, episodes):
    found = list(open_source(path).episodes())
    assert len(found) == len(episodes)
    for one, other in zip(found, episodes, strict=True):
        assert_equal(one, other)


def write(path, episodes, at_once=1):
    with closing(DemonstrationWriter(path, ATTRIBUTES)) as writer:
        for start in range(len(writer.seeds), len(episodes), at_once):
            writer.extend(episodes[start : start + at_once])
    return path


@pytest.fixture
def small_chunks(monkeypatch):
    monkeypatch.setattr(demonstration_writer, "CHUNK_ROWS", 4)
    monkeypatch.setattr(demonstration_writer, "END_CHUNK", 3)


@pytest.mark.parametrize("at_once", [1, 2, 7, 20])
def test_what_was_appended_is_read_back(tmp_path, small_chunks, at_once):
    episodes = [full(n) for n in range(20)]
    path = write(tmp_path / "s.zarr", episodes, at_once)
    assert_holds(path, episodes)
    for start in (7, 19, 20):
        assert [e.name for e in open_source(path).episodes(start)] == [
            f"demo_{n}" for n in range(start, 20)
        ]


def test_episodes_written_at_once_and_one_by_one_make_the_same_files(
    tmp_path, small_chunks, snapshot
):
    episodes = [full(n) for n in range(13)]
    stores = [write(tmp_path / f"{n}.zarr", episodes, n) for n in (1, 4, 13)]
    one, *others = [snapshot(path) for path in stores]
    assert all(other == one for other in others)


def test_a_store_of_arrays_alone_has_the_files_it_always_had(tmp_path):
    path = write(tmp_path / "s.zarr", EPISODES)
    folders = {str(p.relative_to(path)) for p in path.rglob("*") if p.is_dir()}
    arrays = {"data/action", "data/observation", "meta/episode_ends", "meta/episode_seeds"}
    assert folders == {"data", "meta", *arrays}


def test_training_does_not_see_the_outcomes(tmp_path):
    path = write(tmp_path / "s.zarr", [full(n) for n in range(4)])
    names = ["action", "camera", "observation", "robot/joint"]
    assert contents(path).names == names and sorted(open_demonstrations(path).arrays) == names
    assert contents(path).outcomes == OUTCOMES


def test_diffusion_policys_reader_finds_arrays_of_equal_length_and_nothing_else(tmp_path):
    """Its ReplayBuffer takes every item of data/ and of meta/ for an array."""
    episodes = [full(n) for n in range(4)]
    for episode in episodes:
        episode.arrays.pop("robot/joint")
    root = zarr.open_group(write(tmp_path / "s.zarr", episodes), mode="r")
    rows = root["data/action"].shape[0]
    assert {x.shape[0] for _, x in root["data"].members()} == {rows}
    assert all(isinstance(x, zarr.Array) and x.shape[0] == 4 for _, x in root["meta"].members())


def test_each_named_episode_has_the_hash_of_its_arrays(tmp_path):
    episodes = [full(n) for n in range(3)]
    facts = stored_facts(contents(write(tmp_path / "s.zarr", episodes)).store, 3)
    assert [row.tobytes() for row in facts.hashes] == [content_hash(e) for e in episodes]
    digest = hashlib.blake2b(digest_size=16)
    action = np.zeros((2, 1), np.float32)
    digest.update(b"('action', '<f4', (2, 1))" + action.tobytes())
    assert content_hash(Demonstration({"action": action})) == digest.digest()


def test_tasks_are_stored_once(tmp_path):
    path = write(tmp_path / "s.zarr", [full(n) for n in range(12)])
    tasks = json.loads((path / ".zattrs").read_text())["tasks"]
    assert tasks == ["open the drawer", "schließe sie"]
    assert "tasks" not in open_source(path).attributes


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_crash_at_any_moment_loses_no_finished_episode(tmp_path, small_chunks):
    episodes = [full(n, length=2) for n in range(7)]
    base = write(tmp_path / "base.zarr", episodes[:2])
    counts = set()
    for n in itertools.count(step=13):
        path = shutil.copytree(base, tmp_path / f"{n}.zarr")
        died = dies_at(n, lambda path=path: write(path, episodes, 5))
        found = len(open_source(path))
        counts.add(found)
        assert_holds(path, episodes[:found])
        write(path, episodes, 2)
        assert_holds(path, episodes)
        shutil.rmtree(path)
        if not died:
            break
    assert {2, 7} <= counts


def dies_at(count, work):
    """True if a child process that did the work died at its count-th rename or replacement."""
    child = os.fork()
    if not child:
        calls = itertools.count()

        def mortal(change):
            def changed(*arguments, **options):
                if next(calls) == count:
                    os._exit(9)
                return change(*arguments, **options)

            return changed

        try:
            for name in ("replace", "rename", "mkdir", "open"):
                setattr(os, name, mortal(getattr(os, name)))
            work()
        except BaseException:
            os._exit(1)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, 9)
    return code == 9


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"final": {}}, "no final '(observation|camera)', as others of its store have"),
        ({"outcomes": {}}, "holds rows of .*reward"),
        ({"final": {"observation": np.zeros(4, np.float32)}}, r"'camera'|\[4\]; expected that of"),
        ({"final": {**full(0).final, "robot/joint": np.zeros(2)}}, "holds no final/robot/joint"),
        ({"outcomes": {**full(9, 2).outcomes, "reward": np.zeros((2, 2))}}, r"shape \[2, 2\]"),
        ({"outcomes": {**full(9, 2).outcomes, "reward": np.full(2, np.nan)}}, "not finite"),
        ({"name": "n" * 257}, "takes at most 256 bytes"),
    ],
)
def test_an_episode_unlike_the_first_one_is_refused_and_the_store_is_untouched(
    tmp_path, snapshot, change, message
):
    path = write(tmp_path / "s.zarr", [full(n) for n in range(3)])
    before = snapshot(path)
    with pytest.raises(DiffpolicyError, match=message):
        DemonstrationWriter(path, ATTRIBUTES).append(full(9, 2, **change))
    assert snapshot(path) == before


def test_facts_that_the_first_episode_lacks_are_refused(tmp_path):
    writer = DemonstrationWriter(tmp_path / "s.zarr", ATTRIBUTES)
    writer.append(EPISODES[0])
    with pytest.raises(DiffpolicyError, match="holds no meta/success, which this episode has"):
        writer.append(Demonstration(EPISODES[1], success=True))
    assert len(writer.seeds) == 1


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("meta/success", np.zeros(2, np.int8), r"must be int8 \[3\]; got int8 \[2\]"),
        ("meta/success", np.zeros(3), r"must be int8 \[3\]; got float64 \[3\]"),
        ("meta/episode_tasks", np.array([0, 1, 7]), "names tasks that tasks lacks"),
        ("meta/episode_names", np.full((3, 256), 255, np.uint8), "is not UTF-8"),
        ("final/observation", np.zeros((2, 3), np.float32), r"got float32 \[2, 3\]"),
    ],
)
def test_damaged_facts_are_refused(tmp_path, name, values, message):
    path = write(tmp_path / "s.zarr", [full(n) for n in range(3)])
    shutil.rmtree(path / name)
    zarr.open_group(path, mode="r+").create_array(name, data=values)
    with pytest.raises(DiffpolicyError, match=message):
        open_source(path)


@pytest.mark.parametrize(
    ("final", "message"), [(np.full(3, 1.5), "final 'count' is not int64"), (np.ones(3, int), None)]
)
def test_a_final_observation_is_not_rounded(tmp_path, final, message):
    arrays = {"count": np.ones((2, 3), int), "action": np.zeros((2, 1))}
    writer = DemonstrationWriter(tmp_path / "s.zarr", ATTRIBUTES)
    writer.append(Demonstration(arrays, final={"count": np.ones(3, int)}))
    if message is None:
        writer.append(Demonstration(arrays, final={"count": final}))
        return
    with pytest.raises(DiffpolicyError, match=message):
        writer.append(Demonstration(arrays, final={"count": final}))
