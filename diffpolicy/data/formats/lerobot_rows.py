"""Rows of a parquet file as numpy arrays, in order and a batch at a time.

Footers are not trusted: rows are read in batches of a bounded size, never as many as a file claims.
"""

import io
from collections.abc import Generator, Iterator, Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from diffpolicy.data.zarr_store import check_bytes, reading
from diffpolicy.errors import DiffpolicyError

BATCH_BYTES = 2**24  # of decoded rows
MOST_BATCH_ROWS = 2**16
BUFFER_BYTES = 2**20  # of a column that is being read
PICTURE_FORMATS = ("PNG", "JPEG")
MODES = {"L": 1, "RGB": 3, "RGBA": 4}  # of Pillow, 8 bit: channels


def parquet() -> Any:
    """pyarrow.parquet; DiffpolicyError without pyarrow."""
    try:
        import pyarrow.parquet
    except ModuleNotFoundError as error:
        raise DiffpolicyError(
            "LeRobot data sets need pyarrow; install it with pip install 'diffpolicy[lerobot]'"
        ) from error
    return pyarrow.parquet


def open_parquet(file: Path) -> Any:
    """A ParquetFile with a checked footer."""
    module = parquet()
    if not file.is_file():
        raise DiffpolicyError(f"{file} is not there, or is no file; copy the data set again")
    with reading(file):
        opened = module.ParquetFile(file, buffer_size=BUFFER_BYTES, pre_buffer=False)
        for i in range(opened.metadata.num_row_groups):
            check_bytes(opened.metadata.row_group(i).total_byte_size, f"{file}: row group {i}")
    return opened


def read_table(
    file: Path, names: Sequence[str], most: int, optional: Sequence[str] = ()
) -> Iterator[dict[str, Any]]:
    """Rows of the named columns as Python values, at most so many."""
    opened = open_parquet(file)
    there = [name for name in names if name in opened.schema_arrow.names or name not in optional]
    for name in there:
        if name not in opened.schema_arrow.names:
            raise DiffpolicyError(f"{file} lacks the column {name}")
    count = 0
    with reading(file):
        for batch in opened.iter_batches(1024, columns=list(there), use_threads=False):
            count += len(batch)
            if count > most:
                raise DiffpolicyError(f"{file} has more than {most:,} rows")
            columns = {name: batch.column(name).to_pylist() for name in there}
            for values in zip(*columns.values(), strict=True):
                yield dict(zip(columns, values, strict=True))


