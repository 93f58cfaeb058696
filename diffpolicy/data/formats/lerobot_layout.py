"""Description of a LeRobot data set: meta/info.json, and the names that have a meaning.

The statistics on disk are not read: they may be stale.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from diffpolicy.checked import Range, read_json, shown, validate
from diffpolicy.data.attributes import READ, attribute
from diffpolicy.data.demonstration import REWARD, TERMINATED, TRUNCATED
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


@dataclass(frozen=True)
class Feature:
    """One feature of info.json: dtype, shape of one frame, names of its axes or dimensions."""

    dtype: str
    shape: Annotated[tuple[int, ...], Range(1, 2**24)]
    names: Any = None
    info: Any = None  # of a video
    video_info: Any = None  # the same in 2.0

    @property
    def is_numbers(self) -> bool:
        """True for columns of numbers."""
        return self.dtype in NUMBERS

    @property
    def is_depth(self) -> bool:
        """True for a video of depths, of more than 8 bit."""
        found = [info for info in (self.info, self.video_info) if isinstance(info, dict)]
        return any(i.get("video.is_depth_map") or i.get("is_depth_map") for i in found)

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
    robot_type: Any = None
    splits: Any = None


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


def is_v3(info: Info) -> bool:
    """True for many episodes a file."""
    return info.codebase_version.startswith("v3")
