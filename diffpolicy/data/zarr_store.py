"""Arrays of a zarr store on disk: a folder or a zip, format 2 or 3, of any origin.

Metadata are not trusted. The raw JSON is read first: codecs outside an allow-list and types that
are not numbers are refused before zarr decodes anything, consolidated metadata are never used, and
the chunks that a read needs are looked up, by name and size, before memory is allocated for them.
"""

import json
import math
import os
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from diffpolicy.data.store_files import Folder, Zip
from diffpolicy.errors import DiffpolicyError, one_line

CODECS = {  # none of them runs code of the store; imagecodecs_* are allowed too
    *("blosc", "zstd", "lz4", "gzip", "zlib", "bz2", "lzma", "pcodec", "zfpy", "base64"),
    *("shuffle", "bitround", "delta", "fixedscaleoffset", "quantize", "packbits", "astype"),
    *("crc32", "crc32c", "adler32", "fletcher32", "jenkins_lookup3"),
    *("bytes", "transpose", "sharding_indexed", "vlen-utf8", "vlen-bytes"),
}
METADATA_BYTES = 2**26  # of one JSON file
MOST_GROUPS = 10_000
MOST_ABSENT = 1_000_000  # chunks that are only the fill value
SHARE_OF_MEMORY = 0.25  # for one chunk, and for chunks that are absent
MOST_HELD = 0.5  # share of the memory for data of other formats, which are held whole
OVERHEAD_BYTES = 2**16  # by which a stored chunk may be larger than its numbers
INDEX_BYTES = 64  # more, for each chunk inside a shard


@contextmanager
def as_one_error(what: object) -> Iterator[None]:
    """Turn everything that a library raises on damaged files into one DiffpolicyError."""
    try:
        yield
    except DiffpolicyError:
        raise
    except MemoryError as error:
        raise DiffpolicyError(f"{what} cannot be read: there is not enough memory") from error
    except Exception as error:
        raise DiffpolicyError(f"{what} cannot be read: {one_line(error)}") from error


@contextmanager
def reading(what: object) -> Iterator[None]:
    """As `as_one_error`, without the warnings of zarr and its codecs."""
    with as_one_error(what), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@dataclass(frozen=True)
