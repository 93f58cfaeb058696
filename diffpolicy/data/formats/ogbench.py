"""Reader of OGBench's npz: observations, actions, terminals, all [N, …].

terminals is 1 at the last row of a trajectory, which holds the observation after the last action
and a meaningless action: T actions are T + 1 rows.

Layout: OGBench (Park et al. 2025), ogbench/utils.py.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from diffpolicy.data.demonstration import Demonstration
from diffpolicy.data.formats.d4rl import ends_of
from diffpolicy.data.formats.npz_files import Member, names_in, open_npz
from diffpolicy.data.formats.opened import Opened, check_episode_bytes, demonstration, kept_names
from diffpolicy.data.formats.options import SourceOptions
from diffpolicy.errors import DiffpolicyError
from diffpolicy.specification import FLAT

NAMES = ("observations", "actions", "terminals")
OF_D4RL = ("rewards", "timeouts", "next_observations")  # its terminals end T rows, not T + 1
BLOCK = 2**20  # rows of terminals that are read at once


def matches(path: Path) -> bool:
    """True for an npz with observations, actions and terminals, and nothing that is D4RL's."""
    found = set(names_in(path))
    return found >= set(NAMES) and not found & set(OF_D4RL)


def open_source(path: Path, options: SourceOptions) -> Opened:
    """Open a file. Raises DiffpolicyError."""
    kept_names([FLAT], options.skip, str(path))
    with open_npz(path, NAMES) as members:
        _check(members, path)
        ends, notes = ends_of(marks(members["terminals"]), path)
    lengths = np.diff(ends, prepend=0)
    kept = np.flatnonzero(lengths > 1)
    if len(kept) < len(ends):
        notes.append(f"{len(ends) - len(kept)} trajectories without an action are left out")
    if others := sorted(set(names_in(path)) - set(NAMES)):
        notes.append(f"left out: {', '.join(others)}")

    def read(start: int) -> Iterator[Demonstration]:
        with open_npz(path, NAMES[:2]) as members:
            for i in kept[start:]:
                first, stop = int(ends[i] - lengths[i]), int(ends[i])
                seen = {FLAT: members["observations"].rows(first, stop)}
                actions = members["actions"].rows(first, stop)[:-1]
                name = f"rows {first}:{stop}"
                yield demonstration(f"{path}: {name}", seen, actions, {}, name=name)

    return Opened("ogbench", path, len(kept), read, {}, tuple(notes))


def marks(member: Member) -> np.ndarray:
    """[N] bool: rows of a member that are not zero."""
    count = member.shape[0]
    check_episode_bytes(count, member.what)
    blocks = (member.rows(i, min(i + BLOCK, count)) for i in range(0, count, BLOCK))
    found = [block.reshape(len(block), -1).any(axis=1) for block in blocks]
    return np.concatenate(found) if found else np.zeros(0, bool)


def _check(members: dict[str, Member], path: Path) -> None:
    if missing := [name for name in NAMES if name not in members]:
        raise DiffpolicyError(f"{path} has no numbers named {', '.join(missing)}")
    shapes = {name: member.shape for name, member in members.items()}
    if (
        any(not s or 0 in s[1:] for s in shapes.values())
        or len({s[0] for s in shapes.values()}) > 1
    ):
        raise DiffpolicyError(f"{path} must hold rows of equal number; got {shapes}")
