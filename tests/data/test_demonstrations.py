"""The store: what was appended is read back, whatever crashed; what is damaged is refused."""

import errno
import itertools
import os
import shutil
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import zarr
from stores import ATTRIBUTES, ENDS, EPISODES, edit, episode, joined, write_plainly

from diffpolicy.data import demonstration_writer
from diffpolicy.data.demonstration_writer import NO_SEED, DemonstrationWriter
from diffpolicy.data.demonstrations import contents, open_demonstrations
from diffpolicy.errors import DiffpolicyError


def write(path, episodes, attributes=ATTRIBUTES):
    writer = DemonstrationWriter(path, attributes)
    for values in episodes[len(writer.seeds) :]:
        writer.append(values, seed=100 + len(writer.seeds))
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
    monkeypatch.setattr(demonstration_writer, "CHUNK_ROWS", 4)
    monkeypatch.setattr(demonstration_writer, "END_CHUNK", 2)


# Round trips


@pytest.mark.parametrize("count", [1, 2, 4])
def test_what_was_appended_is_read_back(tmp_path, count, small_chunks):
    path = write(tmp_path / "a store ü.zarr", EPISODES[:count])
    assert_holds(path, EPISODES[:count])
    store = open_demonstrations(path)
    assert store.attributes == {"format_version": 1, **ATTRIBUTES}
    assert contents(path).names == ["action", "observation"]
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


def test_an_end_of_the_only_episode_that_is_no_regular_file_is_refused(tmp_path):
    store = write_plainly(tmp_path / "store", {"action": np.arange(3.0)}, [3])
    end = store / "meta/episode_ends/0"
    end.unlink()
    os.mkfifo(end)
    with pytest.raises(DiffpolicyError, match="episode_ends/0 is not a regular file"):
        contents(store)


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
    sharded = {"chunks": (4, 1), "shards": (16, 2)}
    assert_holds(write_plainly(tmp_path / "store", joined(), ENDS, 3, **sharded), EPISODES)
    fine = {"chunks": (1, 1), "shards": (10_000, 2)}  # the index is larger than the numbers
    assert_holds(write_plainly(tmp_path / "fine", joined(), ENDS, 3, **fine), EPISODES)


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_a_zip_of_a_store_is_read(tmp_path, zarr_format):
    path = write_plainly(tmp_path / "store.zarr", joined(), ENDS, zarr_format)
    packed = shutil.make_archive(str(path), "zip", path)
    assert_holds(packed, EPISODES)
    assert contents(packed).names == ["action", "observation"]
    with pytest.raises(DiffpolicyError, match="expected a zarr folder"):
        DemonstrationWriter(packed, {})


def test_a_zip_that_diffusion_policy_wrote_is_read():
    folder = os.environ.get("DIFFPOLICY_SAMPLES")
    if not folder:
        pytest.skip("DIFFPOLICY_SAMPLES does not name the folder of samples")
    packed, unpacked = (open_demonstrations(f"{folder}/dp.zarr{end}") for end in (".zip", ""))
    assert len(packed.episode_ends) == 3 and set(packed.arrays) == set(unpacked.arrays)
    for name, values in packed.arrays.items():
        np.testing.assert_array_equal(values, unpacked.arrays[name])


@pytest.mark.parametrize(
    "ends",
    [
        np.array(ENDS, float),
        np.array(ENDS, np.float32)[:, None],
        np.array(ENDS, np.uint32),
        np.array(ENDS)[:, None],
        np.array(ENDS, np.uint8),
    ],
)
def test_ends_may_be_a_column_floating_or_unsigned(tmp_path, ends):
    assert_holds(write_plainly(tmp_path / "store", joined(), ends), EPISODES)


def test_episodes_of_no_step_are_left_out_with_a_word(tmp_path):
    path = write_plainly(tmp_path / "store", joined(), [0, 5, 5, 5, 16, 25, 27])
    assert_holds(path, EPISODES)
    assert open_demonstrations(path).notes == ("3 episodes without steps are left out",)


