"""Pictures that stay on disk are the same bytes as those held in memory, wherever they are read."""

import tracemalloc

import numpy as np
import pytest
import zarr
from stores import ENDS, joined, write_plainly

from diffpolicy.data import pictures
from diffpolicy.data.demonstrations import contents, read_demonstrations
from diffpolicy.data.pictures import NotPictures
from diffpolicy.data.stored_pictures import StoredPictures
from diffpolicy.data.windows import make_windows
from diffpolicy.errors import DiffpolicyError
from diffpolicy.specification import Horizons

SHAPE = (27, 10, 12, 3)


def bytes_of(seed=0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, SHAPE, np.uint8)


FORMS = {  # as stored
    "uint8": lambda x: x,
    "int64": lambda x: x.astype(np.int64),
    "float32": lambda x: x.astype(np.float32),
    "unit": lambda x: x / 255,
    "black first": lambda x: np.where(np.arange(27)[:, None, None, None] < 9, x > 128, x / 255),
    "channels first": lambda x: x.transpose(0, 3, 1, 2),
    "channels first, unit": lambda x: x.transpose(0, 3, 1, 2) / 255,
    "black": lambda x: 0.0 * x,
}


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(pictures, "BLOCK_BYTES", 6 * 10 * 12 * 3)


def store(tmp_path, values, rows=2):
    path = write_plainly(tmp_path / "s", joined(), ENDS)
    chunks = (rows, *values.shape[1:])
    zarr.open_group(path)["data"].create_array("camera", data=values, chunks=chunks)
    return contents(path)


def both(source):
    """The pictures in memory and on disk, and their notes."""
    held = read_demonstrations(source, ["camera"])
    stored = read_demonstrations(source, ["camera"], on_disk=True)
    assert isinstance(stored.arrays["camera"], StoredPictures) and held.notes == stored.notes
    return held.arrays["camera"], stored.arrays["camera"]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("rows", [1, 4, 27])
def test_any_rows_are_those_in_memory(tmp_path, form, rows):
    held, stored = both(store(tmp_path, FORMS[form](bytes_of()), rows))
    assert (stored.shape, stored.dtype, len(stored)) == (held.shape, held.dtype, len(held))
    for index in ([3], [26, 0, 13, 13], [[5, 6], [5, 6], [25, 26]], np.arange(27)):
        found = stored[np.array(index)]
        assert found.flags.c_contiguous
        np.testing.assert_array_equal(found, held[np.array(index)], strict=True)
    np.testing.assert_array_equal(np.concatenate(list(stored.blocks())), held, strict=True)


def test_windows_are_the_same(tmp_path):
    made = [
        make_windows({"camera": x}, joined()["action"], np.array(ENDS), Horizons(3, 8, 4))
        for x in both(store(tmp_path, bytes_of()))
    ]
    assert [w.in_memory for w in made] == [True, False]
    index = np.random.default_rng(0).integers(0, 27, 64)
    (one, action, real), (other, *others) = [w.gather(index) for w in made]
    np.testing.assert_array_equal(one["camera"], other["camera"], strict=True)
    np.testing.assert_array_equal(action, others[0])
    np.testing.assert_array_equal(real, others[1])
    assert made[1].nbytes == joined()["action"].nbytes


def test_other_numbers_are_no_pictures_on_disk_either(tmp_path):
    for number, values in enumerate((bytes_of() - 1.0, (bytes_of() > 99) * 1.0)):
        source = store(tmp_path / str(number), values)
        with pytest.raises(NotPictures):
            read_demonstrations(source, ["camera"], on_disk=True)


def test_large_chunks_are_told(tmp_path, monkeypatch):
    monkeypatch.setattr("diffpolicy.data.stored_pictures.LARGE_CHUNK_BYTES", 10 * 12 * 3 * 4)
    source = store(tmp_path, bytes_of(), 5)
    [note] = read_demonstrations(source, ["camera"], on_disk=True).notes
    assert "chunks of 5 pictures" in note and "'diffpolicy import' makes small ones" in note


def test_damage_is_named_when_it_is_read(tmp_path):
    source = store(tmp_path, bytes_of())
    stored = read_demonstrations(source, ["camera"], on_disk=True).arrays["camera"]
    (tmp_path / "s/data/camera/5.0.0.0").write_bytes(b"damaged")
    stored[np.array([3])]
    with pytest.raises(DiffpolicyError, match="data/camera cannot be read"):
        stored[np.array([10])]


def test_an_array_in_memory_of_them_is_refused(tmp_path):
    _, stored = both(store(tmp_path, bytes_of()))
    with pytest.raises(DiffpolicyError, match="give a larger --picture-memory"):
        np.asarray(stored)


def test_reading_takes_the_memory_of_a_few_chunks(tmp_path, monkeypatch):
    monkeypatch.setattr(pictures, "BLOCK_BYTES", 2**20)
    values = np.zeros((400, 96, 96, 3), np.uint8)
    path = write_plainly(tmp_path / "s", {"action": np.zeros((400, 1))}, [400])
    zarr.open_group(path)["data"].create_array("camera", data=values, chunks=(16, 96, 96, 3))
    tracemalloc.start()
    stored = read_demonstrations(contents(path), ["camera"], on_disk=True).arrays["camera"]
    for block in stored.blocks():
        assert len(block) <= 48
    stored[np.array([0, 399])]
    assert tracemalloc.get_traced_memory()[1] < values.nbytes / 2
    tracemalloc.stop()
