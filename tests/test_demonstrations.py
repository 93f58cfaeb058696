"""The store: what was appended is read back, whatever crashed; what is damaged is refused."""

import itertools
import os
import shutil

import numpy as np
import pytest
import zarr

from diffpolicy import demonstrations
from diffpolicy.demonstrations import DemonstrationWriter, array_names, open_demonstrations
from diffpolicy.errors import DiffpolicyError

ATTRIBUTES = {"env_id": "Nowhere-v0", "env_kwargs": {"a": 1}, "control_dt_s": 0.1}


def episode(length, seed=0):
    rng = np.random.default_rng([length, seed])
    return {
        "observation": rng.standard_normal((length, 3), np.float32),
        "action": rng.standard_normal((length, 2), np.float32),
    }


EPISODES = [episode(5), episode(11), episode(9), episode(2)]


def write(path, episodes, attributes=ATTRIBUTES):
    writer = DemonstrationWriter(path, attributes)
    for values in episodes[len(writer.seeds) :]:
        writer.append(values, seed=100 + len(writer.seeds))
    return path


def write_plainly(path, arrays, ends, zarr_format=2):
    """A store as zarr itself would write it."""
    group = zarr.create_group(path, zarr_format=zarr_format)
    for name, values in {**arrays, "../meta/episode_ends": np.asarray(ends)}.items():
        group.create_array(os.path.normpath(f"data/{name}"), data=values)
    return path


def assert_holds(path, episodes):
    store = open_demonstrations(path)
    assert store.episode_ends.dtype == np.int64
    np.testing.assert_array_equal(
        store.episode_ends, np.cumsum([len(e["action"]) for e in episodes])
    )
    for name in episodes[0]:
        expected = np.concatenate([e[name] for e in episodes])
        np.testing.assert_array_equal(store.arrays[name], expected)


@pytest.fixture
def small_chunks(monkeypatch):
    """So small that an episode covers several, and that their borders matter."""
    monkeypatch.setattr(demonstrations, "CHUNK_ROWS", 4)
    monkeypatch.setattr(demonstrations, "END_CHUNK", 2)


# Round trips


@pytest.mark.parametrize("count", [1, 2, 4])
def test_what_was_appended_is_read_back(tmp_path, count, small_chunks):
    path = write(tmp_path / "a store ü.zarr", EPISODES[:count])
    assert_holds(path, EPISODES[:count])
    store = open_demonstrations(path)
    assert store.attributes == {"format_version": 1, **ATTRIBUTES}
    assert array_names(path) == ["action", "observation"]
    assert DemonstrationWriter(path, ATTRIBUTES).seeds == [100, 101, 102, 103][:count]


def test_a_reopened_store_goes_on_where_it_stopped(tmp_path, snapshot, small_chunks):
    for count in (1, 2, 4):
        write(tmp_path / "parts.zarr", EPISODES[:count])
    whole = write(tmp_path / "whole.zarr", EPISODES)
    assert snapshot(tmp_path / "parts.zarr") == snapshot(whole)


def test_on_disk_it_is_zarr_format_2(tmp_path):
    path = write(tmp_path / "store.zarr", EPISODES)
    for name in ("data/action", "data/observation", "meta/episode_ends"):
        assert (path / name / ".zarray").is_file()
    assert not list(path.rglob("zarr.json"))
    ends = zarr.open_group(path, mode="r", zarr_format=2)["meta/episode_ends"]
    assert ends.dtype == np.int64 and list(ends[:]) == [5, 16, 25, 27]


def test_one_episode_of_one_step_is_a_store(tmp_path):
    assert_holds(write(tmp_path / "store.zarr", [episode(1)]), [episode(1)])


def test_arrays_of_nothing_but_zeros_are_whole(tmp_path, small_chunks):
    zeros = {"observation": np.zeros((9, 2, 3), np.int64), "action": np.zeros((9, 1))}
    path = tmp_path / "store.zarr"
    DemonstrationWriter(path, {}).append(zeros, seed=0)
    DemonstrationWriter(path, {}).append(zeros, seed=1)
    assert_holds(path, [zeros, zeros])


