"""HDF5, npz, pickle and Minari files that lead elsewhere, run code or claim too much."""

import io
import json
import os
import pickle
import shutil
import sys
import zipfile
from typing import Any

import h5py
import numpy as np
import pytest
from foreign_data import samples
from PIL import Image

from diffpolicy.data.formats import adroit, arrays, d4rl, maniskill, minari, ogbench, robomimic
from diffpolicy.data.formats.options import SourceOptions
from diffpolicy.errors import DiffpolicyError

MAP = SourceOptions(map=("observation=o", "action=a", "episode_ends=e"))


def refused(module, path, options=None) -> str:
    """The one line with which opening or reading is refused."""
    with pytest.raises(DiffpolicyError) as caught:
        list(module.open_source(path, options or SourceOptions()).episodes())
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def flat(tmp_path):
    """A file in D4RL's layout, open for changes."""
    path = tmp_path / "flat.hdf5"
    with h5py.File(path, "w") as file:
        file["actions"], file["terminals"] = np.zeros((6, 2), "f4"), np.arange(6) == 5
        yield path, file


def test_links_out_of_a_file_are_not_followed(flat, tmp_path):
    path, file = flat
    with h5py.File(tmp_path / "other.h5", "w") as other:
        other["x"] = np.zeros((6, 3))
    file["observations"] = h5py.ExternalLink(str(tmp_path / "other.h5"), "x")
    file.flush()
    assert "link to another place" in refused(d4rl, path)
    del file["observations"]
    file["observations"] = h5py.SoftLink("/actions")
    file.flush()
    assert "link to another place" in refused(d4rl, path)


def test_external_and_virtual_data_are_refused(flat, tmp_path):
    path, file = flat
    secret = tmp_path / "secret"
    secret.write_bytes(bytes(6 * 8))
    kind = {"shape": (6, 1), "dtype": "f8"}
    file.create_dataset("observations", external=[(str(secret), 0, 48)], **kind)
    file.flush()
    assert "lies in another file" in refused(d4rl, path)
    del file["observations"]
    layout = h5py.VirtualLayout((6, 1), "f8")
    layout[:] = h5py.VirtualSource(str(secret), "x", (6, 1))
    file.create_virtual_dataset("observations", layout)
    file.flush()
    assert "lies in another file" in refused(d4rl, path)


def test_a_small_file_cannot_claim_a_large_array(flat):
    path, file = flat
    file.create_dataset("observations", (6, 10**9), "f8", chunks=(1, 10**6), compression="gzip")
    file.flush()
    assert "claims the shape (6, 1000000000) in 0 bytes" in refused(d4rl, path)


@pytest.mark.parametrize("values", [np.array([b"x"] * 6), np.array(["x"] * 6, object)])
def test_text_is_refused(flat, values):
    path, file = flat
    file.create_dataset("observations", data=values)
    file.flush()
    assert "must hold numbers" in refused(d4rl, path)


def test_a_circle_of_groups_ends(flat):
    path, file = flat
    file["traj_0/obs/a/x"] = np.zeros((3, 2))
    file["traj_0/obs/a/b"] = file["traj_0/obs"]
    file["traj_0/actions"] = np.zeros((3, 2))
    file.flush()
    assert "nested too deeply" in refused(maniskill, path)


@pytest.mark.parametrize("name", ["action", "reward/x", "..", ".zgroup", "a\x01b", "x" * 300])
def test_names_that_a_store_cannot_have_are_refused(tmp_path, name):
    path = tmp_path / "x.hdf5"
    with h5py.File(path, "w") as file:
        demo = file.create_group("data/demo_0")
        demo["actions"] = np.zeros((3, 2))
        place = demo.create_group("obs")
        inner = (
            h5py.h5d.create(
                place.id, name.encode(), h5py.h5t.IEEE_F64LE, h5py.h5s.create_simple((3, 1))
            )
            if "/" not in name
            else None
        )
        if inner is None:
            place[name] = np.zeros((3, 1))
    assert "rename it" in refused(robomimic, path)


