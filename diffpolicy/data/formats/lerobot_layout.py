"""Layout of a LeRobot data set: its features, tasks and episodes, and the files that hold them.

2.0 and 2.1 keep one file for each episode, and JSON lines; 3.0 keeps many episodes in a file, and
looks the file up in meta/episodes. The statistics on disk are not read: they may be stale.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

import numpy as np

from diffpolicy.checked import Range, parse_json, read_json, shown, validate
from diffpolicy.data.attributes import READ, attribute
from diffpolicy.data.demonstration import REWARD, TERMINATED, TRUNCATED
from diffpolicy.data.formats.lerobot_rows import open_parquet, read_table
from diffpolicy.data.zarr_store import reading
from diffpolicy.errors import DiffpolicyError
from diffpolicy.specification import CHANNELS

SUCCESS = "next.success"
OUTCOMES = {"next.reward": REWARD, "next.done": TERMINATED, "next.truncated": TRUNCATED}
DERIVED = ("timestamp", "frame_index", "episode_index", "index", "task_index")
PICTURES = ("image", "video")
NUMBERS = (
    *("bool", "float16", "float32", "float64", "int8", "int16", "int32", "int64"),
    *("uint8", "uint16", "uint32", "uint64"),
)
CHANNELS_FIRST = [[name, "height", "width"] for name in ("channel", "channels")]
SIDECAR = "meta/diffpolicy.json"
LONGEST_EPISODE, MOST_EPISODES, LARGEST_JSON = 10_000_000, 10_000_000, 2**28
FIELD = re.compile(r"\{(\w+)(?::(0?\d{1,2})d)?\}")


@dataclass(frozen=True)
class Feature:
    """One feature of info.json: dtype, shape of one frame, names of its axes or dimensions."""

    dtype: str
    shape: Annotated[tuple[int, ...], Range(1, 2**24)]
    names: Any = None
    info: Any = None  # of a video

    @property
    def is_numbers(self) -> bool:
        """True for columns of numbers."""
        return self.dtype in NUMBERS

    @property
    def is_depth(self) -> bool:
        """True for a video of depths, of more than 8 bit."""
        info = self.info if isinstance(self.info, dict) else {}
        return bool(info.get("video.is_depth_map") or info.get("is_depth_map"))

    @property
    def picture(self) -> tuple[int, ...]:
        """(H, W, C), with the channels declared last or first; () for other shapes."""
        if len(self.shape) != 3:
            return (*self.shape, 1) if len(self.shape) == 2 else ()
        first, last = self.shape[0] in CHANNELS, self.shape[2] in CHANNELS
        if last and not (first and self.names in CHANNELS_FIRST):
            return self.shape
        return (*self.shape[1:], self.shape[0]) if first else ()


@dataclass(frozen=True)
class Info:
    """The fields of info.json that are read."""

    codebase_version: str
    fps: Annotated[float, Range(1e-6, 1e6)]
    features: dict[str, Feature]
    data_path: str
    video_path: str | None = None
    chunks_size: Annotated[int, Range(1, 10**9)] = 1000
    total_episodes: int | None = None
    total_frames: int | None = None


@dataclass(frozen=True)
class Sidecar:
    """Names and facts of a store that was exported, which LeRobot itself does not read.

    names: {feature: key of the store}. scalars: features of shape (1,) whose key has rows without
    dimensions. unknown_success: numbers of the episodes whose success is not known. attributes:
    those of `StoreAttributes`.
    """

    names: dict[str, str]
    scalars: list[str]
    unknown_success: list[int]
    attributes: dict[str, Any]


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


def read_info(path: Path) -> Info:
    """meta/info.json, checked."""
    where = path / "meta/info.json"
    found = read_json(where)
    version = str(found.get("codebase_version") if isinstance(found, dict) else None)
    if not re.fullmatch(r"v[23]\.\d+", version):
        raise DiffpolicyError(
            f"{where}: codebase_version is {shown(version)}; expected v2.0, v2.1 or v3.0"
        )
    info: Info = validate(Info, found, str(where), others=True)
    for name in info.features:
        if not name or "/" in name or not name.isprintable():
            raise DiffpolicyError(f"{where}: {shown(name)} is not a name of a feature")
    return info


def read_sidecar(path: Path) -> Sidecar:
    """Facts that an export left; empty for data sets of others."""
    where = path / SIDECAR
    if not where.exists():
        return Sidecar({}, [], [], {})
    found: Sidecar = validate(Sidecar, read_json(where), str(where))
    for name in found.attributes:
        if name not in READ:
            raise DiffpolicyError(f"{where}: {shown(name)} is not an attribute of a store")
        attribute(found.attributes, name)
    return found


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


def is_v3(info: Info) -> bool:
    """True for many episodes a file."""
    return info.codebase_version.startswith("v3")


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
