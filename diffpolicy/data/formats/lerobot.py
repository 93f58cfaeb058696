"""LeRobot data sets 2.0, 2.1 and 3.0 on disk, read without lerobot and without a network.

Frame t holds the observation and the action commanded after it; the observation after the last
action is not in the format. Shapes: T frames of an episode.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from diffpolicy.data.demonstration import (
    OUTCOME_TYPES,
    REWARD,
    TERMINATED,
    TRUNCATED,
    Demonstration,
)
from diffpolicy.data.formats import lerobot_layout as layout
from diffpolicy.data.formats.lerobot_rows import Rows, decode
from diffpolicy.data.formats.lerobot_video import Camera, is_installed
from diffpolicy.data.formats.options import SourceOptions
from diffpolicy.data.zarr_store import check_bytes
from diffpolicy.errors import DiffpolicyError
from diffpolicy.specification import ACTION

SUCCESS = "next.success"
OUTCOMES = {"next.reward": REWARD, "next.done": TERMINATED, "next.truncated": TRUNCATED}
HELD = (*layout.NUMBERS, *layout.PICTURES)  # types of features
TIME_TOLERANCE_S = 1e-4
NEEDED = (ACTION, "episode_index", "frame_index")


def matches(path: Path) -> bool:
    """True for a folder with meta/info.json."""
    return (path / "meta/info.json").is_file()


def open_source(path: Path, options: SourceOptions | None = None) -> "LeRobotSource":
    """Open a data set; episodes are read when they are asked for.

    Raises DiffpolicyError for other versions, damaged metadata, files that are not there, and
    videos without a decoder.
    """
    skip = (options or SourceOptions()).skip
    info, sidecar = layout.read_info(path), layout.read_sidecar(path)
    _check_names(path, info.features, skip)
    features = {n: f for n, f in info.features.items() if n not in skip}
    cameras = tuple(name for name, feature in features.items() if feature.dtype == "video")
    _check_pictures(path, features)
    episodes = layout.read_episodes(path, info, cameras)
    if not episodes:
        raise DiffpolicyError(f"{path} holds no episode")
    source = LeRobotSource(
        path,
        {"control_dt_s": 1 / info.fps, **sidecar.attributes},
        (*_notes(path, features), *_counted(info, episodes)),
        info.fps,
        {n: f for n, f in features.items() if f.dtype in HELD},
        layout.read_tasks(path, info),
        episodes,
        sidecar,
    )
    # A mistake in the columns shows here, before anything is written.
    Rows(episodes[0].file, source.numbers, source.pictures)
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
    index: list[layout.Episode]
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
                rows = Rows(file, self.numbers, self.pictures, before if file == first else 0)
                _check_count(rows, counted[file])
                for episode in within:
                    yield self._demonstration(episode, rows, cameras)
        finally:
            for camera in cameras.values():
                camera.close()

    def _demonstration(
        self, episode: layout.Episode, rows: Rows, cameras: dict[str, Camera]
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
                outcomes[outcome] = values.reshape(-1).astype(OUTCOME_TYPES[outcome])
            else:
                key = self.sidecar.names.get(name, name)
                arrays[key] = values[:, 0] if name in self.sidecar.scalars else values
        success = self._success(episode, found)
        task = self._task(episode, found, where)
        name = f"episode_{episode.number:06d}"
        return Demonstration(arrays, outcomes, success=success, task=task, name=name)

    def _success(self, episode: layout.Episode, rows: dict[str, np.ndarray]) -> bool | None:
        """True if next.success is true at any frame; None if it is unknown."""
        if SUCCESS not in rows or episode.number in self.sidecar.unknown_success:
            return None
        return bool(rows[SUCCESS].any())

    def _task(self, episode: layout.Episode, rows: dict[str, np.ndarray], where: str) -> str:
        """Text of the task of the first frame."""
        if "task_index" not in rows or not self.tasks:
            return episode.tasks[0] if episode.tasks else ""
        number = int(rows["task_index"][0, 0])
        if number not in self.tasks:
            raise DiffpolicyError(f"{where} has the task_index {number}, which meta/ does not name")
        return self.tasks[number]


def _film(episode: layout.Episode, name: str, camera: Camera, fps: float) -> np.ndarray:
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


def _check_derived(
    rows: dict[str, np.ndarray], episode: layout.Episode, fps: float, where: str
) -> None:
    """Raise DiffpolicyError unless the rows are those of the episode, at the declared rate."""
    frames = np.arange(episode.length)
    if not (rows["episode_index"] == episode.number).all():
        raise DiffpolicyError(
            f"{where}: its rows are not where meta/ says; copy the data set again"
        )
    if not np.array_equal(rows["frame_index"][:, 0], frames):
        raise DiffpolicyError(f"{where}: frame_index does not count its frames from 0")
    if "index" in rows and not np.array_equal(rows["index"][:, 0], frames + episode.first):
        raise DiffpolicyError(
            f"{where}: index does not count from {episode.first}; --skip index leaves it unchecked"
        )
    if "timestamp" in rows:
        _check_times(rows["timestamp"][:, 0], frames / fps, where)


def _check_times(times: np.ndarray, expected: np.ndarray, where: str) -> None:
    wrong = ~(np.abs(times - expected) <= TIME_TOLERANCE_S + np.spacing(np.abs(times)))
    if wrong.any():
        frame = int(wrong.argmax())
        raise DiffpolicyError(
            f"{where}: frame {frame} is at {times[frame]:g} s; expected {expected[frame]:g} s by "
            "the fps of meta/info.json; --skip timestamp leaves it unchecked"
        )


def _check_names(path: Path, features: Mapping[str, layout.Feature], skip: tuple[str, ...]) -> None:
    """Raise DiffpolicyError for names to skip that are not there, and features that must be."""
    names = ", ".join(features)
    for name in skip:
        if name not in features or name in NEEDED:
            raise DiffpolicyError(f"--skip {name}: {path} has, or needs, other names: {names}")
    for name in NEEDED:
        if name not in features or not features[name].is_numbers:
            raise DiffpolicyError(f"{path} has no feature {name} of numbers; it has: {names}")


def _check_pictures(path: Path, features: Mapping[str, layout.Feature]) -> None:
    """Raise DiffpolicyError for pictures that are not [H, W, C], depths, and absent decoders."""
    for name, feature in features.items():
        if feature.dtype in layout.PICTURES and not feature.picture:
            raise DiffpolicyError(
                f"{path}: {name} has the shape {list(feature.shape)}; expected a picture "
                f"[H, W, C]; --skip {name} leaves it out"
            )
        if feature.dtype == "video" and feature.is_depth:
            raise DiffpolicyError(
                f"{path}: {name} is a depth, no picture of 8 bit; --skip {name} leaves it out"
            )
    videos = [name for name, feature in features.items() if feature.dtype == "video"]
    if videos and not is_installed():
        raise DiffpolicyError(
            f"the videos {', '.join(videos)} need av; install it with pip install "
            f"'diffpolicy[lerobot]', or leave them out with --skip {' '.join(videos)}"
        )


def _notes(path: Path, features: Mapping[str, layout.Feature]) -> Iterator[str]:
    """Sentences about everything that is left out, or read in one of several senses."""
    for name, feature in features.items():
        if feature.dtype not in HELD:
            yield f"{name} is left out: a store holds no {feature.dtype}"
        if feature.dtype == "video":
            yield f"{name} is decoded from a video, which was compressed with loss"
    if SUCCESS in features:
        yield f"{SUCCESS} is kept as one success of each episode: true at any frame"
    if "next.done" in features and "next.truncated" not in features:
        yield "next.done is read as terminated; the format does not tell a time limit from an end"
    if (path / "meta/modality.json").exists():
        yield "meta/modality.json, which names parts of vectors, is not kept"


def _counted(info: layout.Info, episodes: list[layout.Episode]) -> Iterator[str]:
    """Sentences about counts that contradict the episodes, and episodes with several tasks."""
    rows = sum(episode.length for episode in episodes)
    if (info.total_episodes or len(episodes), info.total_frames or rows) != (len(episodes), rows):
        yield (
            f"meta/info.json counts {info.total_episodes:,} episodes and {info.total_frames:,} "
            f"frames; there are {len(episodes):,} and {rows:,}"
        )
    if several := sum(len(episode.tasks) > 1 for episode in episodes):
        yield f"{several:,} episodes have several tasks; that of the first frame is kept"