def test_raw_robomimic_files_need_the_simulator(tmp_path):
    path = tmp_path / "raw.hdf5"
    with h5py.File(path, "w") as file:
        file["data/demo_0/actions"], file["data/demo_0/states"] = np.zeros((3, 2)), np.ones((3, 4))
    assert robomimic.matches(path)
    assert "no observations; they need the simulator" in refused(robomimic, path)


def npz(path, **members):
    np.savez_compressed(path, **members)
    return path


def test_pickled_members_of_an_archive_are_never_read(tmp_path):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "ran"),)

    content = {"o": np.array([Evil()], object), "a": np.zeros((2, 1)), "e": np.array([2])}
    path = npz(tmp_path / "x.npz", **content)
    assert "'o' must hold numbers" in refused(arrays, path, MAP)
    assert not (tmp_path / "ran").exists()


def test_a_zip_bomb_is_read_in_the_memory_of_an_episode(tmp_path, monkeypatch):
    ends = np.arange(1000, 40_001, 1000)
    content = {"o": np.zeros((40_000, 1000), "f4"), "a": np.zeros((40_000, 1), "f4"), "e": ends}
    path = npz(tmp_path / "x.npz", **content)
    monkeypatch.setattr("diffpolicy.data.formats.opened.LARGEST_EPISODE_BYTES", 5_000_000)
    source = arrays.open_source(path, MAP)
    assert sum(len(e) for e in source.episodes()) == 40_000
    monkeypatch.setattr("diffpolicy.data.formats.opened.LARGEST_EPISODE_BYTES", 3_999_999)
    assert "more than a quarter" in refused(arrays, path, MAP)


def test_an_archive_that_claims_more_rows_than_it_has_is_refused(tmp_path):
    path = tmp_path / "x.npz"
    with zipfile.ZipFile(path, "w") as file:
        for name, shape in (("o", (10**12, 2)), ("a", (10**12, 1)), ("e", (1,))):
            content = io.BytesIO()
            header = {"descr": "<f8", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(content, header)
            content.write(np.array([1e12]).tobytes())
            file.writestr(f"{name}.npy", content.getvalue())
    assert "more than a quarter" in refused(arrays, path, MAP)


def test_empty_arrays_and_odd_ends_are_refused(tmp_path):
    wanted = SourceOptions(map=("observation=o", "action=a", "dones=e"))
    empty = {name: np.zeros((0, 1)) for name in "oae"}
    assert "marks no row" in refused(arrays, npz(tmp_path / "x.npz", **empty), wanted)
    for odd in (np.nan, -1.0, 2.5, 1e300):
        content = {"o": np.zeros((2, 1)), "a": np.zeros((2, 1)), "e": np.array([odd])}
        told = refused(arrays, npz(tmp_path / "x.npz", **content), MAP)
        assert "must be whole numbers that increase" in told


def test_ogbench_drops_the_padded_action(tmp_path):
    terminals = np.isin(np.arange(8), (2, 3, 7)).astype("f4")
    content = {"observations": np.arange(8.0)[:, None], "actions": np.arange(8.0)[:, None]}
    path = npz(tmp_path / "x.npz", terminals=terminals, **content)
    source = ogbench.open_source(path, SourceOptions())
    actions = [list(e.arrays["action"][:, 0]) for e in source.episodes()]
    assert actions == [[0, 1], [4, 5, 6]]
    assert [float(e.final["observation"][0]) for e in source.episodes()] == [2, 7]
    assert any("1 trajectories without an action" in note for note in source.notes)


def test_misplaced_timeouts_of_d4rl_are_seen(flat):
    path, file = flat
    seen = np.arange(7.0)[:, None]
    file["observations"], file["next_observations"] = seen[:-1], seen[1:]
    file["timeouts"] = np.arange(6) == 2
    file.flush()
    source = d4rl.open_source(path, SourceOptions())
    assert [len(e) for e in source.episodes()] == [3, 3]
    assert any("1 of 1 ends lie inside a motion" in note for note in source.notes)
    assert [float(e.final["observation"][0]) for e in source.episodes()] == [3, 6]


def test_rows_after_the_last_end_are_kept_and_said(flat):
    path, file = flat
    file["observations"] = np.zeros((6, 3))
    file["terminals"][:] = np.arange(6) == 1
    file.flush()
    source = d4rl.open_source(path, SourceOptions())
    assert [len(e) for e in source.episodes()] == [2, 4]
    assert any("last 4 rows have no end" in note for note in source.notes)
    file["terminals"][:] = 0
    file.flush()
    assert "marks no row as the last" in refused(d4rl, path)


def test_a_pickle_that_runs_code_is_refused(tmp_path):
    path = tmp_path / "x.pickle"

    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "ran"),)

    path.write_bytes(pickle.dumps([{"observations": Evil(), "actions": 0}]))
    assert "asks for 'posix.mkdir'" in refused(adroit, path)
    assert not (tmp_path / "ran").exists()
    path.write_bytes(pickle.dumps([1]))
    assert "not a list of dicts" in refused(adroit, path)


