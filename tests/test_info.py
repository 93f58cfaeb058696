"""Output of `info` for a store: a line for each array, pictures in the memory of a chunk."""

import shutil
import tracemalloc

import numpy as np
import pytest
import zarr
from stores import ENDS, edit, joined, write_plainly

from diffpolicy.config import InfoConfig
from diffpolicy.info import info


def lines_of(out):
    """Each array's line by its name."""
    words = [line.split(maxsplit=1) for line in out.splitlines() if line.startswith("  data/")]
    return {name.removeprefix("data/"): rest for name, rest in words}


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_arrays_that_nobody_can_use_have_a_line_that_says_why(tmp_path, call):
    extra = {
        "text": np.full(27, "push the T"),
        "force": np.where(np.arange(27) == 7, np.nan, 1.0),
        "push": np.where(np.arange(27) == 8, np.inf, 1.0),
        "pictures": np.ones((27, 2)),
        "cut": np.ones((27, 2)),
        "longer": np.ones((28, 2)),
        "none": np.ones((27, 0)),
    }
    path = write_plainly(tmp_path / "store", {**joined(), **extra}, ENDS)
    edit(path / "data/pictures/.zarray", compressor={"id": "imagecodecs_jpegxl"})
    (path / "data/cut/0.0").write_bytes(b"")
    code, out, errors = call("info", path)
    assert (code, errors) == (0, [])
    lines = lines_of(out)
    assert set(lines) == {*extra, "action", "observation"}
    for name, reason in {
        "text": "must hold numbers; its type is <U10",
        "force": "is not finite (NaN or inf) at row 7; 1 of 27 rows are not",
        "push": "is not finite (NaN or inf) at row 8",
        "pictures": "codec not available: ''imagecodecs_jpegxl''",
        "cut": "cannot be read",
        "longer": "has 28 rows for 27 actions",
        "none": "must hold rows of numbers; its shape is (27, 0)",
    }.items():
        assert lines[name].startswith("cannot be used: ") and reason in lines[name]


def test_a_store_without_actions_of_that_name_is_listed(tmp_path, call):
    path = write_plainly(tmp_path / "store", {"actions": np.ones(27)}, ENDS)
    code, out, _ = call("info", path)
    assert code == 0
    assert lines_of(out) == {"actions": "(27,)              from 1 to 1"}
    assert "no data/action: give train the name" in out


@pytest.mark.parametrize("ending", ["", ".zip"])
def test_ranges_are_those_of_the_finished_rows(tmp_path, call, ending):
    arrays = {"action": np.arange(30.0), "joint/a": -np.arange(30)}
    path = write_plainly(tmp_path / "store", arrays, ENDS, chunks=(4,))
    shutil.make_archive(str(path), "zip", path)
    code, out, _ = call("info", f"{path}{ending}")
    assert code == 0
    assert lines_of(out)["action"].endswith("from 0 to 26")
    assert lines_of(out)["joint/a"].endswith("from -26 to 0")
    assert "3 of 30 rows lie beyond" in out


def test_pictures_are_read_a_few_chunks_at_a_time(tmp_path, capsys):
    pictures = np.zeros((600, 96, 96, 3), np.uint8)
    pictures[299] = 255
    path = write_plainly(tmp_path / "store", {"action": np.arange(600.0)}, [600])
    camera = zarr.open_group(path)["data"]
    camera.create_array("camera", data=pictures, chunks=(50, 96, 96, 3))
    assert pictures.nbytes > 15 * 2**20
    info(InfoConfig(path))  # what is imported for the first time is not counted
    tracemalloc.start()
    info(InfoConfig(path))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert "from 0 to 255" in capsys.readouterr().out
    assert peak < pictures.nbytes / 3


def test_pictures_have_their_type_and_their_memory(tmp_path, call):
    ones = np.ones((27, 96, 96, 3))
    arrays = {
        "bytes": (200 * ones).astype(np.uint8),
        "floats": (200 * ones).astype(np.float32),
        "first": np.ones((27, 3, 8, 8), np.int64),
        "depth": 1000 * ones,
        "grid": np.ones((27, 7, 9, 3)),
    }
    code, out, _ = call("info", write_plainly(tmp_path / "s", {**joined(), **arrays}, ENDS))
    assert code == 0
    found = {name: line.partition("from ")[2] for name, line in lines_of(out).items()}
    assert found["bytes"] == "200 to 200, pictures: uint8, 1 MB in memory"
    assert found["floats"] == "200 to 200, pictures: float32, held as uint8, 1 MB in memory"
    assert found["first"] == "1 to 1, pictures: int64, held as uint8, 0 MB in memory"
    assert found["depth"] == "1000 to 1000"
    assert found["grid"] == "1 to 1"


def test_a_folder_of_stores_and_runs_is_refused_with_their_names(tmp_path, tiny_run, refused):
    write_plainly(tmp_path / "quickstart/demonstrations.zarr", {"action": np.arange(3.0)}, [3])
    shutil.copytree(tiny_run, tmp_path / "quickstart/run")
    message = refused("info", str(tmp_path / "quickstart"))
    assert "quickstart/demonstrations.zarr, " in message
    assert message.endswith("quickstart/run: give one of them")
