"""Pictures of a store are held as uint8 [N, H, W, C], and anything else is refused with a line."""

import math
import tracemalloc

import numpy as np
import pytest
import zarr
from stores import ATTRIBUTES, ENDS, joined, write_plainly

from diffpolicy.data import demonstration_writer, pictures
from diffpolicy.data.demonstration_writer import DemonstrationWriter
from diffpolicy.data.demonstrations import contents, open_demonstrations
from diffpolicy.errors import DiffpolicyError
from diffpolicy.specification import picture_shape

SHAPE = (27, 10, 12, 3)


def bytes_of(shape=SHAPE, seed=0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """So small that the rows of a store are several blocks of several chunks."""
    monkeypatch.setattr(pictures, "BLOCK_BYTES", 6 * 10 * 12 * 3)


def read(tmp_path, values, rows=2, zarr_format=2):
    """The array after a round through a store that zarr itself writes, and the notes."""
    path = write_plainly(tmp_path / "s", joined(), ENDS, zarr_format)
    chunks = (rows, *values.shape[1:])
    zarr.open_group(path)["data"].create_array("camera", data=values, chunks=chunks)
    store = open_demonstrations(path, ["camera"])
    return store.arrays["camera"], store.notes


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("dtype", ["u1", "u2", "i4", "i8", "f2", "f4", "f8"])
def test_whole_numbers_are_held_as_they_are(tmp_path, dtype, channels):
    values = bytes_of((27, 10, 12, channels))
    found, notes = read(tmp_path, values.astype(dtype))
    assert found.dtype == np.uint8 and notes == ()
    np.testing.assert_array_equal(found, values)


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_channels_that_are_first_become_last(tmp_path, zarr_format):
    values = bytes_of()
    found, _ = read(tmp_path, values.transpose(0, 3, 1, 2), zarr_format=zarr_format)
    np.testing.assert_array_equal(found, values)
    assert found.flags.c_contiguous


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("known_from", [0, 13, 26])
def test_numbers_from_0_to_1_are_scaled_and_rounded_with_a_word(tmp_path, dtype, known_from):
    """Black and white rows before the first grey one are scaled too."""
    values = bytes_of() / 255
    values[:known_from] = np.rint(values[:known_from])
    found, notes = read(tmp_path, values.astype(dtype))
    np.testing.assert_array_equal(found, np.rint(255 * values))
    assert notes == ("data/camera: numbers in [0, 1] are held as uint8, round(255 x)",)


def test_rows_of_0_and_1_before_larger_numbers_are_nearly_black(tmp_path):
    values = bytes_of().astype(np.float32)
    values[:20] = np.arange(12)[:, None] % 2
    found, notes = read(tmp_path, values)
    np.testing.assert_array_equal(found, values)
    assert notes == ()


def test_black_is_a_picture(tmp_path):
    assert not read(tmp_path, np.zeros(SHAPE))[0].any()


@pytest.mark.parametrize(
    ("place", "value", "complaint"),
    [
        (20, 256, "got 256 at row 20, after whole numbers"),
        (20, 0.5, "got 0.5 at row 20, after whole numbers"),
        (0, -1, "got -1 at row 0; store it"),
        (26, np.nan, r"is not finite \(NaN or inf\) at row 26"),
        (3, np.inf, r"is not finite \(NaN or inf\) at row 3"),
    ],
)
def test_other_numbers_are_refused_with_their_row(tmp_path, place, value, complaint):
    values = bytes_of().astype(np.float32)
    values[place, 4, 5, 1] = value
    with pytest.raises(DiffpolicyError, match=complaint):
        read(tmp_path, values)


@pytest.mark.parametrize(
    ("value", "complaint"),
    [(1.5, "got 1.5 at row 20, after numbers in .0, 1."), (-0.25, "got -0.25 at row 20")],
)
def test_numbers_beyond_1_after_numbers_in_0_to_1_are_refused(tmp_path, value, complaint):
    values = bytes_of() / 256
    values[20, 4, 5, 1] = value
    with pytest.raises(DiffpolicyError, match=complaint):
        read(tmp_path, values)


@pytest.mark.parametrize("dtype", ["i2", "u2", "i8"])
def test_depth_in_integers_is_refused(tmp_path, dtype):
    values = bytes_of().astype(dtype)
    values[9] = 1500
    with pytest.raises(
        DiffpolicyError, match=r"expected whole numbers .* got 1500 at row 9, after"
    ):
        read(tmp_path, values, rows=1)


@pytest.mark.parametrize("dtype", ["f4", "?"])
def test_nothing_but_0_and_1_is_ambiguous(tmp_path, dtype):
    with pytest.raises(DiffpolicyError, match=r"nothing but 0 and 1, .* store it as uint8"):
        read(tmp_path, (bytes_of() > 127).astype(dtype))


def test_0_and_1_in_integers_are_nearly_black(tmp_path):
    found, _ = read(tmp_path, (bytes_of() > 127).astype(np.int64))
    assert found.max() == 1


@pytest.mark.parametrize(
    ("row", "shape"),
    [
        ((96, 96, 3), (96, 96, 3)),
        ((3, 96, 90), (96, 90, 3)),
        ((1, 8, 8), (8, 8, 1)),
        ((8, 9, 4), (8, 9, 4)),
        ((7, 96, 3), None),
        ((96, 96, 2), None),
        ((5, 96, 96), None),
        ((96, 96), None),
        ((2, 96, 96, 3), None),
    ],
)
def test_pictures_have_8_px_and_1_3_or_4_channels(row, shape):
    assert picture_shape(row) == shape


def test_vectors_and_actions_are_never_pictures(tmp_path):
    arrays = {"action": np.full((27, 2), 0.5), "grid": np.full(SHAPE, -7.5)}
    path = write_plainly(tmp_path / "s", arrays, ENDS)
    with pytest.raises(DiffpolicyError, match="data/grid does not hold pictures"):
        open_demonstrations(path, ["grid"])
    assert open_demonstrations(path, []).action.shape == (27, 2)


def test_depth_that_is_not_asked_for_by_name_stays_float32_with_a_word(tmp_path):
    depth = np.linspace(0.5, 2.5, math.prod(SHAPE), dtype=np.float32).reshape(SHAPE)
    arrays = {**joined(), "depth": depth, "camera": bytes_of()}
    path = write_plainly(tmp_path / "s", arrays, ENDS)
    store = open_demonstrations(path)
    assert store.arrays["camera"].dtype == np.uint8
    np.testing.assert_array_equal(store.arrays["depth"], depth)
    [note] = store.notes
    assert note.startswith("read as float32: data/depth does not hold pictures; expected")
    with pytest.raises(DiffpolicyError, match="data/depth does not hold pictures"):
        open_demonstrations(path, ["depth"])


def test_arrays_that_nobody_asked_for_are_not_read(tmp_path):
    path = write_plainly(tmp_path / "s", {**joined(), "camera": bytes_of()}, ENDS)
    for chunk in (path / "data" / "camera").glob("*.0.0.0"):
        chunk.write_bytes(b"damaged")
    assert set(open_demonstrations(path, ["observation"]).arrays) == {"observation", "action"}
    with pytest.raises(DiffpolicyError, match="data/camera cannot be read"):
        open_demonstrations(path)


@pytest.mark.parametrize("dtype", ["u1", "f4"])
def test_reading_takes_the_memory_of_the_bytes_and_of_one_block(tmp_path, monkeypatch, dtype):
    """float32 pictures are never held: of 9 MiB as uint8, blocks have 1 MiB."""
    monkeypatch.setattr(pictures, "BLOCK_BYTES", 2**20)
    values = bytes_of((1000, 56, 56, 3))
    path = write_plainly(tmp_path / "s", {"action": np.arange(1000.0)}, [1000])
    data = zarr.open_group(path)["data"]
    data.create_array("camera", data=values.astype(dtype), chunks=(20, 56, 56, 3))
    open_demonstrations(path)  # what is imported for the first time is not counted
    tracemalloc.start()
    store = open_demonstrations(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert store.arrays["camera"].nbytes == values.nbytes
    assert peak < values.nbytes + 5 * 2**20


def test_more_pictures_than_memory_are_refused_with_the_figure(tmp_path, monkeypatch):
    path = write_plainly(tmp_path / "s", {**joined(), "camera": bytes_of()}, ENDS)
    array, _ = contents(path).array("camera")
    monkeypatch.setattr("diffpolicy.data.zarr_store._memory_bytes", lambda: 27 * 10 * 12 * 3 - 1)
    with pytest.raises(DiffpolicyError, match=r"camera takes .* GiB for 27 rows .* this machine"):
        pictures.read_pictures(array, 27, "camera")


# Recorded


def episodes(lengths=(5, 11, 9, 2), channels=3):
    return [
        {
            "image": bytes_of((n, 8, 9, channels), n),
            "agent_pos": np.random.default_rng(n).standard_normal((n, 2), np.float32),
            "action": np.ones((n, 1), np.float32),
        }
        for n in lengths
    ]


def write(path, whole):
    writer = DemonstrationWriter(path, ATTRIBUTES)
    for episode in whole[len(writer.seeds) :]:
        writer.append(episode, 100 + len(writer.seeds))
    writer.close()
    return path


@pytest.mark.parametrize("chunk_bytes", [1, 5 * 8 * 9 * 3, 2**19])
def test_recorded_pictures_are_read_back_from_a_store_that_was_reopened(
    tmp_path, monkeypatch, snapshot, chunk_bytes
):
    monkeypatch.setattr(demonstration_writer, "PICTURE_CHUNK_BYTES", chunk_bytes)
    whole = write(tmp_path / "whole", episodes())
    for count in (1, 3, 4):
        path = write(tmp_path / "parts", episodes()[:count])
    assert snapshot(path) == snapshot(whole)
    store = open_demonstrations(path)
    for name in ("image", "agent_pos", "action"):
        expected = np.concatenate([e[name] for e in episodes()])
        assert store.arrays[name].dtype == expected.dtype
        np.testing.assert_array_equal(store.arrays[name], expected)


@pytest.mark.parametrize(
    ("name", "kind", "fits"),
    [
        ("image", np.float32, False),
        ("image", np.int64, False),
        ("image", np.uint16, False),
        ("agent_pos", np.float64, True),
        ("agent_pos", np.int64, True),
    ],
)
def test_an_episode_of_another_type_is_refused_if_more_than_precision_is_lost(
    tmp_path, snapshot, name, kind, fits
):
    path = write(tmp_path / "s", episodes()[:1])
    before, other = snapshot(path), {**episodes()[1], name: episodes()[1][name].astype(kind)}
    writer = DemonstrationWriter(path, ATTRIBUTES)
    if fits:
        writer.append(other)
        return
    refusal = f"holds 'image' as uint8; this episode has {kind.__name__}; give every"
    with pytest.raises(DiffpolicyError, match=refusal):
        writer.append(other)
    assert snapshot(path) == before


def test_an_unfinished_episode_of_pictures_is_overwritten(tmp_path, monkeypatch, snapshot):
    monkeypatch.setattr(demonstration_writer, "PICTURE_CHUNK_BYTES", 4 * 8 * 9 * 3)
    path = write(tmp_path / "s", episodes()[:2])
    array = zarr.open_group(path)["data/image"]
    array.resize((23, 8, 9, 3))  # as a crash leaves it, between two arrays of an episode
    array[16:] = 77
    assert len(open_demonstrations(path).arrays["image"]) == 16
    write(path, episodes())
    assert snapshot(path) == snapshot(write(tmp_path / "whole", episodes()))


def test_a_damaged_picture_keeps_the_store_from_growing(tmp_path, monkeypatch):
    monkeypatch.setattr(demonstration_writer, "PICTURE_CHUNK_BYTES", 4 * 8 * 9 * 3)
    path = write(tmp_path / "s", episodes()[:2])
    (path / "data/image/2.0.0.0").write_bytes(b"damaged")
    with pytest.raises(DiffpolicyError, match="data/image cannot be read"):
        DemonstrationWriter(path, ATTRIBUTES)


def test_pictures_have_small_chunks_in_format_2_and_vectors_the_layout_they_had(tmp_path):
    path = write(tmp_path / "s", [{**episodes()[0], "image": bytes_of((5, 96, 96, 3))}])
    image, vector = (contents(path).array(name)[0] for name in ("image", "agent_pos"))
    assert image.metadata.zarr_format == 2
    assert math.prod(image.chunks) <= 2**19 < math.prod(image.chunks) + 96 * 96 * 3
    assert image.chunks[1:] == (96, 96, 3) and image.metadata.compressor.cname == "zstd"
    assert vector.chunks == (4096, 2)
    group = zarr.create_group(tmp_path / "p", zarr_format=2)
    plain = group.create_array("x", shape=(0, 2), chunks=(4096, 2), dtype="f4")
    assert vector.metadata.compressor == plain.metadata.compressor


def test_the_human_pictures_are_those_of_the_store(demos):
    path = demos / "pusht_human" / "pusht_cchi_v7_replay.zarr"
    stored = zarr.open_group(path, mode="r")["data/img"][:200]
    source = contents(path)
    found, notes = pictures.read_pictures(source.array("img")[0], 200, "img")
    np.testing.assert_array_equal(found, stored)
    assert found.dtype == np.uint8 and notes == []
