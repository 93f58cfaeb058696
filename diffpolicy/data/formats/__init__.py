"""Data formats, one file each.

A module of this room has

    matches(path: Path) -> bool
        True for data of this format; looks at names and first bytes only, and never raises
    open_source(path: Path, options: SourceOptions) -> Source
        checks the data and reads no episode yet; raises DiffpolicyError for damaged or unfit data,
        OptionNeeded if an option is missing that the format cannot be read without

and one that also exports has

    write(source: Source, options: ExportOptions, partial: Path) -> Sequence[str]
        writes every episode to `partial`, a path beside `options.out` that does not exist yet and
        is renamed to it afterwards; returns a sentence for everything that it could not hold.
        `source.episodes()` may be called more than once.

Packages of a format are imported where they are used; an absent one is named with its extra.
"""

from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Any

from diffpolicy.data.demonstration import Source
from diffpolicy.data.formats.options import OptionNeeded, SourceOptions
from diffpolicy.errors import DiffpolicyError

MODULES = {  # format: module of this room, in the order of recognition
    "zarr": "stored",
    "lerobot": "lerobot",
    "minari": "minari",
    "robomimic": "robomimic",
    "maniskill": "maniskill",
    "d4rl": "d4rl",
    "ogbench": "ogbench",
    "adroit": "adroit",
    "arrays": "arrays",
}
WRITERS = {  # export format: module of this room
    "zarr": "diffusion_policy",
    "lerobot-3.0": "lerobot_writer",
    "lerobot-2.1": "lerobot_writer",
    "minari": "minari_writer",
    "robomimic": "robomimic_writer",
}
LEVELS = 4  # of folders above a file of a data set
MOST_LOOKED_AT, MOST_NAMED = 1_000, 10


def open_source(path: str | Path, options: SourceOptions | None = None) -> Source:
    """Open a data set of any format, recognised from its content unless `options` names it.

    Raises DiffpolicyError for everything that is not one.
    """
    path, options = Path(path), options or SourceOptions()
    name = options.format or recognised(path)
    if name is None or not path.exists():
        raise unrecognised(path)
    for value, option, only in (
        (options.subset, "subset", "robomimic"),
        (options.map, "map", "arrays"),
    ):
        if value and name != only:
            raise DiffpolicyError(f"--{option} is for --format {only}; {path} is read as {name}")
    return module(MODULES[name]).open_source(path, options)


def open_without_options(path: str | Path) -> Source:
    """As `open_source`, for commands without its options: an error names the one that has them."""
    try:
        return open_source(path)
    except OptionNeeded as error:
        raise DiffpolicyError(
            f"{error}; convert it first: diffpolicy import {path} --out STORE, with that option"
        ) from error


def recognised(path: Path) -> str | None:
    """Name of the format of a data set; None if it is none of `MODULES`."""
    if not path.exists():
        return None
    return next((n for n, file in MODULES.items() if module(file).matches(path)), None)


def unrecognised(path: Path) -> DiffpolicyError:
    """Error for a path that is no data set; names the data set that it is in, or those in it."""
    if not path.exists():
        return DiffpolicyError(f"no demonstrations at {path}: there is no such file or folder")
    above = path.absolute().parents[:LEVELS]
    if outer := next((folder for folder in above if recognised(folder)), None):
        return DiffpolicyError(f"{path} is a part of the data set {outer}; give that")
    reason = f"{path} is not a data set of a known format"
    if inside := inner(path):
        return DiffpolicyError(f"{reason}; it holds {', '.join(inside)}: give one of them")
    return DiffpolicyError(
        f"{reason}; expected one of {', '.join(MODULES)}; if it is one: diffpolicy import {path} "
        "--out STORE --format FORMAT"
    )


def inner(folder: Path) -> list[str]:
    """Paths of data sets in a folder and in its folders, of the first `MOST_LOOKED_AT` paths."""
    for pattern in ("*", "*/*"):
        if found := [str(p) for p in islice(folder.glob(pattern), MOST_LOOKED_AT) if recognised(p)]:
            return sorted(found)[:MOST_NAMED]
    return []


def module(name: str) -> Any:
    """Module of this room, imported when it is needed."""
    return import_module(f"{__name__}.{name}")