@pytest.mark.parametrize(("ends", "unread"), [([5, 16], 11), ([5, 16, 25, 26], 1)])
def test_rows_beyond_the_last_end_are_left_out_with_a_word(tmp_path, ends, unread):
    store = open_demonstrations(write_plainly(tmp_path / "store", joined(), ends))
    assert len(store.action) == ends[-1]
    [note] = store.notes
    assert note.startswith(f"{unread} of 27 rows lie beyond the last of meta/episode_ends")


def test_actions_may_have_another_name_and_one_dimension(tmp_path):
    arrays = joined()
    path = write_plainly(tmp_path / "store", {"a": arrays["action"][:, 0]}, ENDS)
    store = open_demonstrations(path, (), "a")
    np.testing.assert_array_equal(store.action, arrays["action"][:, :1])
    with pytest.raises(DiffpolicyError, match=r"no data/action; it holds: a; .* with --action"):
        open_demonstrations(path, ())


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_arrays_of_nested_groups_are_named_by_their_path(tmp_path, zarr_format):
    arrays = {"robot/arm/joint": np.ones((27, 4)), "robot/hand": np.zeros(27), **joined()}
    path = write_plainly(tmp_path / "store", arrays, ENDS, zarr_format)
    assert contents(path).names == ["action", "observation", "robot/arm/joint", "robot/hand"]
    store = open_demonstrations(path, ["robot/arm/joint", "robot/hand"])
    assert store.observation(["robot/hand", "robot/arm/joint"]).shape == (27, 5)


def test_changes_that_vanish_in_float32_are_told(tmp_path):
    time_s = 1.7e9 + 0.02 * np.arange(27)
    arrays = {
        "stamp": np.stack([time_s, time_s - 1.7e9], axis=1),
        "nanoseconds": (time_s * 1e9).astype(np.int64),
        "resting": np.r_[0, 0.5 + 1e-12 * (np.arange(26) % 2)],
        "frame": np.arange(27),
        **joined(),
    }
    notes = open_demonstrations(write_plainly(tmp_path / "store", arrays, ENDS)).notes
    assert [note.partition(":")[0] for note in notes] == [
        "data/nanoseconds, dimension 0",
        "data/stamp, dimension 0",
    ]
    assert "26 of 26 changes from row to row (about 0.02) vanish in float32" in notes[1]
    assert "near 1700000000 it has steps of 128" in notes[1]


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
    extend, calls = demonstration_writer._extend, itertools.count()

    def fail(array, start, values):
        if next(calls) == failing:
            array.resize((start + len(values), *array.shape[1:]))
            raise OSError(errno.ENOSPC, "the disk is full")
        extend(array, start, values)

    with monkeypatch.context() as patch:
        patch.setattr(demonstration_writer, "_extend", fail)
        with pytest.raises(OSError, match="the disk is full"):
            writer.append(EPISODES[count], 100 + count)
    for number in range(count, 4):
        writer.append(EPISODES[number], 100 + number)
    assert_holds(writer.path, EPISODES)


# Metadata that somebody consolidated


def consolidated(path):
    zarr.consolidate_metadata(path)
    assert (path / ".zmetadata").exists()


def test_stale_consolidated_metadata_hide_no_episode_and_delete_none(tmp_path, small_chunks):
    path = write(tmp_path / "store.zarr", EPISODES[:2])
    consolidated(path)
    stale = (path / ".zmetadata").read_bytes()
    write(path, EPISODES[:3])
    (path / ".zmetadata").write_bytes(stale)
    assert_holds(path, EPISODES[:3])
    assert DemonstrationWriter(path, ATTRIBUTES).seeds == [100, 101, 102]
    assert_holds(path, EPISODES[:3])


def test_appending_after_consolidation_is_as_if_there_had_been_none(
    tmp_path, snapshot, small_chunks
):
    path = write(tmp_path / "store.zarr", EPISODES[:2])
    consolidated(path)
    write(path, EPISODES)
    assert snapshot(path) == snapshot(write(tmp_path / "whole.zarr", EPISODES))
    for use_consolidated in (None, False):
        group = zarr.open_group(path, mode="r", use_consolidated=use_consolidated)
        assert group["data/action"].shape == (27, 2)


# Two writers


