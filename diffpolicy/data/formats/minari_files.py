"""Files of a Minari data set, checked before its library reads an episode as a whole."""

import io
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from diffpolicy.checked import read_json
from diffpolicy.data.formats.hdf5_files import (
    check_claim,
    child,
    leaves_of_any_type,
    links,
    open_hdf5,
)
from diffpolicy.data.formats.opened import LARGEST_EPISODE_BYTES, check_episode_bytes
from diffpolicy.data.zarr_store import as_one_error
from diffpolicy.errors import DiffpolicyError

MAIN_FILE = "main_data.hdf5"
HDF5 = "hdf5"


def episodes_on_disk(folder: Path, data_format: str) -> int:
    """Number of episodes, which have the numbers from 0 on."""
    if data_format == HDF5:
        with open_hdf5(folder / MAIN_FILE) as file:
            found = {name.removeprefix("episode_") for name in links(file)}
    else:
        found = {path.name for path in folder.iterdir() if path.is_dir()}
    found = {name for name in found if name.isdecimal()}
    if found != {str(i) for i in range(len(found))}:
        raise DiffpolicyError(f"{folder} must hold the episodes 0 to {len(found) - 1} without gaps")
    return len(found)


def is_raw(folder: Path, metadata: Mapping[str, Any], space: Any) -> bool:
    """True for HDF5 with plain pictures, if the metadata do not say how they are stored."""
    if "jpeg_encoding" in metadata or metadata["data_format"] != HDF5:
        return False
    with open_hdf5(folder / MAIN_FILE) as file:
        first = leaves_of_any_type(child(file, "episode_0")) if len(file) else {}
        shapes = {name: data.shape for name, data in first.items()}
    found = [
        len(shapes.get("/".join(("observations", *name)), ())) == 1 + len(picture.shape)
        for name, picture in pictures(space)
    ]
    return bool(found) and all(found)


def pictures(space: Any, name: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """(name, space) of the pictures in a space, as the library recognises them."""
    from gymnasium import spaces
    from minari.dataset.minari_storage import is_image_space

    if isinstance(space, spaces.Dict):
        for key, part in space.spaces.items():
            yield from pictures(part, (*name, key))
    elif isinstance(space, spaces.Tuple):
        for i, part in enumerate(space.spaces):
            yield from pictures(part, (*name, f"_index_{i}"))
    elif is_image_space(space):
        yield name, space


def check_episode(folder: Path, number: int, storage: Any) -> int | None:
    """T of an episode, if the metadata say it.

    Raises DiffpolicyError for an episode that takes more memory than it should.
    """
    what = f"{folder}: episode {number}"
    with as_one_error(what):
        if storage.FORMAT != HDF5:
            return _checked_files(folder / str(number), storage, what)
        with open_hdf5(folder / MAIN_FILE) as file:
            _check_group(child(file, f"episode_{number}"), storage, what)
    return None


def _check_group(group: Any, storage: Any, what: str) -> None:
    sizes, packed = 0, dict(pictures(storage.observation_space))
    found = leaves_of_any_type(group)
    for name, data in found.items():
        check_claim(data, f"{what}: {name}")
        sizes += math.prod(data.shape or (1,)) * data.dtype.itemsize
        picture = packed.get(tuple(name.split("/")[1:]))
        if storage.jpeg_encoding and picture is not None and name.startswith("observations/"):
            sizes += len(data) * _check_jpegs(data, picture, f"{what}: {name}")
        elif data.dtype.kind == "O":
            sizes += _heap_bytes(data)
    check_episode_bytes(sizes, what)


def _check_jpegs(data: Any, space: Any, what: str) -> int:
    """Bytes of a picture; DiffpolicyError if one has another shape than its space."""
    from PIL import Image

    height, width = space.shape[:2]
    for i in range(len(data)):
        with Image.open(io.BytesIO(data[i].tobytes()), formats=("JPEG",)) as picture:
            if picture.size != (width, height):
                raise DiffpolicyError(
                    f"{what}: picture {i} has {picture.size} px; expected {(width, height)}"
                )
    return math.prod(space.shape)


def _heap_bytes(data: Any) -> int:
    """Bytes of texts and of rows of varying length, which may all be the same one in the file."""
    total = 0
    for i in range(math.prod(data.shape or (0,)) and data.shape[0]):
        row = data[i]
        total += len(row) if hasattr(row, "__len__") else 0
        if total > LARGEST_EPISODE_BYTES:
            break
    return total


def _checked_files(folder: Path, storage: Any, what: str) -> int:
    import pyarrow.dataset

    files = [path for path in folder.iterdir() if path.name != "metadata.json"]
    if not files or not all(path.is_file() for path in files):
        raise DiffpolicyError(f"{folder} must hold files of {storage.FORMAT}")
    facts = read_json(folder / "metadata.json")
    steps = facts.get("total_steps") if isinstance(facts, dict) else None
    content = pyarrow.dataset.dataset([str(path) for path in files], format=storage.FORMAT)
    if type(steps) is not int or content.count_rows() != steps + 1:
        raise DiffpolicyError(f"{what} must have {steps!r} steps and a row more in {files[0].name}")
    row = sum(_space_bytes(s) for s in (storage.observation_space, storage.action_space))
    check_episode_bytes((steps + 1) * row + sum(path.stat().st_size for path in files), what)
    return steps


def _space_bytes(space: Any) -> int:
    parts = getattr(space, "spaces", None)
    if parts is not None:
        return sum(_space_bytes(x) for x in (parts.values() if hasattr(parts, "values") else parts))
    return math.prod(space.shape or (1,)) * (space.dtype.itemsize if space.dtype else 1)