class ZarrStore:
    """A zarr group on disk."""

    path: Path
    files: Folder | Zip
    backing: Any  # zarr's own store

    def names(self, group: str) -> list[str]:
        """Names of the arrays below a group, such as "action" or "robot/joint"."""
        found, groups = [], [""]
        for inner in groups:
            for name in self.files.folders(f"{group}/{inner}".rstrip("/")):
                is_array = self._is_array(f"{group}/{inner}{name}")
                found += [f"{inner}{name}"] if is_array else []
                groups += [] if is_array else [f"{inner}{name}/"]
            if len(groups) > MOST_GROUPS:
                raise DiffpolicyError(f"{self.path}: {group} holds more than {MOST_GROUPS} groups")
        return sorted(found)

    def _is_array(self, key: str) -> bool:
        """True for an array, and for unreadable metadata, which the reader of the array reports."""
        try:
            return self._metadata(key) is not None
        except DiffpolicyError:
            return True

    def _json(self, key: str) -> dict[str, Any] | None:
        """A JSON object; None if there is no such file."""
        with reading(f"{self.path}: {key}"):
            size = self.files.size(key)
            if size is None:
                return None
            if size > METADATA_BYTES:
                raise DiffpolicyError(f"{self.path}: {key} has {size:,} bytes, too many for JSON")
            content = json.loads(self.files.read(key))
            if not isinstance(content, dict):
                raise DiffpolicyError(f"{self.path}: {key} cannot be read: it is not a JSON object")
            return content

    def _metadata(self, name: str) -> dict[str, Any] | None:
        """Raw metadata of an array; None if there is none."""
        metadata = self._json(f"{name}/.zarray")
        if metadata is not None:
            attributes = self._json(f"{name}/.zattrs") or {}
            return {**metadata, "zarr_format": 2, "attributes": attributes}
        metadata = self._json(f"{name}/zarr.json")
        return None if metadata is None or metadata.get("node_type") == "group" else metadata

    @cached_property
    def attributes(self) -> dict[str, Any]:
        """Attributes of the root group."""
        if self.files.size(".zgroup") is not None:
            self._json(".zgroup")
            return self._json(".zattrs") or {}
        attributes = (self._json("zarr.json") or {}).get("attributes", {})
        return attributes if isinstance(attributes, dict) else {}

    def array(self, name: str) -> Any:
        """A zarr array of numbers with checked metadata; nothing is decoded yet."""
        import zarr
        from numcodecs.errors import UnknownCodecError
        from zarr.storage import StorePath

        from diffpolicy.data.blosc import checked

        what = f"{self.path}: {name}"
        metadata: Any = self._metadata(name)
        if metadata is None:
            raise DiffpolicyError(f"{self.path} has no {name}")
        with reading(what):
            for codec in _codecs(metadata):
                if not _is_allowed(codec):
                    raise DiffpolicyError(
                        f"{what} is stored with the codec {codec!r}, which is not allowed "
                        "here; write the array again, as numbers, with blosc or zstd"
                    )
            try:
                array = zarr.Array(
                    zarr.AsyncArray(checked(metadata), StorePath(self.backing, name))
                )
            except UnknownCodecError as error:
                raise DiffpolicyError(
                    f"{what} cannot be decoded: {error}; install it (for imagecodecs_*, "
                    "pip install imagecodecs-numcodecs)"
                ) from error
            _check_form(array, what)
        return array

    def check_chunks(self, array: Any, rows: int, complete: bool) -> int:
        """Look up every chunk that the first rows need; return the number of absent ones.

        complete: an absent chunk is a loss; otherwise it stands for the fill value, if defined.
        """
        what = f"{self.path}: {array.path}"
        grid = array.shards or array.chunks
        counts = [-(-n // c) for n, c in zip((rows, *array.shape[1:]), grid, strict=True)]
        needed, absent = math.prod(counts), 0
        inner = math.prod(grid) // math.prod(array.chunks)
        largest = 2 * _bytes(array, grid) + INDEX_BYTES * inner + OVERHEAD_BYTES
        most_bytes = SHARE_OF_MEMORY * _memory_bytes()
        undefined = array.fill_value is None or array.fill_value != array.fill_value
        for i in range(needed):
            place = tuple(map(int, np.unravel_index(i, counts)))
            key = f"{array.path}/{array.metadata.encode_chunk_key(place)}"
            size = self.files.size(key)
            absent += size is None
            if size is None and (complete or undefined):
                raise DiffpolicyError(
                    f"{what} needs {needed} chunks on disk and {key} is absent; the store is "
                    "truncated: copy it again (or, if its empty chunks were left out, write it "
                    "with write_empty_chunks=True)"
                )
            if absent > MOST_ABSENT or absent * _bytes(array, grid) > most_bytes:
                raise DiffpolicyError(
                    f"{what} claims the shape {array.shape}, and most of it is not on disk"
                )
            if size is not None and size > largest:
                raise DiffpolicyError(
                    f"{what}: {key} has {size:,} bytes, a chunk of at most {largest:,} was expected"
                )
        return absent


def open_store(path: Path, writable: bool = False) -> ZarrStore:
    """Open a folder, or a zip for reading."""
    import zarr
    from zarr.storage import LocalStore, ZipStore

    if path.is_dir():
        store = ZarrStore(path, Folder(path), LocalStore(path, read_only=not writable))
    elif path.is_file() and zipfile.is_zipfile(path):
        with reading(path):
            store = ZarrStore(path, Zip(zipfile.ZipFile(path)), ZipStore(path, mode="r"))
    else:
        raise DiffpolicyError(
            f"no demonstration store at {path}: expected a zarr folder, or a zip of its content"
        )
    with reading(path):
        if all(store.files.size(name) is None for name in (".zgroup", "zarr.json")):
            raise DiffpolicyError(
                f"{path} cannot be read: No group found; expected .zgroup or zarr.json in it"
            )
        if store.attributes is not None and isinstance(store.files, Zip):
            zarr.open_group(store.backing, mode="r", use_consolidated=False)  # opens the file
    return store


def blocks(array: Any, rows: int, what: str, least_bytes: int) -> Iterator[tuple[int, np.ndarray]]:
    """(number of its first row, block) of the first rows, in whole chunks of so many bytes."""
    chunk = (array.shards or array.chunks)[0]
    chunk_bytes = chunk * math.prod(array.shape[1:]) * array.dtype.itemsize
    step = chunk * max(1, least_bytes // chunk_bytes)
    for start in range(0, rows, step):
        with reading(what):
            block = array[start : min(start + step, rows)]
        yield start, block
        del block  # before the next one is read


def check_memory(array: Any, rows: int, what: str, itemsize: int | None = None) -> None:
    """Raise DiffpolicyError for rows beyond this machine's memory.

    itemsize: bytes of a number in memory, by default as stored or as float32.
    """
    size = itemsize or max(4, array.dtype.itemsize)
    needed = rows * math.prod(array.shape[1:]) * size
    check_bytes(needed, what, f" for {rows:,} rows of {array.shape[1:]}")


def check_bytes(needed: int, what: str, detail: str = "") -> None:
    """Raise DiffpolicyError for more bytes than this machine's memory."""
    if needed > _memory_bytes():
        raise DiffpolicyError(
            f"{what} takes {needed / 2**30:,.1f} GiB{detail}; this machine has "
            f"{_memory_bytes() / 2**30:,.1f} GiB"
        )


def check_held(needed: int, path: Path) -> None:
    """Raise DiffpolicyError for more bytes than a data set of another format may take."""
    if needed > MOST_HELD * _memory_bytes():
        raise DiffpolicyError(
            f"{path} takes more than {MOST_HELD:.0%} of this machine's "
            f"{_memory_bytes() / 2**30:,.1f} GiB; convert it to a store, which is read from disk: "
            f"diffpolicy import {path} --out STORE"
        )


def _codecs(metadata: dict[str, Any]) -> Iterator[Any]:
    """Names of all codecs in raw metadata, inside shards too."""
    parts = [metadata.get(k) for k in ("filters", "compressor", "codecs", "storage_transformers")]
    while parts:
        part = parts.pop()
        if isinstance(part, dict):
            yield from (part[key] for key in ("id", "name") if key in part)
            parts += part.values()
        elif isinstance(part, list):
            yield from (inner for inner in part if isinstance(inner, str))
            parts += part


def _is_allowed(codec: Any) -> bool:
    name = str(codec).removeprefix("numcodecs.")
    return name in CODECS or name.startswith("imagecodecs_")


def _check_form(array: Any, what: str) -> None:
    """Refuse text, times and objects, arrays without numbers, and impossible chunks."""
    if array.dtype.kind not in "fiub":
        raise DiffpolicyError(f"{what} must hold numbers; its type is {array.dtype}")
    grid = array.shards or array.chunks
    if array.ndim < 1 or 0 in array.shape[1:]:
        raise DiffpolicyError(f"{what} must hold rows of numbers; its shape is {array.shape}")
    too_large = _bytes(array, grid) > SHARE_OF_MEMORY * _memory_bytes()
    if too_large or math.prod(array.shape) >= 2**63 or 0 in (*grid, *array.chunks):
        raise DiffpolicyError(
            f"{what} claims the shape {array.shape} in chunks of {grid}, which is more "
            "than a quarter of the memory a chunk, or damaged metadata"
        )


def _bytes(array: Any, shape: tuple[int, ...]) -> int:
    return math.prod(shape) * array.dtype.itemsize


def _memory_bytes() -> int:
    """Physical memory of this machine."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
