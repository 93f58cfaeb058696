"""Metadata of a store are not believed: no code runs, no memory is taken for what is not there."""

import os
import shutil
import signal
from pathlib import Path

import numcodecs
import numpy as np
import pytest
import zarr
from stores import ENDS, edit, joined, pipe_instead, write_plainly

from diffpolicy.data import demonstration_writer, zarr_store
from diffpolicy.data.demonstration_writer import DemonstrationWriter
from diffpolicy.data.demonstrations import open_demonstrations
from diffpolicy.errors import DiffpolicyError


@pytest.fixture(autouse=True)
def no_hang():
    """A read that waits for ever fails."""
    previous = signal.signal(signal.SIGALRM, lambda *_: pytest.fail("it waits for ever"))
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, previous)


def as_zip(path: Path) -> Path:
    return Path(shutil.make_archive(str(path), "zip", path))


def as_folder(path: Path) -> Path:
    return path


# Code


class Trap(numcodecs.abc.Codec):
    """A codec that is installed, and does more than decode."""

    codec_id = "trap"
    sprung = False

    def encode(self, buf):
        return buf

    def decode(self, buf, out=None):
        Trap.sprung = True
        return buf


@pytest.fixture
def trap():
    numcodecs.register_codec(Trap)
    Trap.sprung = False
    yield
    del numcodecs.registry.codec_registry["trap"]


@pytest.mark.parametrize("packed", [as_folder, as_zip])
@pytest.mark.parametrize("array", ["meta/episode_ends", "data/action"])
@pytest.mark.parametrize(
    "changes",
    [
        {"compressor": {"id": "trap"}},
        {"filters": [{"id": "shuffle"}, {"id": "trap"}]},
        {"compressor": None, "filters": [{"id": "trap"}], "dtype": "|O", "fill_value": None},
    ],
)
def test_a_codec_outside_of_the_list_never_decodes(tmp_path, trap, packed, array, changes):
    path = write_plainly(tmp_path / "store.zarr", joined(), ENDS)
    edit(path / array / ".zarray", **changes)
    with pytest.raises(DiffpolicyError, match=f"{array} is stored with the codec 'trap'"):
        open_demonstrations(packed(path))
    assert not Trap.sprung


BYTES = {"name": "bytes", "configuration": {"endian": "little"}}
EVIL = {"name": "numcodecs.pickle", "configuration": {}}


@pytest.mark.parametrize(
    "codecs",
    [
        [BYTES, EVIL],
        ["numcodecs.pickle"],
        *(
            [
                {
                    "name": "sharding_indexed",
                    "configuration": {
                        "chunk_shape": [27, 2],
                        "codecs": [BYTES],
                        "index_codecs": [BYTES],
                        **inner,
                    },
                }
            ]
            for inner in ({"codecs": [BYTES, EVIL]}, {"index_codecs": [BYTES, EVIL]})
        ),
    ],
)
def test_nor_does_one_of_format_3_or_inside_a_shard(tmp_path, codecs):
    path = write_plainly(tmp_path / "store.zarr", joined(), ENDS, zarr_format=3)
    edit(path / "data/action/zarr.json", codecs=codecs)
    with pytest.raises(DiffpolicyError, match=r"the codec 'numcodecs\.pickle'"):
        open_demonstrations(path)


def test_pickled_objects_are_refused(tmp_path):
    path = write_plainly(tmp_path / "store.zarr", joined(), ENDS)
    edit(path / "meta/episode_ends/.zarray", dtype="|O", filters=[{"id": "pickle"}])
    with pytest.raises(DiffpolicyError, match="the codec 'pickle'"):
        open_demonstrations(path)


@pytest.mark.parametrize(
    "codec",
    [
        *(numcodecs.Blosc(name) for name in ("lz4", "zstd", "zlib")),
        *(numcodecs.Zstd(), numcodecs.LZ4(), numcodecs.GZip(), numcodecs.Zlib(), numcodecs.BZ2()),
        *(numcodecs.LZMA(), numcodecs.CRC32(), numcodecs.Adler32(), numcodecs.Fletcher32()),
        *(numcodecs.Shuffle(4), numcodecs.Delta("<f4"), numcodecs.BitRound(20), None),
        numcodecs.Quantize(4, "<f4"),
        numcodecs.FixedScaleOffset(0, 1000, "<f4", "<i4"),
        numcodecs.AsType("<f8", "<f4"),
    ],
    ids=lambda codec: getattr(codec, "codec_id", "none"),
)
def test_usual_codecs_are_read(tmp_path, codec):
    filters = {"filters": [codec] if codec else None, "compressors": None}
    path = write_plainly(tmp_path / "store.zarr", joined(), ENDS, **filters)
    action = open_demonstrations(path).action
    np.testing.assert_allclose(action, joined()["action"], atol=1e-3)


# Claims


def recorded(path: Path, monkeypatch) -> Path:
    """A store of several chunks an array."""
    monkeypatch.setattr(demonstration_writer, "CHUNK_ROWS", 4)
    writer = DemonstrationWriter(path, {})
    for number, length in enumerate(np.diff(ENDS, prepend=0)):
        rows = np.arange(1, length + 1)[:, None]
        writer.append({"observation": rows, "action": rows}, number)
    writer.close()
    return path