@pytest.mark.parametrize(
    ("package", "module", "name", "extra"),
    [
        ("h5py", arrays, "d4rl.hdf5", "hdf5"),
        ("h5py", robomimic, "robomimic.hdf5", "hdf5"),
        ("minari", minari, "minari/diffpolicy/balance-arrow-v0", "minari"),
    ],
)
def test_an_absent_package_is_named_with_its_extra(monkeypatch, package, module, name, extra):
    monkeypatch.setitem(sys.modules, package, None)
    told = refused(module, samples() / name, MAP)
    assert told.endswith(f"needs {package}; install it with pip install 'diffpolicy[{extra}]'")


@pytest.fixture
def copied(tmp_path):
    """A copy of a sample of Minari, and a function that changes its metadata."""

    def copy(name):
        place = tmp_path / name
        shutil.copytree(samples() / "minari/diffpolicy" / name, place, copy_function=shutil.copy)
        for path in (place, *place.rglob("*")):
            path.chmod(0o755)

        def change(**values):
            path = place / "data/metadata.json"
            found = {**json.loads(path.read_text()), **values}
            path.write_text(json.dumps({k: v for k, v in found.items() if v is not None}))

        return place, change

    return copy


def test_the_environment_of_a_minari_data_set_is_never_made(copied, tmp_path):
    place, change = copied("balance-hdf5-v0")
    spec = {"id": "X-v0", "entry_point": "os:mkdir", "kwargs": {"path": str(tmp_path / "ran")}}
    spec["additional_wrappers"] = []
    change(observation_space=None, env_spec=json.dumps(spec))
    assert "has no observation_space" in refused(minari, place)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["balance-hdf5-v0", "balance-arrow-v0", "balance-parquet-v0"])
def test_a_false_count_of_episodes_is_refused(copied, name):
    place, change = copied(name)
    change(total_episodes=10**15)
    assert "counts 1000000000000000 episodes; the data hold 3" in refused(minari, place)


def test_pictures_of_another_size_than_the_space_says_are_refused(copied):
    place, _ = copied("balance-image-jpeg1-v0")
    path = place / "data/main_data.hdf5"
    content = io.BytesIO()
    Image.new("RGB", (3000, 3000)).save(content, "JPEG")
    with h5py.File(path, "r+") as file:
        pictures: Any = file["episode_0/observations/top"]
        pictures[3] = np.frombuffer(content.getvalue(), np.uint8)
    assert "picture 3 has (3000, 3000) px; expected (64, 64)" in refused(minari, place)


def test_older_files_with_plain_pictures_are_read(copied):
    place, change = copied("balance-image-jpeg0-v0")
    [expected] = minari.open_source(place, SourceOptions()).episodes()
    change(jpeg_encoding=None, minari_version="0.5.3")
    [found] = minari.open_source(place, SourceOptions()).episodes()
    assert np.array_equal(found.arrays["top"], expected.arrays["top"])


def test_a_list_of_robomimic_in_another_file_is_not_followed(tmp_path):
    shutil.copyfile(samples() / "robomimic.hdf5", tmp_path / "robomimic.hdf5")
    with h5py.File(tmp_path / "other.h5", "w") as other:
        other["names"] = np.array([b"demo_0"])
    with h5py.File(tmp_path / "robomimic.hdf5", "r+") as file:
        file["mask/outside"] = h5py.ExternalLink(str(tmp_path / "other.h5"), "names")
    options = SourceOptions(subset="outside")
    assert "link to another place" in refused(robomimic, tmp_path / "robomimic.hdf5", options)
