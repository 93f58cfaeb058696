"""Episodes and tasks of a LeRobot data set, and the files that hold them.

2.0 and 2.1 keep one file for each episode, and JSON lines; 3.0 keeps many episodes in a file, and
looks the file up in meta/episodes.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from diffpolicy.checked import parse_json, shown
from diffpolicy.data.formats.lerobot_layout import Info, is_v3
from diffpolicy.data.formats.lerobot_rows import open_parquet, read_table
from diffpolicy.data.zarr_store import reading
from diffpolicy.errors import DiffpolicyError

LONGEST_EPISODE, MOST_EPISODES, LARGEST_JSON = 10_000_000, 10_000_000, 2**28
FIELD = re.compile(r"\{(\w+)(?::(0?\d{1,2})d)?\}")


@dataclass(frozen=True)
class Episode:
    """One episode: its number, length in frames, texts, and first row (`first`) of the data set.

    videos: {feature: (file, time in seconds of the first frame in it)}.
    """

    number: int
    length: int
    tasks: tuple[str, ...]
    file: Path
    first: int
    videos: Mapping[str, tuple[Path, float]]


def read_tasks(path: Path, info: Info) -> dict[int, str]:
    """{task_index: text}; empty if there is no such file."""
    if is_v3(info):
        file = path / "meta/tasks.parquet"
        return _tasks_of_table(file) if file.exists() else {}
    file = path / "meta/tasks.jsonl"
    lines = _json_lines(file) if file.exists() else ()
    return {
        _whole(line, "task_index", where): _text(line.get("task"), where) for where, line in lines
    }


def read_episodes(path: Path, info: Info, cameras: tuple[str, ...]) -> list[Episode]:
    """All episodes in their order. cameras: names of the videos that will be read."""
    found = list((_episodes_v3 if is_v3(info) else _episodes_v2)(path, info, cameras))
    numbers = np.array([episode.number for episode in found], dtype=np.int64)
    if np.any(np.diff(numbers) <= 0):
        raise DiffpolicyError(f"{path}/meta: episodes must be in the order of their numbers")
    return found


def _episodes_v2(path: Path, info: Info, cameras: tuple[str, ...]) -> Iterator[Episode]:
    first = 0
    for where, line in _json_lines(path / "meta/episodes.jsonl"):
        number, length = _whole(line, "episode_index", where), _length(line, where)
        place = {"episode_index": number, "episode_chunk": number // info.chunks_size}
        yield Episode(
            number,
            length,
            _texts(line.get("tasks"), where),
            _place(path, info.data_path, place),
            first,
            {
                key: (_place(path, info.video_path, {**place, "video_key": key}), 0.0)
                for key in cameras
            },
        )
        first += length


def _episodes_v3(path: Path, info: Info, cameras: tuple[str, ...]) -> Iterator[Episode]:
    files = sorted((path / "meta/episodes").glob("*/*.parquet"))
    if not files:
        raise DiffpolicyError(f"{path} lacks meta/episodes/*/*.parquet; copy it again")
    numbers = ("episode_index", "length", "dataset_from_index", "dataset_to_index")
    videos = [f"videos/{key}/{part}" for key in cameras for part in ("chunk_index", "file_index")]
    starts = [f"videos/{key}/from_timestamp" for key in cameras]
    wanted = (*numbers, "data/chunk_index", "data/file_index", "tasks", *videos, *starts)
    for file in files:
        for row in read_table(file, wanted, MOST_EPISODES, optional=("tasks",)):
            yield _episode_v3(row, path, info, cameras, f"{file}")


def _episode_v3(
    row: dict[str, Any], path: Path, info: Info, cameras: tuple[str, ...], where: str
) -> Episode:
    number, first = _whole(row, "episode_index", where), _whole(row, "dataset_from_index", where)
    length = _length(row, where)
    if _whole(row, "dataset_to_index", where) - first != length:
        raise DiffpolicyError(f"{where}: episode {number} is not as long as its range of rows")
    videos = {}
    for key in cameras:
        place = _indices(row, f"videos/{key}/", where) | {"video_key": key}
        start = row[f"videos/{key}/from_timestamp"]
        if not isinstance(start, int | float) or not 0 <= start < 1e9:
            raise DiffpolicyError(f"{where}: from_timestamp of episode {number} is {shown(start)}")
        videos[key] = (_place(path, info.video_path, place), float(start))
    file = _place(path, info.data_path, _indices(row, "data/", where))
    return Episode(number, length, _texts(row.get("tasks"), where), file, first, videos)


def _indices(row: Mapping[str, Any], prefix: str, where: str) -> dict[str, Any]:
    return {name: _whole(row, prefix + name, where) for name in ("chunk_index", "file_index")}


def _length(row: Mapping[str, Any], where: str) -> int:
    length = _whole(row, "length", where)
    if not 1 <= length <= LONGEST_EPISODE:
        raise DiffpolicyError(
            f"{where}: an episode has the length {length}; expected 1 to {LONGEST_EPISODE}"
        )
    return length


def _whole(row: Mapping[str, Any], name: str, where: str) -> int:
    value = row.get(name)
    if type(value) is not int or not 0 <= value < 2**62:
        raise DiffpolicyError(f"{where}: {name} must be a whole number from 0; got {shown(value)}")
    return value


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise DiffpolicyError(f"{where}: a task must be a text; got {shown(value)}")
    return value


def _texts(values: Any, where: str) -> tuple[str, ...]:
    if not isinstance(values, list | None):
        raise DiffpolicyError(f"{where}: tasks must be a list of texts; got {shown(values)}")
    return tuple(_text(value, where) for value in values or ())


def _place(path: Path, template: str | None, values: Mapping[str, Any]) -> Path:
    """The file that a template of info.json names, inside the data set."""

    def value(match: re.Match[str]) -> str:
        name, width = match.groups()
        if name not in values:
            raise DiffpolicyError(f"{path}: the template {shown(template)} has a field {name!r}")
        return f"{values[name]:{width}d}" if width else str(values[name])

    text = FIELD.sub(value, template or "")
    inner = PurePosixPath(text)
    if not text or inner.is_absolute() or ".." in inner.parts or "\0" in text:
        raise DiffpolicyError(f"{path}: the template {shown(template)} leads out of the data set")
    return path / inner


def _json_lines(file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """(place, object) of each line that is not empty."""
    if not file.is_file():
        raise DiffpolicyError(f"{file.parent.parent} lacks meta/{file.name}; copy it again")
    if file.stat().st_size > LARGEST_JSON:
        raise DiffpolicyError(f"{file} has {file.stat().st_size:,} bytes, too many for JSON")
    with reading(file), file.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                found = parse_json(line, f"{file}, line {number}")
                if not isinstance(found, dict):
                    raise DiffpolicyError(f"{file}, line {number} is not an object")
                yield f"{file}, line {number}", found


def _tasks_of_table(file: Path) -> dict[int, str]:
    """Tasks of 3.0: the texts are the one column that is not task_index, under any name."""
    names = open_parquet(file).schema_arrow.names
    texts = [n for n in ("task", "__index_level_0__", *names) if n in names and n != "task_index"]
    if not texts:
        raise DiffpolicyError(f"{file} has no column of texts; it has {shown(names)}")
    rows = read_table(file, ("task_index", texts[0]), MOST_EPISODES)
    return {_whole(row, "task_index", str(file)): _text(row[texts[0]], str(file)) for row in rows}