def test_a_second_writer_is_refused_until_the_first_is_closed_or_gone(tmp_path):
    path = write(tmp_path / "store.zarr", EPISODES[:1])
    first = DemonstrationWriter(path, ATTRIBUTES)
    with pytest.raises(DiffpolicyError, match="is being written by another writer"):
        DemonstrationWriter(path, ATTRIBUTES)
    first.append(EPISODES[1], seed=101)
    first.close()
    DemonstrationWriter(path, ATTRIBUTES).append(EPISODES[2], seed=102)
    write(path, EPISODES)
    assert_holds(path, EPISODES)


def test_of_two_writers_that_create_a_store_one_is_refused(tmp_path):
    first, second = (DemonstrationWriter(tmp_path / "s", ATTRIBUTES) for _ in range(2))
    first.append(EPISODES[0], seed=100)
    with pytest.raises(DiffpolicyError, match="was made by another writer"):
        second.append(EPISODES[1], seed=101)
    first.append(EPISODES[1], seed=101)
    assert_holds(tmp_path / "s", EPISODES[:2])
    assert [p.name for p in tmp_path.iterdir()] == ["s"]


APPENDING = """
import sys
sys.path.insert(0, sys.argv[2])
from stores import ATTRIBUTES, EPISODES
from diffpolicy.data.demonstration_writer import NO_SEED, DemonstrationWriter
from diffpolicy.errors import DiffpolicyError
sys.stdin.read(1)
kept = 0
for _ in range(20):
    try:
        writer = DemonstrationWriter(sys.argv[1], ATTRIBUTES)
        writer.append(EPISODES[0], seed=len(writer.seeds))
        kept += 1
        writer.close()
    except (DiffpolicyError, OSError):
        pass
print(kept)
"""


