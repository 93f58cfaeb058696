"""Names of the formats, options of reading and of writing them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from diffpolicy.checked import Checked, Range
from diffpolicy.errors import DiffpolicyError

FormatName = Literal[
    "zarr",  # of Diffusion Policy and of this project
    "lerobot",  # 2.0, 2.1 and 3.0
    "robomimic",
    "minari",
    "d4rl",
    "ogbench",
    "maniskill",
    "adroit",
    "arrays",  # npz or HDF5 with a map of names
]
ExportName = Literal["zarr", "lerobot-3.0", "lerobot-2.1", "minari", "robomimic"]


class OptionNeeded(DiffpolicyError):
    """An option is missing without which a data set cannot be read; the message names it."""


@dataclass(frozen=True)
class SourceOptions(Checked):
    """Reading of a data set that may be in a foreign format."""

    format: FormatName | None = None
    """Format of the source; by default recognised from its content."""
    map: tuple[str, ...] = ()
    """npz and HDF5: arrays by name, such as observation=obs action=act episode_ends=ends, or
    dones=done instead of episode_ends."""
    subset: str | None = None
    """robomimic: name of the list under mask/ to read; by default every demonstration."""
    skip: tuple[str, ...] = ()
    """Observation keys to leave out, such as videos without an installed decoder."""


@dataclass(frozen=True)
class ExportOptions(Checked):
    """Writing of a data set in a foreign format."""

    format: ExportName
    """Format to write."""
    out: Path
    """File or folder to write."""
    fps: Annotated[int | None, Range(1, 10**6)] = None
    """LeRobot: frames per second, a whole number; by default 1 / control period."""
