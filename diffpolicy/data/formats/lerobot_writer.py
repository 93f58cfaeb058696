"""Write demonstrations as a LeRobot data set, 3.0 or 2.1; pictures are PNG inside the tables.

Names that LeRobot's policies look for are given to the keys; meta/diffpolicy.json keeps the names
of the store and the attributes that LeRobot has no place for.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from diffpolicy.data.attributes import READ, attribute
from diffpolicy.data.demonstration import Demonstration, Source
from diffpolicy.data.formats import lerobot_stats as statistics
from diffpolicy.data.formats.lerobot_layout import (
    NUMBERS,
    OUTCOMES,
    SIDECAR,
    SUCCESS,
    Feature,
    Sidecar,
)
from diffpolicy.data.formats.lerobot_rows import parquet
from diffpolicy.data.formats.lerobot_tables import CHUNK_FILES, Facts, Version3, Version21, table
from diffpolicy.data.formats.opened import without_place
from diffpolicy.data.formats.options import ExportOptions
from diffpolicy.errors import DiffpolicyError
from diffpolicy.specification import ACTION, FLAT, picture_shape

STATE, PICTURE, OBSERVATION = "observation.state", "observation.images.", "observation."
FPS_TOLERANCE = 1e-6  # relative
MOST_AXES = 5  # of a feature
KEPT = tuple(name for name in READ if name != "control_dt_s")  # attributes in the sidecar
DERIVED = {
    "timestamp": Feature("float32", (1,)),
    **{n: Feature("int64", (1,)) for n in ("frame_index", "episode_index", "index", "task_index")},
}

Values = dict[str, np.ndarray]  # {feature: [T, …]}


@dataclass(frozen=True)
class Column:
    """A feature and the array of a demonstration that it holds."""

    name: str
    key: str
    feature: Feature
    is_scalar: bool = False  # rows without dimensions, which LeRobot keeps as (1,)


def write(source: Source, options: ExportOptions, partial: Path) -> Sequence[str]:
    """Write every episode to the folder `partial`; return what it could not hold, in sentences.

    Raises DiffpolicyError if the rate is not a whole number of frames per second.
    """
    fps = _fps(source, options)
    version = (Version3 if options.format == "lerobot-3.0" else Version21)(partial)
    parquet()
    partial.mkdir(parents=True)
    columns: tuple[Column, ...] = ()
    tasks: dict[str, int] = {}
    seen = Seen()
    try:
        for number, episode in enumerate(source.episodes()):
            columns = columns or _columns(episode)
            task = tasks.setdefault(episode.task, len(tasks))
            features = {c.name: c.feature for c in columns} | DERIVED
            values = _values(episode, columns, number)
            values |= _derived(len(episode), number, seen.rows, task, fps)
            version.add(
                table(values, features), _facts(number, seen.rows, episode, columns, values)
            )
            seen.add(episode, number)
    finally:
        version.close()
    _finish(source, version, partial, columns, list(tasks), seen, fps)
    return [*_notes(source, columns, seen), *_rate_notes(source, fps)]


class Seen:
    """Counts of what the episodes held."""

    def __init__(self):
        self.rows = self.episodes = self.finals = self.names = 0
        self.success: list[bool | None] = []

    def add(self, episode: Demonstration, number: int) -> None:
        """Count one episode."""
        self.rows += len(episode)
        self.episodes += 1
        self.finals += bool(episode.final)
        self.names += episode.name not in ("", f"episode_{number:06d}")
        self.success.append(episode.success)

    @property
    def unknown(self) -> list[int]:
        """Numbers of the episodes whose success is not known."""
        return [number for number, success in enumerate(self.success) if success is None]


def _fps(source: Source, options: ExportOptions) -> int:
    period = attribute(source.attributes, "control_dt_s")
    if options.fps:
        return options.fps
    if not period:
        raise DiffpolicyError(f"{source.path} does not say its control period; give --fps")
    rate = 1 / period
    if round(rate) < 1 or abs(rate - round(rate)) > FPS_TOLERANCE * rate:
        raise DiffpolicyError(
            f"LeRobot holds whole numbers of frames per second; {source.path} has {rate:.6g}; give "
            f"--fps {max(1, round(rate))} to write it at that rate"
        )
    return round(rate)


def _columns(episode: Demonstration) -> tuple[Column, ...]:
    """The features of a data set, from its first episode."""
    found = [_column(key, values) for key, values in episode.arrays.items()]
    for name, outcome in OUTCOMES.items():
        if outcome in episode.outcomes:
            found.append(Column(name, outcome, Feature(str(episode.outcomes[outcome].dtype), (1,))))
    if episode.success is not None:
        found.append(Column(SUCCESS, "", Feature("bool", (1,))))
    names = [column.name for column in found]
    for name in names:
        if names.count(name) > 1 or name in DERIVED:
            raise DiffpolicyError(f"two arrays would have LeRobot's name {name}; rename one")
    return tuple(found)


def _column(key: str, values: np.ndarray) -> Column:
    """The feature of one array, with the name that LeRobot's policies look for."""
    row, dtype = values.shape[1:], str(values.dtype)
    is_picture = dtype == "uint8" and picture_shape(row) == row
    plain = key.replace("/", ".")
    is_next = plain.startswith("next.") and plain not in (*OUTCOMES, SUCCESS)
    if key == ACTION or is_next or plain.startswith(OBSERVATION):
        name = plain
    elif is_picture:
        name = PICTURE + plain
    else:
        name = STATE if key == FLAT else OBSERVATION + plain
    if not is_picture:  # lerobot takes a feature with this word in its name for a picture
        name = name.replace("image", "img")
    if is_picture:
        return Column(name, key, Feature("image", row, ["height", "width", "channels"]))
    if dtype not in NUMBERS or len(row) > MOST_AXES or 0 in row:
        raise DiffpolicyError(f"LeRobot cannot hold {key}: {dtype} {list(values.shape)}")
    return Column(name, key, Feature(dtype, row or (1,)), is_scalar=not row)


