"""HDF5 files that are not trusted: opened, listed and read within bounds.

Links to other files and places, virtual and external data sets, text and objects are refused. A
data set must fit in a quarter of the memory and, compressed, be no smaller than deflate makes it,
so that a small file cannot claim a large shape.
"""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from diffpolicy.data.formats.opened import (
    LARGEST_EPISODE_BYTES,
    check_episode_bytes,
)
from diffpolicy.data.zarr_store import as_one_error
from diffpolicy.errors import DiffpolicyError

SIGNATURE = b"\x89HDF\r\n\x1a\n"
DEFLATE = 1032  # times that deflate can shrink data, at most
FREE_BYTES = 2**24  # claimed by a data set without proof
MOST_LINKS, DEEPEST = 1_000_000, 8


def is_hdf5(path: Path) -> bool:
    """True for a file with the signature of HDF5 at its start."""
    if not path.is_file():  # a pipe might never end
        return False
    try:
        with path.open("rb") as file:
            return file.read(len(SIGNATURE)) == SIGNATURE
    except OSError:
        return False


def root_names(path: Path, group: str = "") -> list[str]:
    """Names at the root of a file, or in a group there; none if it cannot be read as HDF5."""
    try:
        with open_hdf5(path) as file:
            return links(child(file, group) if group else file)
    except DiffpolicyError:
        return []


@contextmanager
def open_hdf5(path: Path) -> Iterator[Any]:
    """The root group of a file, open for reading. Errors inside name the file."""
    try:
        import h5py
    except ImportError:
        raise DiffpolicyError(
            f"reading {path} needs h5py; install it with pip install 'diffpolicy[hdf5]'"
        ) from None
    if not path.is_file():
        raise DiffpolicyError(f"{path} is not a file; expected HDF5")
    with as_one_error(path), h5py.File(path, "r") as file:
        yield file


def links(group: Any) -> list[str]:
    """Names in a group, in order; DiffpolicyError for a million or more."""
    if len(group) > MOST_LINKS:
        raise DiffpolicyError(f"{_place(group)} has {len(group):,} members, too many")
    names = list(group)
    if not all(isinstance(name, str) for name in names):  # h5py gives others as bytes
        raise DiffpolicyError(f"{_place(group)} has names that are not UTF-8; it is damaged")
    return names


def _member(group: Any, name: str) -> Any:
    """A member of a group, or None; DiffpolicyError for a link that leads out of it."""
    import h5py

    if name not in group:
        return None
    if not isinstance(group.get(name, getlink=True), h5py.HardLink):
        raise DiffpolicyError(
            f"{_place(group)}: {name!r} is a link to another place or file, which is not followed; "
            "copy the data into the file"
        )
    return group[name]


def child(group: Any, name: str) -> Any:
    """A group below a group. Raises DiffpolicyError if there is none."""
    import h5py

    found = _member(group, name)
    if not isinstance(found, h5py.Group):
        raise DiffpolicyError(f"{_place(group)} has no group {name!r}; it has: {_some(group)}")
    return found


def dataset(group: Any, name: str) -> Any:
    """A checked data set of numbers in a group, [rows, …]. Raises DiffpolicyError."""
    import h5py

    found = _member(group, name)
    if not isinstance(found, h5py.Dataset):
        raise DiffpolicyError(f"{_place(group)} has no data set {name!r}; it has: {_some(group)}")
    check_dataset(found)
    return found


def leaves(group: Any) -> dict[str, Any]:
    """All data sets below a group by name, nested ones as "a/b", each checked."""
    found = leaves_of_any_type(group)
    for data in found.values():
        check_dataset(data)
    return found


def leaves_of_any_type(group: Any, prefix: str = "", depth: int = 0) -> dict[str, Any]:
    """All data sets below a group by name; not checked, except that no link is followed."""
    import h5py

    if depth > DEEPEST:
        raise DiffpolicyError(f"{_place(group)} is nested too deeply; expected {DEEPEST} levels")
    found = {}
    for name in links(group):
        thing = _member(group, name)
        if isinstance(thing, h5py.Group):
            found |= leaves_of_any_type(thing, f"{prefix}{name}/", depth + 1)
        elif isinstance(thing, h5py.Dataset):
            found[f"{prefix}{name}"] = thing
    return found


def check_dataset(data: Any) -> None:
    """Refuse text and objects, data outside the file, and claims beyond file and memory."""
    what = _place(data)
    if data.dtype.kind not in "fiub" or data.dtype.itemsize > 8:
        raise DiffpolicyError(f"{what} must hold numbers; its type is {data.dtype}")
    check_claim(data, what)
    if not data.shape or 0 in data.shape[1:]:
        raise DiffpolicyError(f"{what} must hold rows of numbers; its shape is {data.shape}")


def check_claim(data: Any, what: str) -> None:
    """Refuse data outside the file, and claims beyond file and memory."""
    if data.external or data.is_virtual:
        raise DiffpolicyError(f"{what} lies in another file, which is not followed; copy it")
    claimed = math.prod(data.shape or (1,)) * data.dtype.itemsize
    chunk = math.prod(data.chunks or (0,)) * data.dtype.itemsize
    stored = data.id.get_storage_size()
    if claimed > FREE_BYTES + DEFLATE * stored or chunk > LARGEST_EPISODE_BYTES:
        raise DiffpolicyError(
            f"{what} claims the shape {data.shape} in {stored:,} bytes of the file; it is damaged"
        )


def rows(data: Any, start: int = 0, stop: int | None = None) -> np.ndarray:
    """Rows of a data set in the machine's byte order; at most a quarter of the memory."""
    stop = int(data.shape[0] if stop is None else stop)
    check_episode_bytes(
        (stop - start) * math.prod(data.shape[1:]) * data.dtype.itemsize, _place(data)
    )
    values = data[start:stop]
    return values.astype(values.dtype.newbyteorder("="), copy=False)


def rows_of(found: Mapping[str, Any], what: str) -> dict[str, np.ndarray]:
    """All rows of several data sets of one episode; together at most a quarter of the memory."""
    check_episode_bytes(sum(data.size * data.dtype.itemsize for data in found.values()), what)
    return {name: rows(data) for name, data in found.items()}


def text(holder: Any, name: str) -> str | None:
    """A text attribute; None if it is absent or no text."""
    value = holder.attrs[name] if name in holder.attrs else None  # noqa: SIM401, not a dict
    value = value.decode("utf-8") if isinstance(value, bytes) else value
    return value if isinstance(value, str) else None


def _place(thing: Any) -> str:
    return f"{thing.file.filename}: {thing.name}"


def _some(group: Any) -> str:
    names = links(group)
    return ", ".join(names[:20]) + (" …" if len(names) > 20 else "")
