"""npz archives that are not trusted: members are streamed forwards, row by row.

Pickled members are refused. An archive is never unpacked as a whole, so neither a large one nor a
zip bomb takes more memory than one episode, for which a quarter of the memory is the bound.
"""

import math
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy

from diffpolicy.data.formats.opened import check_episode_bytes
from diffpolicy.data.zarr_store import reading
from diffpolicy.errors import DiffpolicyError

BLOCK_BYTES = 2**22  # skipped at once
MOST_MEMBERS = 10_000
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}


@dataclass
class Member:
    """One array of an archive: [rows, …], read forwards only."""

    what: str
    shape: tuple[int, ...]
    dtype: np.dtype
    stream: Any
    at: int = field(default=0)  # the next row

    def rows(self, start: int, stop: int) -> np.ndarray:
        """Rows `start` to `stop`; none of them before the last one that was read."""
        row_bytes = math.prod(self.shape[1:]) * self.dtype.itemsize
        if not self.at <= start <= stop <= self.shape[0]:
            raise DiffpolicyError(f"{self.what} has no rows {start} to {stop} from row {self.at}")
        check_episode_bytes((stop - start) * row_bytes, self.what)
        with reading(self.what):
            self._skip((start - self.at) * row_bytes)
            content = self.stream.read((stop - start) * row_bytes)
            self.at = stop
            values = np.frombuffer(content, self.dtype).reshape(stop - start, *self.shape[1:])
            return values.astype(self.dtype.newbyteorder("="), copy=False)

    def _skip(self, count: int) -> None:
        while count > 0:
            passed = len(self.stream.read(min(count, BLOCK_BYTES)))
            if not passed:
                raise DiffpolicyError(f"{self.what} is truncated")
            count -= passed


@contextmanager
def open_npz(path: Path, names: tuple[str, ...]) -> Iterator[dict[str, Member]]:
    """Arrays of an archive with these names; those that are no numbers are left out."""
    if not path.is_file():
        raise DiffpolicyError(f"{path} is not a file; expected an npz archive")
    with reading(path):
        archive = zipfile.ZipFile(path)
    with archive:
        found = {}
        for info in _members(archive, path):
            name = info.filename.removesuffix(".npy")
            if name in names and (member := _member(archive, info, f"{path}: {name}")):
                found[name] = member
        yield found


def names_in(path: Path) -> list[str]:
    """Names of the arrays of an archive; none if it is no archive."""
    if not path.is_file():
        return []
    try:
        with reading(path), zipfile.ZipFile(path) as archive:
            return [info.filename.removesuffix(".npy") for info in _members(archive, path)]
    except DiffpolicyError:
        return []


def _members(archive: zipfile.ZipFile, path: Path) -> list[zipfile.ZipInfo]:
    members = [info for info in archive.infolist() if info.filename.endswith(".npy")]
    if len(members) > MOST_MEMBERS or len({i.filename for i in members}) < len(members):
        raise DiffpolicyError(f"{path} has too many members, or two of one name")
    return members


def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, what: str) -> Member | None:
    """A member at its first row; None for text and objects, which are never read."""
    if info.compress_type not in METHODS or info.flag_bits & 1:
        raise DiffpolicyError(f"{what} is encrypted or in an unusual compression; expected deflate")
    with reading(what):
        stream = archive.open(info)
        version = npy.read_magic(stream)
        if version not in HEADERS:
            raise DiffpolicyError(f"{what} has version {version} of npy; expected 1.0 or 2.0")
        shape, fortran, dtype = HEADERS[version](stream)
    if dtype.kind not in "fiub" or dtype.itemsize > 8:
        return None
    if any(n < 0 for n in shape) or (fortran and len(shape) > 1):
        raise DiffpolicyError(
            f"{what} has the shape {shape} in the order of Fortran; write it with "
            "np.ascontiguousarray"
        )
    return Member(what, shape, dtype, stream)