def _values(episode: Demonstration, columns: Sequence[Column], number: int) -> Values:
    """{feature: [T, …]}; DiffpolicyError unless the episode has the arrays of the first one."""
    found = {}
    for column in columns:
        if column.name == SUCCESS:
            found[SUCCESS] = np.zeros((len(episode), 1), bool)
            found[SUCCESS][-1] = bool(episode.success)
            continue
        values = (episode.outcomes if column.name in OUTCOMES else episode.arrays).get(column.key)
        shape = (len(episode), *column.feature.shape)
        dtype = "uint8" if column.feature.dtype == "image" else column.feature.dtype
        if values is None or values.dtype != dtype or values.size != np.prod(shape):
            raise DiffpolicyError(f"episode {number} holds other arrays than the first one")
        found[column.name] = values.reshape(shape)
    if len(episode.arrays) + len(episode.outcomes) != len(found.keys() - {SUCCESS}):
        raise DiffpolicyError(f"episode {number} holds more arrays than the first one")
    return found


def _derived(length: int, number: int, first: int, task: int, fps: int) -> Values:
    frames = np.arange(length)
    found = {
        "timestamp": (frames / fps).astype(np.float32),
        "frame_index": frames,
        "episode_index": np.full(length, number),
        "index": first + frames,
        "task_index": np.full(length, task),
    }
    return {name: values.reshape(length, 1) for name, values in found.items()}


def _facts(
    number: int, first: int, episode: Demonstration, columns: Sequence[Column], values: Values
) -> Facts:
    pictures = {column.name for column in columns if column.feature.dtype == "image"}
    stats = {
        name: (statistics.of_pictures if name in pictures else statistics.of_numbers)(array)
        for name, array in values.items()
    }
    return Facts(number, first, len(episode), episode.task, stats)


def _finish(
    source: Source,
    version: Version3 | Version21,
    folder: Path,
    columns: Sequence[Column],
    tasks: list[str],
    seen: Seen,
    fps: int,
) -> None:
    if not columns:
        raise DiffpolicyError(f"{source.path} holds no episode to write")
    features = {c.name: c.feature for c in columns} | DERIVED
    described = ("dtype", "shape", "names")
    info = {
        "robot_type": None,
        "total_episodes": seen.episodes,
        "total_frames": seen.rows,
        "total_tasks": len(tasks),
        "chunks_size": CHUNK_FILES,
        "fps": fps,
        "splits": {"train": f"0:{seen.episodes}"},
        "video_path": None,
        "features": {n: {k: asdict(f)[k] for k in described} for n, f in features.items()},
    }
    version.finish(tasks, info)
    has_success = any(column.name == SUCCESS for column in columns)
    sidecar = Sidecar(
        {c.name: c.key for c in columns if c.key and c.name not in (c.key, *OUTCOMES)},
        [c.name for c in columns if c.is_scalar],
        seen.unknown if has_success else [],
        {name: value for name, value in source.attributes.items() if name in KEPT},
    )
    (folder / SIDECAR).write_text(json.dumps(asdict(sidecar), indent=4), encoding="utf-8")


def _notes(source: Source, columns: Sequence[Column], seen: Seen) -> Iterator[str]:
    """Sentences about everything that LeRobot does not hold or does not read."""
    if seen.finals:
        yield f"the observations after the last action of {seen.finals:,} episodes are left out"
    if seen.names:
        yield f"the names of {seen.names:,} episodes are left out"
    known = seen.episodes - len(seen.unknown)
    if known and all(column.name != SUCCESS for column in columns):
        yield f"the success of {known:,} episodes is left out, as that of the first is unknown"
    kept = [name for name in source.attributes if name in KEPT]
    if kept:
        yield f"kept in {SIDECAR}, which LeRobot does not read: {', '.join(kept)}"
    yield from without_place(source.attributes)
    arrays = [c for c in columns if c.key and c.name not in OUTCOMES]
    renamed = [f"{c.key} is {c.name}" for c in arrays if c.key != c.name]
    if renamed:
        yield f"names of the store: {', '.join(renamed)}"
    for column in columns:
        if column.feature.dtype == "image":
            yield f"videos: {column.name} is written as PNG pictures, without loss"
        elif picture_shape(column.feature.shape):
            yield f"{column.name} is written as numbers; LeRobot's pictures are uint8 [H, W, C]"


def _rate_notes(source: Source, fps: int) -> Iterator[str]:
    period = attribute(source.attributes, "control_dt_s")
    if period and abs(1 / period - fps) > FPS_TOLERANCE * fps:
        yield f"written at {fps} frames per second; the control rate is {1 / period:.6g} Hz"
