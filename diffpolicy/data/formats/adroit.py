"""Reader of the Adroit hand's pickles: a list of one dict for each episode.

    observations [T, D_o], actions [T, D_a], rewards [T], init_state_dict {name: [D]}

Layout: DAPG (Rajeswaran et al., RSS 2018), hand_dapg/dapg/utils. A pickle is read as a whole, so a
quarter of the memory bounds its size; see `unpickler` for what it may contain.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from diffpolicy.data.demonstration import REWARD, Demonstration
from diffpolicy.data.formats.opened import Opened, check_episode_bytes, demonstration, kept_names
from diffpolicy.data.formats.options import SourceOptions
from diffpolicy.data.unpickler import unpickle
from diffpolicy.errors import DiffpolicyError
from diffpolicy.specification import FLAT

SUFFIXES = (".pickle", ".pkl")
NEEDED = ("observations", "actions")
READ = {*NEEDED, "rewards"}


def matches(path: Path) -> bool:
    """True for a file with the suffix of a pickle."""
    return path.suffix in SUFFIXES and path.is_file()


def open_source(path: Path, options: SourceOptions) -> Opened:
    """Read a file. Raises DiffpolicyError for anything but arrays."""
    kept_names([FLAT], options.skip, str(path))
    episodes = read_episodes(path)
    notes = ["the observation after the last action is unknown"]
    if others := sorted({str(key) for key in episodes[0]} - READ):
        notes.append(f"left out of each episode: {', '.join(others)}")

    def read(start: int) -> Iterator[Demonstration]:
        for number in range(start, len(episodes)):
            yield _episode(episodes[number], path, f"episode {number}")

    return Opened("adroit", path, len(episodes), read, {}, tuple(notes))


def read_episodes(path: Path) -> list[dict[str, Any]]:
    """The dicts of a file: numbers and arrays by name. Raises DiffpolicyError."""
    if not path.is_file():
        raise DiffpolicyError(f"{path} is not a file; expected a pickle of demonstrations")
    check_episode_bytes(path.stat().st_size, path)
    episodes = unpickle(path.read_bytes(), path)
    fits = isinstance(episodes, list) and episodes and all(isinstance(e, dict) for e in episodes)
    if not fits or not all(isinstance(e.get(n), np.ndarray) for e in episodes for n in NEEDED):
        raise DiffpolicyError(f"{path} is not a list of dicts with {' and '.join(NEEDED)}")
    return episodes


def _episode(episode: dict[str, Any], path: Path, name: str) -> Demonstration:
    what = f"{path}: {name}"
    arrays = {name: _numbers(episode[name], what) for name in READ if name in episode}
    outcomes = {REWARD: arrays["rewards"].reshape(-1)} if "rewards" in arrays else {}
    seen = {FLAT: arrays["observations"]}
    return demonstration(what, seen, arrays["actions"], outcomes, name=name)


def _numbers(values: Any, what: str) -> np.ndarray:
    found = np.asarray(values)
    if found.dtype.kind not in "fiub" or not found.ndim or 0 in found.shape[1:]:
        raise DiffpolicyError(f"{what} must hold rows of numbers; got {found.dtype} {found.shape}")
    return found
