"""Parquet and JSON files of a LeRobot data set that is being written, 3.0 or 2.1.

Both versions take an episode's table and its facts (`add`), and close with `finish`.
"""

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from diffpolicy.data.formats.lerobot_layout import Feature
from diffpolicy.data.formats.lerobot_rows import parquet
from diffpolicy.data.formats.lerobot_stats import QUANTILES, Statistics, joined

DATA_MB, VIDEO_MB, CHUNK_FILES = 100, 200, 1000
EPISODES_TOGETHER = 100  # rows of meta/episodes written together
PNG_LEVEL = 1  # of compression; more takes several times as long


def table(columns: Mapping[str, np.ndarray], features: Mapping[str, Feature]) -> Any:
    """Arrow table of the frames of one episode, with the schema of Hugging Face's datasets."""
    import pyarrow as pa

    arrays = [
        _pictures(columns[n]) if f.dtype == "image" else _numbers(columns[n], f.shape)
        for n, f in features.items()
    ]
    types = {name: _described(feature) for name, feature in features.items()}
    metadata = {"huggingface": json.dumps({"info": {"features": types}})}
    return pa.table(arrays, names=list(features)).replace_schema_metadata(metadata)


def _numbers(values: np.ndarray, shape: tuple[int, ...]) -> Any:
    """[T, *shape] as a column of numbers, of lists of a fixed length, or of nested lists."""
    import pyarrow as pa

    array: Any = pa.array(np.ascontiguousarray(values).reshape(-1))
    if len(shape) == 1:
        return array if shape == (1,) else pa.FixedSizeListArray.from_arrays(array, shape[0])
    for side in reversed(shape):
        offsets = np.arange(0, len(array) + 1, side, dtype=np.int32)
        array = pa.ListArray.from_arrays(pa.array(offsets), array)
    return array


def _pictures(pictures: np.ndarray) -> Any:
    """uint8 [T, H, W, C] as a column of structs {bytes of a PNG, no path}."""
    import pyarrow as pa

    files = pa.array([_png(picture) for picture in pictures], pa.binary())
    paths = pa.nulls(len(pictures), pa.string())
    return pa.StructArray.from_arrays([files, paths], names=["bytes", "path"])


def _png(picture: np.ndarray) -> bytes:
    from PIL import Image

    flat = picture[..., 0] if picture.shape[-1] == 1 else picture
    packed = io.BytesIO()
    Image.fromarray(flat).save(packed, "PNG", compress_level=PNG_LEVEL)
    return packed.getvalue()


def _described(feature: Feature) -> dict[str, Any]:
    """A feature in the words of Hugging Face's datasets."""
    if feature.dtype == "image":
        return {"_type": "Image"}
    value = {"dtype": feature.dtype, "_type": "Value"}
    if feature.shape == (1,):
        return value
    if len(feature.shape) == 1:
        return {"feature": value, "length": feature.shape[0], "_type": "Sequence"}
    shape = list(feature.shape)
    return {"shape": shape, "dtype": feature.dtype, "_type": f"Array{len(shape)}D"}


@dataclass(frozen=True)
class Facts:
    """Facts of one episode: its number, first row, length, task and statistics by feature."""

    number: int
    first: int
    length: int
    task: str
    statistics: dict[str, Statistics]