def test_observation_joins_the_named_arrays_in_order(tmp_path):
    arrays = {"b": np.arange(12).reshape(2, 2, 3), "a": np.ones(2), "action": np.ones((2, 1))}
    store = open_demonstrations(write_plainly(tmp_path / "s", arrays, [2]), ["b", "a"])
    np.testing.assert_array_equal(
        store.observation(["b", "a"]), [[*range(6), 1], [*range(6, 12), 1]]
    )
    assert store.observation(["b"]).dtype == store.action.dtype == np.float32


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_stores_written_by_zarr_itself_are_read(tmp_path, zarr_format):
    whole = {name: np.concatenate([e[name] for e in EPISODES]) for name in EPISODES[0]}
    ends = np.cumsum([len(e["action"]) for e in EPISODES])
    assert_holds(write_plainly(tmp_path / "store", whole, ends, zarr_format), EPISODES)


def test_sharded_arrays_are_read(tmp_path):
    group = zarr.create_group(tmp_path / "store", zarr_format=3)
    for name in ("observation", "action"):
        values = np.concatenate([e[name] for e in EPISODES])
        group.create_array(f"data/{name}", data=values, chunks=(4, 1), shards=(16, 2))
    group.create_array("meta/episode_ends", data=np.array([5, 16, 25, 27]))
    assert_holds(tmp_path / "store", EPISODES)


def test_the_human_replay_buffer_opens_as_it_is(demos):
    store = open_demonstrations(demos / "pusht_human" / "pusht_cchi_v7_replay.zarr")
    assert len(store.episode_ends) == 206
    assert len(store.action) == store.episode_ends[-1] == 25_650
    assert store.arrays["state"].shape == (25_650, 5)


# Crashes


CHANGES = ("rename", "replace", "unlink", "rmdir")  # of names: files grow under temporary ones


def dies_at(operation, work):
    """Does the work in a child that dies before its n-th change of a name; False if it lived."""
    child = os.fork()
    if child == 0:
        count = itertools.count()

        def mortal(change):
            def changed(*arguments, **options):
                if next(count) == operation:
                    os._exit(9)
                return change(*arguments, **options)

            return changed

        try:
            for name in CHANGES:
                setattr(os, name, mortal(getattr(os, name)))
            work()
        except BaseException:
            os._exit(1)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, 9)
    return code == 9


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_crash_at_any_moment_of_an_append_loses_no_finished_episode(tmp_path, small_chunks):
    base = write(tmp_path / "base.zarr", EPISODES[:2])
    for n in itertools.count():
        path = shutil.copytree(base, tmp_path / f"{n}.zarr")
        died = dies_at(n, lambda path=path: write(path, EPISODES[:3]))
        finished = len(open_demonstrations(path).episode_ends)
        assert finished in ((2, 3) if died else (3,))
        assert_holds(path, EPISODES[:finished])
        write(path, EPISODES)
        assert_holds(path, EPISODES)
        assert DemonstrationWriter(path, ATTRIBUTES).seeds == [100, 101, 102, 103]
        assert not list(path.rglob("*.partial"))
        if not died:
            break
    assert n > 10


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_crash_at_any_moment_of_the_creation_leaves_a_path_that_can_be_recorded_to(
    tmp_path,
):
    for n in itertools.count():
        path = tmp_path / str(n) / "store.zarr"
        died = dies_at(n, lambda path=path: write(path, EPISODES[:1]))
        write(path, EPISODES[:1])
        assert_holds(path, EPISODES[:1])
        assert [p.name for p in path.parent.iterdir()] == ["store.zarr"]
        if not died:
            break
    assert n > 10


@pytest.mark.parametrize("failing", range(4))
@pytest.mark.parametrize("count", [0, 2])
def test_an_append_that_failed_can_be_repeated_by_the_same_writer(
    tmp_path, monkeypatch, small_chunks, failing, count
):
    """As on a full disk: room is made for an array, but nothing is written into it."""
    writer = DemonstrationWriter(write(tmp_path / "s.zarr", EPISODES[:count]), ATTRIBUTES)
    extend, calls = demonstrations._extend, itertools.count()

    def fail(array, start, values):
        if next(calls) == failing:
            array.resize((start + len(values), *array.shape[1:]))
            raise OSError
        extend(array, start, values)

    with monkeypatch.context() as patch, pytest.raises(OSError):
        patch.setattr(demonstrations, "_extend", fail)
        writer.append(EPISODES[count], 100 + count)
    for number in range(count, 4):
        writer.append(EPISODES[number], 100 + number)
    assert_holds(writer.path, EPISODES)


# What cannot be used is refused