def test_two_processes_that_append_at_once_lose_nothing(tmp_path):
    path = tmp_path / "store.zarr"
    arguments = [sys.executable, "-c", APPENDING, path, str(Path(__file__).parents[1])]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen(arguments, **pipes) for _ in range(2)]
    for process in processes:
        process.stdin.write("g")
        process.stdin.flush()
    kept = sum(int(process.communicate()[0]) for process in processes)
    assert kept > 1
    assert_holds(path, [EPISODES[0]] * kept)
    assert DemonstrationWriter(path, ATTRIBUTES).seeds == list(range(kept))
    assert [p.name for p in tmp_path.iterdir()] == ["store.zarr"]


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
    ("arrays", "message"),
    [
        (with_(action=np.ones((4, 2, 2))), r"action must be \[N, D_a\]"),
        (with_(action=nan_at(2)), "data/action is not finite .* at row 2"),
        (with_(observation=nan_at(3, np.inf)), "data/observation is not finite .* at row 3"),
        (with_(observation=nan_at(1, 1e300)), "not finite .*in float32.* at row 1"),
        (with_(action=np.ones((3, 2))), r"shape \(3, 2\), but meta/episode_ends counts 4"),
        (with_(observation=np.array(["a"] * 4)), "must hold numbers"),
        (with_(observation=np.ones((6, 3))), "data/observation has 6 rows for 4 actions"),
        (with_(observation=np.ones((6, 3)), ends=[2]), "has 6 rows for 4 actions"),
        (with_(observation=np.ones((4, 0))), "must hold rows of numbers"),
        (with_(ends=[]), "whole numbers|no finished episode"),
        (with_(ends=np.zeros(0, np.int64)), "no finished episode"),
        (with_(ends=[4, 2]), "must increase"),
        (with_(ends=[-1, 4]), "must increase"),
        (with_(ends=[2, 0, 0]), "must increase"),
        (with_(ends=[2, 4, 0]), "must increase"),
        (with_(ends=[2.5, 4.0]), "whole numbers"),
        (with_(ends=[2.0, np.nan]), "whole numbers"),
        (with_(ends=[2.0, np.inf]), "whole numbers"),
        (with_(ends=[2.0, 1e300]), "whole numbers"),
        (with_(ends=[[2, 4]]), "whole numbers"),
        (with_(ends=[[[2]], [[4]]]), "whole numbers"),
        (with_(ends=[True]), "whole numbers"),
        (with_(ends=np.array(["2", "4"])), "must hold numbers"),
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


@pytest.mark.parametrize(
    ("key", "value"), [("env_id", "Elsewhere-v0"), ("env_kwargs", {}), ("new", 1)]
)
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


def spoil(name, **changes):
    return lambda path: edit(path / name / ".zarray", **changes)


def replace(name, values):
    def change(path):
        shutil.rmtree(path / name)
        zarr.open_group(path, mode="r+").create_array(name, data=values)

    return change


def drop_ends(path):
    zarr.open_group(path, mode="r+")["meta/episode_ends"].resize((2,))


@pytest.mark.parametrize(
    ("damage_to", "message"),
    [
        (spoil("data/action", compressor={"id": "nowhere"}), "the codec 'nowhere'"),
        (spoil("data/action", compressor={"id": "imagecodecs_x"}), "codec not available"),
        (spoil("data/action", compressor={"id": "blosc", "cname": "evil"}), "cannot be appended"),
        (spoil("data/action", compressor=None, filters=[{"id": "pickle"}]), "the codec 'pickle'"),
        (spoil("data/action", dtype="<M8[ns]", fill_value=0), "must hold numbers"),
        (spoil("data/action", dtype="<U4", fill_value=""), "must hold numbers"),
        (spoil("data/action", shape=[10**9, 2]), "more than an unfinished episode"),
        (spoil("meta/episode_seeds", shape=[6]), "6 entries for the 4 episodes"),
        (spoil("meta/episode_seeds", shape=[3]), "3 entries for the 4 episodes"),
        (spoil("meta/episode_seeds", compressor={"id": "blosc", "cname": "e"}), "cannot be append"),
        (spoil("meta/episode_ends", compressor={"id": "blosc", "cname": "e"}), "cannot be append"),
        (replace("meta/episode_seeds", np.arange(4)[:, None]), "row of whole numbers"),
        (replace("meta/episode_seeds", np.arange(4.0)), "row of whole numbers"),
        (replace("meta/episode_seeds", -1 - np.arange(4)), "numbers from 0, or -1"),
        (replace("meta/episode_seeds", np.array(["a"] * 4)), "must hold numbers"),
        (drop_ends, "4 entries for the 2 episodes"),
        (lambda path: (path / "data/action/.zattrs").write_text("{"), "cannot be read"),
    ],
)
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_a_store_that_cannot_be_appended_to_is_refused_before_it_is_changed(
    tmp_path, snapshot, damage_to, message
):
    path = write(tmp_path / "store.zarr", EPISODES)
    damage_to(path)
    before = snapshot(path)
    with pytest.raises(DiffpolicyError, match=message):
        write(path, [*EPISODES, episode(3)])
    assert snapshot(path) == before


def test_episodes_of_foreign_data_need_no_seed(tmp_path):
    path = tmp_path / "store.zarr"
    for _ in range(2):
        with closing(DemonstrationWriter(path, ATTRIBUTES)) as writer:
            writer.append(EPISODES[0])
    assert DemonstrationWriter(path, ATTRIBUTES).seeds == [NO_SEED, NO_SEED]
    assert_holds(path, [EPISODES[0]] * 2)


def test_opening_a_store_changes_nothing(tmp_path, snapshot):
    path = write(tmp_path / "store.zarr", EPISODES)
    group = zarr.open_group(path, mode="r+")
    for name in ("action", "observation"):
        array = group[f"data/{name}"]
        array.resize((40, *array.shape[1:]))
    (path / "data/action/0.partial").write_bytes(b"half")
    consolidated(path)
    before = snapshot(path)
    assert len(DemonstrationWriter(path, ATTRIBUTES).seeds) == 4
    assert_holds(path, EPISODES)
    assert snapshot(path) == before


def test_a_store_in_format_3_is_not_appended_to(tmp_path, snapshot):
    path = write_plainly(tmp_path / "store.zarr", joined(), ENDS, zarr_format=3)
    group = zarr.open_group(path, mode="r+")
    group.create_array("meta/episode_seeds", data=np.arange(4))
    group.attrs.update({"format_version": 1, **ATTRIBUTES})
    before = snapshot(path)
    with pytest.raises(DiffpolicyError, match="is not stored as it was recorded"):
        DemonstrationWriter(path, ATTRIBUTES)
    assert snapshot(path) == before
