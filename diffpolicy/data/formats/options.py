"""Names of the formats and options of reading them."""

from dataclasses import dataclass
from typing import Annotated, Literal

from diffpolicy.checked import Checked
from diffpolicy.config import CONTROL_DT

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
    control_dt: Annotated[float | None, CONTROL_DT] = None
    """Control period in seconds, if the source does not declare it."""
    position_targets: bool | None = None
    """True if actions are position targets, if the source does not declare it."""
