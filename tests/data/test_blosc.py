"""Chunks of Blosc that are cut off or tell another length are refused before they are decoded."""

import numpy as np
import pytest
import zarr
from numcodecs import Blosc
from zarr.codecs import BloscCodec, BloscShuffle

from diffpolicy.data.zarr_store import open_store, reading
from diffpolicy.errors import DiffpolicyError

VALUES = np.arange(64.0).reshape(32, 2)


def stored(path, zarr_format, **layout):
    """A store of one array; its chunks on disk."""
    group = zarr.create_group(path, zarr_format=zarr_format)
    array = group.create_array("data/x", shape=VALUES.shape, dtype="f8", **layout)
    array[:] = VALUES
    return [p for p in (path / "data/x").rglob("*") if p.is_file() and "z" not in p.name]


def whole(path):
    """All rows of the array."""
    with reading("data/x"):
        return open_store(path).array("data/x")[:]


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("change", ["cut", "longer", "length"])
def test_a_chunk_of_another_length_is_refused(tmp_path, zarr_format, change):
    codec = Blosc("lz4") if zarr_format == 2 else BloscCodec(shuffle=BloscShuffle.shuffle)
    [chunk] = stored(tmp_path / "s", zarr_format, chunks=(32, 2), compressors=codec)
    assert np.array_equal(whole(tmp_path / "s"), VALUES)
    content = bytearray(chunk.read_bytes())
    if change == "length":
        content[12:16] = (2**31 - 1).to_bytes(4, "little")
    chunk.write_bytes({"cut": content[:-4], "longer": content + b"1234"}.get(change, content))
    with pytest.raises(DiffpolicyError, match="data/x cannot be read: a chunk tells a length of"):
        whole(tmp_path / "s")


def test_chunks_inside_shards_are_checked(tmp_path):
    codec = BloscCodec(shuffle=BloscShuffle.shuffle)
    layout = {"chunks": (8, 2), "shards": (32, 2), "compressors": codec}
    [shard] = stored(tmp_path / "s", 3, **layout)
    assert np.array_equal(whole(tmp_path / "s"), VALUES)
    content = bytearray(shard.read_bytes())
    content[12:16] = (2**31 - 1).to_bytes(4, "little")
    shard.write_bytes(content)
    with pytest.raises(DiffpolicyError, match="data/x cannot be read: a chunk tells a length of"):
        whole(tmp_path / "s")