@pytest.mark.parametrize("array", ["data/action", "meta/episode_ends", "meta/episode_seeds"])
@pytest.mark.parametrize(
    "claim",
    [
        {"shape": [10**12]},
        {"shape": [2 * 10**9]},
        {"shape": [10**30]},
        {"shape": [27], "chunks": [0]},
        {"shape": [27], "chunks": [10**12]},
        {"shape": [10**12], "chunks": [10**12]},
        {"shape": []},
        {"shape": [27, 0]},
        {"shape": [-1]},
        {"shape": "27"},
    ],
    ids=str,
)
def test_claims_that_the_disk_does_not_back_take_no_memory(
    tmp_path, monkeypatch, snapshot, array, claim
):
    path = recorded(tmp_path / "store", monkeypatch)
    columns = [1] if array == "data/action" else []
    changes = {key: [*v, *columns] if isinstance(v, list) else v for key, v in claim.items()}
    edit(path / array / ".zarray", **changes)
    before = snapshot(path)
    with pytest.raises(DiffpolicyError) as refusal:
        DemonstrationWriter(path, {})
    assert "allocate" not in str(refusal.value)
    assert snapshot(path) == before
    if array == "meta/episode_ends":
        with pytest.raises(DiffpolicyError):
            open_demonstrations(path)


def test_absent_chunks_of_an_unbelievable_array_are_not_filled_in(tmp_path, monkeypatch):
    monkeypatch.setattr(zarr_store, "MOST_ABSENT", 1000)
    path = write_plainly(tmp_path / "store", {**joined(), "b": np.ones((27, 1))}, ENDS)
    edit(path / "data/b/.zarray", shape=[27, 10**12], chunks=[1, 1])
    with pytest.raises(DiffpolicyError, match="most of it is not on disk"):
        open_demonstrations(path)
    edit(path / "data/b/.zarray", shape=[27, 10**13], chunks=[27, 10**6])
    with pytest.raises(DiffpolicyError, match="most of it is not on disk"):
        open_demonstrations(path)


@pytest.mark.parametrize(
    "name",
    ["data/action/0.0", "data/action/.zarray", "data/action/.zattrs", ".zattrs", ".zgroup"],
)
def test_a_pipe_in_a_file_s_place_is_not_waited_for(tmp_path, monkeypatch, name):
    path = recorded(tmp_path / "store", monkeypatch)
    pipe_instead(path / name)
    for use in (open_demonstrations, lambda path: DemonstrationWriter(path, {})):
        with pytest.raises(DiffpolicyError, match="not a regular file"):
            use(path)


def test_a_chunk_larger_than_a_chunk_can_be_is_not_read(tmp_path):
    path = write_plainly(tmp_path / "store", joined(), ENDS)
    os.truncate(path / "data/action/0.0", 10**12)
    with pytest.raises(DiffpolicyError, match="a chunk of at most"):
        open_demonstrations(path)


def test_folders_that_hold_themselves_end(tmp_path, monkeypatch):
    monkeypatch.setattr(zarr_store, "MOST_GROUPS", 100)
    path = write_plainly(tmp_path / "store", joined(), ENDS)
    for name in ("a", "b"):
        (path / "data" / name).symlink_to(path / "data", target_is_directory=True)
    with pytest.raises(DiffpolicyError, match="more than 100 groups"):
        open_demonstrations(path)


# Holes


@pytest.mark.parametrize("packed", [as_folder, as_zip])
@pytest.mark.parametrize("array", ["data/action", "data/observation", "meta/episode_ends"])
def test_the_very_chunks_of_finished_episodes_must_be_there(tmp_path, monkeypatch, array, packed):
    """Chunks beyond, of an episode that a crash left, do not make up for one."""
    monkeypatch.setattr(demonstration_writer, "END_CHUNK", 2)
    path = recorded(tmp_path / "store.zarr", monkeypatch)
    group = zarr.open_group(path)
    group["data/action"].resize((40, 1))
    group["data/observation"].resize((40, 1))
    group["data/action"][27:] = group["data/observation"][27:] = 1
    hole = next(iter(sorted((path / array).glob("1*"))))
    hole.unlink()
    with pytest.raises(DiffpolicyError, match=f"{array}/{hole.name} is absent; the store is trunc"):
        open_demonstrations(packed(path))


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_absent_chunks_of_others_are_the_fill_value(tmp_path, zarr_format):
    arrays = {**joined(), "sensor": np.zeros((27, 1), np.float32)}
    arrays["action"][:8] = 0
    chunks = {"chunks": (4, 1)}
    path = write_plainly(tmp_path / "store", arrays, ENDS, zarr_format, **chunks)
    assert not (path / "data/sensor/0.0").exists()
    store = open_demonstrations(path)
    np.testing.assert_array_equal(store.action, arrays["action"])
    assert not store.arrays["sensor"].any()
    assert store.notes == (
        "data/action: chunks that are not on disk: 4, read as 0.0, the fill value",
        "data/sensor: chunks that are not on disk: 7, read as 0.0, the fill value",
    )


@pytest.mark.parametrize("fill", [None, "NaN"])
def test_a_fill_value_that_is_no_number_makes_an_absent_chunk_a_loss(tmp_path, fill):
    path = write_plainly(tmp_path / "store", joined(), ENDS, chunks=(4, 1))
    edit(path / "data/action/.zarray", fill_value=fill)
    assert len(open_demonstrations(path).action) == 27
    (path / "data/action/3.1").unlink()
    with pytest.raises(DiffpolicyError, match=r"data/action/3\.1 is absent"):
        open_demonstrations(path)