class Rows:
    """Rows of one file from row `start` on.

    shapes: {column: (dtype, shape of a row)} of numbers. pictures: {column: bytes of one decoded
    picture}; such a column is an array of objects, the compressed files.
    """

    def __init__(
        self,
        file: Path,
        numbers: Mapping[str, tuple[str, tuple[int, ...]]],
        pictures: Mapping[str, int],
        start: int = 0,
    ):
        self.file, self.numbers, self.pictures = file, numbers, pictures
        self.opened = open_parquet(file)
        check_columns(file, self.opened.schema_arrow.names, (*numbers, *pictures))
        sizes = [np.dtype(t).itemsize * prod(s) for t, s in numbers.values()]
        self.row_bytes = sum(sizes) + sum(pictures.values())
        self._batch: dict[str, np.ndarray] = {}
        self._at = self._end = 0
        self._batches = self._read(start)

    @property
    def count(self) -> int:
        """Rows that the footer claims."""
        return self.opened.metadata.num_rows

    def take(self, count: int) -> dict[str, np.ndarray]:
        """The next rows of every column, [count, …]; views where they lie in one batch."""
        parts = []
        while count:
            if self._at == self._end:
                self._next()
            stop = min(self._at + count, self._end)
            parts.append({name: v[self._at : stop] for name, v in self._batch.items()})
            count -= stop - self._at
            self._at = stop
        if len(parts) == 1:
            return parts[0]
        return {name: np.concatenate([part[name] for part in parts]) for name in self._batch}

    def close(self) -> None:
        """Close the file."""
        self._batches.close()
        self.opened.close()

    def _next(self) -> None:
        batch = next(self._batches, None)
        if batch is None:
            raise DiffpolicyError(f"{self.file} ends within an episode; copy the data set again")
        self._batch, self._at, self._end = batch, 0, len(next(iter(batch.values())))

    def _read(self, start: int) -> Generator[dict[str, np.ndarray], None, None]:
        """Batches from row `start` on; row groups before it are not read."""
        groups = range(self.opened.metadata.num_row_groups)
        ends = np.cumsum([self.opened.metadata.row_group(i).num_rows for i in groups])
        first = int(np.searchsorted(ends, start, side="right"))
        left_out = start - (int(ends[first - 1]) if first else 0)
        rows = max(1, min(MOST_BATCH_ROWS, BATCH_BYTES // max(1, self.row_bytes)))
        names = [*self.numbers, *self.pictures]
        with reading(self.file):
            for batch in self.opened.iter_batches(rows, list(groups)[first:], columns=names):
                if left_out >= len(batch):
                    left_out -= len(batch)
                    continue
                yield self._arrays(batch.slice(left_out))
                left_out = 0

    def _arrays(self, batch: Any) -> dict[str, np.ndarray]:
        found = {
            name: numbers(batch.column(name), np.dtype(dtype), shape, f"{self.file}: {name}")
            for name, (dtype, shape) in self.numbers.items()
        }
        compressed = {
            name: _objects(batch.column(name), f"{self.file}: {name}") for name in self.pictures
        }
        return found | compressed


def check_columns(file: Path, there: Sequence[str], names: Sequence[str]) -> None:
    """Raise DiffpolicyError for columns that a file lacks or holds twice."""
    for name in names:
        if there.count(name) != 1:
            count = "lacks" if name not in there else "has more than one of"
            raise DiffpolicyError(f"{file} {count} the column {name} that meta/info.json names")


def numbers(column: Any, dtype: np.dtype, shape: tuple[int, ...], what: str) -> np.ndarray:
    """A column of numbers, or of nested lists of equal lengths: [n, *shape], in the dtype."""
    n, sides = len(column), shape if shape != (1,) else ()
    column = getattr(column, "storage", column)  # of an extension type
    if hasattr(column, "values") and shape == (1,):
        sides = (1,)  # a list of one number, as some write it
    for side in sides:
        if column.null_count:
            raise DiffpolicyError(f"{what} has empty rows; expected lists of numbers")
        column = _inner(column, side, what)
    if column.null_count:
        raise DiffpolicyError(f"{what} has empty rows; expected numbers")
    values = column.to_numpy(zero_copy_only=False)
    if values.dtype.kind not in "fiub" or len(values) != n * prod(sides):
        raise DiffpolicyError(f"{what} does not hold numbers of the shape {list(shape)}")
    if values.dtype != dtype:
        if not np.can_cast(values.dtype, dtype, "same_kind"):
            raise DiffpolicyError(f"{what} holds {values.dtype}; meta/info.json says {dtype}")
        values = values.astype(dtype)
    return values.reshape(n, *shape)


def _inner(column: Any, side: int, what: str) -> Any:
    """The items of a column of lists, each of which must have so many."""
    if not hasattr(column, "values"):
        raise DiffpolicyError(f"{what} holds numbers; meta/info.json says lists of {side}")
    size = getattr(column.type, "list_size", None)
    lengths = {size} if size else set(np.diff(column.offsets.to_numpy()).tolist())
    if lengths - {side}:
        raise DiffpolicyError(f"{what} holds lists of {sorted(lengths)[:3]}; expected {side}")
    return column.flatten()


def _objects(column: Any, what: str) -> np.ndarray:
    """Compressed pictures of a column of structs {bytes, path}, or of bytes: [n] objects."""
    if column.null_count == 0 and hasattr(column, "field"):
        column = column.field("bytes")
    if column.null_count:
        raise DiffpolicyError(f"{what} names pictures in other files; expected them inside")
    found = np.empty(len(column), dtype=object)
    found[:] = column.to_pylist()
    return found


def decode(files: np.ndarray, shape: tuple[int, ...], what: str) -> np.ndarray:
    """Pictures of 8 bit from their compressed files [T]: uint8 [T, H, W, C] of that shape."""
    from PIL import Image

    pictures = np.empty((len(files), *shape), np.uint8)
    for target, content in zip(pictures, files, strict=True):
        with reading(what), Image.open(io.BytesIO(content), formats=PICTURE_FORMATS) as image:
            found = (image.height, image.width, MODES.get(image.mode, image.mode))
            if found != shape:
                raise DiffpolicyError(
                    f"{what} holds a picture {found}; expected 8 bit {shape}; --skip leaves it out"
                )
            target[:] = np.asarray(image).reshape(shape)
    return pictures
