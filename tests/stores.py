"""Stores for tests: as zarr itself would write them, and with metadata of another wording."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import zarr

ATTRIBUTES = {"env_id": "Nowhere-v0", "env_kwargs": {"a": 1}, "control_dt_s": 0.1}


def episode(length: int, seed: int = 0) -> dict[str, np.ndarray]:
    """One episode of an observation and an action."""
    rng = np.random.default_rng([length, seed])
    return {
        "observation": rng.standard_normal((length, 3), np.float32),
        "action": rng.standard_normal((length, 2), np.float32),
    }


EPISODES = [episode(5), episode(11), episode(9), episode(2)]
ENDS = [5, 16, 25, 27]


def joined() -> dict[str, np.ndarray]:
    """The arrays of all four episodes, end to end."""
    return {name: np.concatenate([e[name] for e in EPISODES]) for name in EPISODES[0]}


def write_plainly(path: Path, arrays: dict[str, Any], ends: Any, zarr_format: Any = 2, **options):
    """A store as zarr itself would write it."""
    group = zarr.create_group(path, zarr_format=zarr_format)
    for name, values in arrays.items():
        group.create_array(f"data/{name}", data=values, **options)
    group.create_array("meta/episode_ends", data=np.asarray(ends))
    return path


def edit(file: Path, **changes: Any) -> None:
    """Changes keys of a JSON file, such as an array's .zarray."""
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def pipe_instead(file: Path) -> None:
    """Puts a named pipe, which a reader would wait for, in a file's place."""
    file.unlink(missing_ok=True)
    os.mkfifo(file)
