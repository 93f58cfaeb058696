"""LeRobot data sets 2.0, 2.1 and 3.0 on disk, read without lerobot and without a network.

Frame t holds the observation and the action commanded after it; the observation after the last
action is not in the format. Shapes: T frames of an episode.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from itertools import groupby
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from diffpolicy.data.demonstration import Demonstration, as_outcome
from diffpolicy.data.formats import lerobot_layout as layout
from diffpolicy.data.formats.lerobot_checks import HELD, check, notes
from diffpolicy.data.formats.lerobot_episodes import Episode, read_episodes, read_tasks
from diffpolicy.data.formats.lerobot_layout import OUTCOMES, SUCCESS
from diffpolicy.data.formats.lerobot_rows import Rows, decode
from diffpolicy.data.formats.lerobot_video import Camera
from diffpolicy.data.formats.options import SourceOptions
from diffpolicy.data.zarr_store import check_bytes
from diffpolicy.errors import DiffpolicyError

TIME_TOLERANCE_S = 1e-4


def matches(path: Path) -> bool:
    """True for a folder with meta/info.json."""
    try:
        return (path / "meta/info.json").is_file()
    except OSError:  # a folder that may not be read
        return False


def open_source(path: Path, options: SourceOptions | None = None) -> "LeRobotSource":
    """Open a data set; episodes are read when they are asked for.

    Raises DiffpolicyError for other versions, damaged metadata, files that are not there, and
    videos without a decoder.
    """
    options = options or SourceOptions()
    info, sidecar = layout.read_info(path), layout.read_sidecar(path)
    features = check(path, info, sidecar, options.skip)
    videos = tuple(name for name, feature in features.items() if feature.dtype == "video")
    episodes = read_episodes(path, info, videos)
    if not episodes:
        raise DiffpolicyError(f"{path} holds no episode")
    source = LeRobotSource(
        path,
        {"control_dt_s": 1 / info.fps, **sidecar.attributes},
        notes(path, info, features, episodes),
        info.fps,
        {n: f for n, f in features.items() if f.dtype in HELD},
        read_tasks(path, info),
        episodes,
        sidecar,
    )
    # A mistake in the columns shows here, before anything is written.
    Rows(episodes[0].file, source.numbers, source.pictures).close()
    return source


@dataclass(frozen=True)
class LeRobotSource:
    """Episodes of one data set; see `diffpolicy.data.demonstration.Source`."""

    path: Path
    attributes: Mapping[str, Any]
    notes: tuple[str, ...]
    fps: float
    features: dict[str, layout.Feature]
    tasks: dict[int, str]
    index: list[Episode]
    sidecar: layout.Sidecar
    format: str = "lerobot"

    def __len__(self) -> int:
        """E."""
        return len(self.index)

    @property
    def numbers(self) -> dict[str, tuple[str, tuple[int, ...]]]:
        """{column of numbers: (dtype, shape of a row)}."""
        return {n: (f.dtype, f.shape) for n, f in self.features.items() if f.is_numbers}

    @property
    def pictures(self) -> dict[str, int]:
        """{column of pictures: bytes of one}."""
        return {n: prod(f.picture) for n, f in self.features.items() if f.dtype == "image"}

    def episodes(self, start: int = 0) -> Iterator[Demonstration]:
        """Episodes from number `start` on. Raises DiffpolicyError for damaged content."""
        videos = {n: f.picture for n, f in self.features.items() if f.dtype == "video"}
        cameras = {name: Camera(shape, self.fps) for name, shape in videos.items()}
        counted: Counter[Path] = Counter()
        for episode in self.index:
            counted[episode.file] += episode.length
        first = self.index[start].file if start < len(self) else None
        before = sum(episode.length for episode in self.index[:start] if episode.file == first)
        try:
            for file, within in groupby(self.index[start:], key=lambda episode: episode.file):
                skipped = before if file == first else 0
                with closing(Rows(file, self.numbers, self.pictures, skipped)) as rows:
                    _check_count(rows, counted[file])
                    for episode in within:
                        yield self._demonstration(episode, rows, cameras)
        finally:
            for camera in cameras.values():
                camera.close()

    def _demonstration(
        self, episode: Episode, rows: Rows, cameras: dict[str, Camera]
    ) -> Demonstration:
        where = f"{episode.file}, episode {episode.number}"
        check_bytes(episode.length * rows.row_bytes, where)
        found = rows.take(episode.length)
        _check_derived(found, episode, self.fps, where)
        arrays, outcomes = {}, {}
        for name, feature in self.features.items():
            if name in layout.DERIVED or name == SUCCESS:
                continue
            if feature.dtype == "video":
                values = _film(episode, name, cameras[name], self.fps)
            elif feature.dtype == "image":
                values = decode(found[name], feature.picture, f"{where}: {name}")
            else:
                values = found[name]
            if outcome := _outcome(name, feature):
                outcomes[outcome] = as_outcome(outcome, values.reshape(-1))
            else:
                key = self.sidecar.names.get(name, name)
                arrays[key] = values[:, 0] if name in self.sidecar.scalars else values
        success = self._success(episode, found)
        task = self._task(episode, found, where)
        name = f"episode_{episode.number:06d}"
        return Demonstration(arrays, outcomes, success=success, task=task, name=name)

    def _success(self, episode: Episode, rows: dict[str, np.ndarray]) -> bool | None:
        """True if next.success is true at any frame; None if it is unknown."""
        if SUCCESS not in rows or episode.number in self.sidecar.unknown_success:
            return None
        return bool(rows[SUCCESS].any())

    def _task(self, episode: Episode, rows: dict[str, np.ndarray], where: str) -> str:
        """Text of the task of the first frame."""
        if "task_index" not in rows or not self.tasks:
            return episode.tasks[0] if episode.tasks else ""
        number = int(rows["task_index"].reshape(-1)[0])
        if number not in self.tasks:
            raise DiffpolicyError(f"{where} has the task_index {number}, which meta/ does not name")
        return self.tasks[number]


def _film(episode: Episode, name: str, camera: Camera, fps: float) -> np.ndarray:
    """Frames of one episode from the video that may hold others too."""
    file, first_s = episode.videos[name]
    check_bytes(episode.length * prod(camera.shape), f"{file}, episode {episode.number}")
    return camera.read(file, first_s + np.arange(episode.length) / fps)


def _outcome(name: str, feature: layout.Feature) -> str | None:
    """One of `OUTCOMES` that a feature of one number stands for."""
    return OUTCOMES.get(name) if feature.is_numbers and prod(feature.shape) == 1 else None


def _check_count(rows: Rows, counted: int) -> None:
    if rows.count != counted:
        raise DiffpolicyError(
            f"{rows.file} holds {rows.count:,} rows; meta/ counts {counted:,}; copy the data set "
            "again"
        )


def _check_derived(rows: dict[str, np.ndarray], episode: Episode, fps: float, where: str) -> None:
    """Raise DiffpolicyError unless the rows are those of the episode, at the declared rate."""
    frames = np.arange(episode.length)
    if not (rows["episode_index"] == episode.number).all():
        raise DiffpolicyError(
            f"{where}: its rows are not where meta/ says; copy the data set again"
        )
    if not np.array_equal(rows["frame_index"].reshape(-1), frames):
        raise DiffpolicyError(f"{where}: frame_index does not count its frames from 0")
    if "index" in rows and not np.array_equal(rows["index"].reshape(-1), frames + episode.first):
        raise DiffpolicyError(
            f"{where}: index does not count from {episode.first}; import --skip index leaves it "
            "unchecked"
        )
    if "timestamp" in rows:
        _check_times(rows["timestamp"].reshape(-1), frames / fps, where)


def _check_times(times: np.ndarray, expected: np.ndarray, where: str) -> None:
    with np.errstate(invalid="ignore"):  # times that are not finite are wrong
        wrong = ~(np.abs(times - expected) <= TIME_TOLERANCE_S + np.spacing(np.abs(times)))
    if wrong.any():
        frame = int(wrong.argmax())
        raise DiffpolicyError(
            f"{where}: frame {frame} is at {times[frame]:g} s; expected {expected[frame]:g} s by "
            "the fps of meta/info.json; import --skip timestamp leaves it unchecked"
        )