@dataclass
class Version3:
    """3.0: many episodes a file, looked up in meta/episodes."""

    folder: Path
    totals: dict[str, Statistics] = field(default_factory=dict)
    _data: Any = None  # ParquetWriter of the newest data file
    _file: Any = None
    _episodes: Any = None  # ParquetWriter of meta/episodes
    _place: int = -1  # number of the newest data file
    _rows: list[dict[str, Any]] = field(default_factory=list)

    def add(self, frames: Any, facts: Facts) -> None:
        """Write an episode, as one group of rows, to the newest file or the next one."""
        if self._file is None or self._file.tell() + frames.nbytes > DATA_MB * 2**20:
            self._next(frames.schema)
        self._data.write_table(frames)
        chunk, file = divmod(self._place, CHUNK_FILES)
        for name, statistics in facts.statistics.items():
            self.totals[name] = joined(self.totals.get(name), statistics)
        self._rows.append(
            {
                "episode_index": facts.number,
                "tasks": [facts.task],
                "length": facts.length,
                "data/chunk_index": chunk,
                "data/file_index": file,
                "dataset_from_index": facts.first,
                "dataset_to_index": facts.first + facts.length,
                **_flat(facts.statistics),
                "meta/episodes/chunk_index": 0,
                "meta/episodes/file_index": 0,
            }
        )
        if len(self._rows) == EPISODES_TOGETHER:
            self._write_rows()

    def _next(self, schema: Any) -> None:
        self.close()
        self._place += 1
        chunk, file = divmod(self._place, CHUNK_FILES)
        path = self.folder / f"data/chunk-{chunk:03d}/file-{file:03d}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("wb")
        self._data = parquet().ParquetWriter(self._file, schema)

    def _write_rows(self) -> None:
        import pyarrow as pa

        rows = pa.Table.from_pylist(self._rows)
        if self._episodes is None:
            path = self.folder / "meta/episodes/chunk-000/file-000.parquet"
            path.parent.mkdir(parents=True)
            self._episodes = parquet().ParquetWriter(path, rows.schema)
        self._episodes.write_table(rows)
        self._rows = []

    def close(self) -> None:
        """Complete the newest data file."""
        if self._file is not None:
            self._data.close()
            self._file.close()
            self._file = None

    def finish(self, tasks: list[str], info: dict[str, Any]) -> None:
        """Write everything that needs all episodes."""
        self.close()
        if self._rows:
            self._write_rows()
        self._episodes.close()
        _write_tasks(self.folder / "meta/tasks.parquet", tasks)
        stats = {n: {k: v.tolist() for k, v in s.items()} for n, s in self.totals.items()}
        (self.folder / "meta/stats.json").write_text(json.dumps(stats, indent=4))
        info |= {
            "codebase_version": "v3.0",
            "data_files_size_in_mb": DATA_MB,
            "video_files_size_in_mb": VIDEO_MB,
            "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
        }
        _write_info(self.folder, info)


@dataclass
class Version21:
    """2.1: one file for each episode, and JSON lines."""

    folder: Path
    _count: int = 0

    def add(self, frames: Any, facts: Facts) -> None:
        """Write an episode to a file of its own."""
        chunk, meta = facts.number // CHUNK_FILES, self.folder / "meta"
        path = self.folder / f"data/chunk-{chunk:03d}/episode_{facts.number:06d}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        meta.mkdir(exist_ok=True)
        parquet().write_table(frames, path)
        number = {"episode_index": facts.number}
        stats = {
            name: {k: v.tolist() for k, v in found.items() if k not in QUANTILES}
            for name, found in facts.statistics.items()
        }
        _append(meta / "episodes.jsonl", number | {"tasks": [facts.task], "length": facts.length})
        _append(meta / "episodes_stats.jsonl", number | {"stats": stats})
        self._count += 1

    def close(self) -> None:
        """Nothing is open between episodes."""

    def finish(self, tasks: list[str], info: dict[str, Any]) -> None:
        """Write everything that needs all episodes."""
        for number, task in enumerate(tasks):
            _append(self.folder / "meta/tasks.jsonl", {"task_index": number, "task": task})
        info |= {
            "codebase_version": "v2.1",
            "total_videos": 0,
            "total_chunks": -(-self._count // CHUNK_FILES),
            "data_path": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
        }
        _write_info(self.folder, info)


def _flat(statistics: Mapping[str, Statistics]) -> dict[str, Any]:
    """{stats/<feature>/<statistic>: list}."""
    return {
        f"stats/{name}/{kind}": values.tolist()
        for name, found in statistics.items()
        for kind, values in found.items()
    }


def _append(file: Path, line: dict[str, Any]) -> None:
    with file.open("a", encoding="utf-8") as lines:
        lines.write(json.dumps(line, ensure_ascii=False) + "\n")


def _write_info(folder: Path, info: dict[str, Any]) -> None:
    text = json.dumps(info, indent=4, ensure_ascii=False)
    (folder / "meta/info.json").write_text(text, encoding="utf-8")


def _write_tasks(file: Path, tasks: list[str]) -> None:
    """The texts as the index of a data frame of pandas, which lerobot looks numbers up in."""
    import pyarrow as pa

    kinds = {"task_index": ("int64", "int64"), "task": ("unicode", "object")}
    columns = [
        {"name": n, "field_name": n, "pandas_type": p, "numpy_type": t, "metadata": None}
        for n, (p, t) in kinds.items()
    ]
    frame = {"index_columns": ["task"], "column_indexes": [], "columns": columns}
    frame |= {"pandas_version": "2.0.0"}
    found = pa.table({"task_index": pa.array(range(len(tasks)), pa.int64()), "task": tasks})
    parquet().write_table(found.replace_schema_metadata({"pandas": json.dumps(frame)}), file)