def damage(file, kind):
    data = file.read_bytes()
    file.unlink()
    if kind != "absent":
        file.write_bytes({"empty": b"", "short": data[: len(data) // 2], "other": b"\x93[]"}[kind])


@pytest.mark.parametrize("kind", ["absent", "empty", "short", "other"])
def test_damage_to_any_file_is_refused_or_harmless(tmp_path, kind, snapshot, recwarn):
    path = write(tmp_path / "store.zarr", EPISODES)
    for name in [n for n, data in snapshot(path).items() if data is not None]:
        copy = tmp_path / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(path, copy)
        damage(copy / name, kind)
        damaged = snapshot(copy)
        try:
            open_demonstrations(copy, ["observation"])
        except DiffpolicyError:
            with pytest.raises(DiffpolicyError):
                write(copy, [*EPISODES, episode(3)])
            assert snapshot(copy) == damaged, name
        else:
            assert_holds(copy, EPISODES)
    assert not recwarn.list


def with_(**changes):
    arrays = {"observation": np.ones((4, 3)), "action": np.ones((4, 2)), "ends": [2, 4]}
    return {**arrays, **changes}


def nan_at(row, value=np.nan):
    values = np.ones((4, 2))
    values[row, 1] = value
    return values


@pytest.mark.parametrize(
    "arrays, message",
    [
        (with_(action=np.ones(4)), r"action must be \[N, D_a\]"),
        (with_(action=nan_at(2)), "data/action is not finite .* at row 2"),
        (with_(observation=nan_at(3, np.inf)), "data/observation is not finite .* at row 3"),
        (with_(observation=nan_at(1, 1e300)), "not finite .*in float32.* at row 1"),
        (with_(action=np.ones((3, 2))), r"shape \(3, 2\), but meta/episode_ends counts 4"),
        (with_(observation=np.array(["a"] * 4)), "must hold numbers"),
        (with_(ends=[]), "whole numbers|no finished episode"),
        (with_(ends=np.zeros(0, np.int64)), "no finished episode"),
        (with_(ends=[4, 2]), "must rise"),
        (with_(ends=[2, 2, 4]), "must rise"),
        (with_(ends=[-1, 4]), "must rise"),
        (with_(ends=[2, 0, 0]), "must rise"),
        (with_(ends=[2.0, 4.0]), "whole numbers"),
        (with_(ends=[[2, 4]]), "whole numbers"),
    ],
)
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_arrays_that_make_no_demonstrations_are_refused(tmp_path, arrays, message):
    ends = arrays.pop("ends")
    path = write_plainly(tmp_path / "store", arrays, ends)
    with pytest.raises(DiffpolicyError, match=message):
        open_demonstrations(path)


def test_absent_arrays_are_named(tmp_path):
    path = write(tmp_path / "store.zarr", EPISODES)
    with pytest.raises(DiffpolicyError, match="no data/camera; it holds: action, observation"):
        open_demonstrations(path, ["camera"])


@pytest.mark.parametrize(
    "values",
    [
        {"observation": np.ones((3, 3)), "action": np.ones((2, 2))},
        {"observation": np.ones((0, 3)), "action": np.ones((0, 2))},
        {"observation": np.ones((4, 3)), "action": nan_at(0)},
        {"observation": np.ones((4, 3))},
        {"observation": np.ones((4, 5)), "action": np.ones((4, 2))},
        {"observation": np.ones((4, 3)), "action": np.ones((4, 2)), "more": np.ones(4)},
        {"action": np.ones((4, 2))},
    ],
)
def test_episodes_that_do_not_fit_are_refused_and_the_store_is_untouched(
    tmp_path, values, snapshot
):
    path = write(tmp_path / "store.zarr", EPISODES)
    before = snapshot(path)
    with pytest.raises(DiffpolicyError):
        DemonstrationWriter(path, ATTRIBUTES).append(values, seed=7)
    assert snapshot(path) == before


@pytest.mark.parametrize("key, value", [("env_id", "Elsewhere-v0"), ("env_kwargs", {}), ("new", 1)])
def test_a_store_made_otherwise_is_refused_and_untouched(tmp_path, key, value, snapshot):
    path = write(tmp_path / "store.zarr", EPISODES)
    before = snapshot(path)
    with pytest.raises(DiffpolicyError, match=f"was made with {key}"):
        DemonstrationWriter(path, {**ATTRIBUTES, key: value})
    assert snapshot(path) == before


def test_a_store_recorded_elsewhere_is_not_appended_to(tmp_path, snapshot):
    path = write_plainly(tmp_path / "store", {"action": np.ones((4, 2))}, [4])
    before = snapshot(path)
    with pytest.raises(DiffpolicyError, match="was not recorded here"):
        DemonstrationWriter(path, {})
    assert snapshot(path) == before
