"""Writer of robomimic's HDF5, in the layout of its scripts; see `robomimic` for it.

Shapes: T actions of an episode.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from diffpolicy.data.attributes import READ
from diffpolicy.data.demonstration import (
    REWARD,
    TERMINATED,
    TRUNCATED,
    Demonstration,
    Source,
    alike,
)
from diffpolicy.data.formats.opened import without_place
from diffpolicy.data.formats.options import ExportOptions
from diffpolicy.data.formats.robomimic import GYM, OWN
from diffpolicy.errors import DiffpolicyError
from diffpolicy.specification import ACTION, NO_ENVIRONMENT

BESIDES = tuple(name for name in READ if name not in ("env_id", "env_kwargs"))
PICTURE = 3  # dimensions of a row that is compressed


def write(source: Source, options: ExportOptions, partial: Path) -> Sequence[str]:
    """Write demo_0, demo_1, …; return a sentence for everything that the file does not hold."""
    try:
        import h5py
    except ImportError:
        raise DiffpolicyError(
            f"writing {options.out} needs h5py; install it with pip install 'diffpolicy[hdf5]'"
        ) from None
    lost = {"simulator states: the file trains policies, but cannot be played back"}
    with h5py.File(partial, "w") as file:
        data = file.create_group("data")
        total = 0
        for number, episode in enumerate(alike(source)):
            lost |= _write_demo(data.create_group(f"demo_{number}"), episode)
            total += len(episode)
        data.attrs["total"] = total
        data.attrs["env_args"] = json.dumps(_env_args(source.attributes), indent=4)
        own = {name: source.attributes[name] for name in BESIDES if name in source.attributes}
        data.attrs[OWN] = json.dumps(own)
    if source.attributes.get("env_id") in (None, NO_ENVIRONMENT):
        lost.add(f"an environment, which is unknown and named {NO_ENVIRONMENT!r}")
    return sorted({*lost, *without_place(source.attributes)})


def _env_args(attributes: Any) -> dict[str, Any]:
    """Environment in robomimic's words; 2 is the type of Gymnasium's."""
    name = attributes.get("env_id") or NO_ENVIRONMENT
    return {"env_name": name, "type": GYM, "env_kwargs": attributes.get("env_kwargs") or {}}


def _write_demo(demo: Any, episode: Demonstration) -> set[str]:
    """Write one demonstration; return sentences about what it does not hold."""
    steps, lost = len(episode), set()
    observations = {key: x for key, x in episode.arrays.items() if key != ACTION}
    demo.attrs["num_samples"] = steps
    demo.create_dataset("actions", data=_rows(episode.arrays[ACTION]))
    if episode.arrays[ACTION].ndim == 1:
        lost.add("rows of actions without dimensions, written as [T, 1]")
    rewards = episode.outcomes.get(REWARD)
    if rewards is None:
        lost.add("rewards, which are unknown and written as NaN")
        rewards = np.full(steps, np.nan, np.float32)
    demo.create_dataset("rewards", data=rewards)
    demo.create_dataset("dones", data=np.arange(1, steps + 1) == steps, dtype=np.int64)
    if {TERMINATED, TRUNCATED} & set(episode.outcomes):
        lost.add("terminated and truncated: dones mark the end of each episode")
    for key, values in observations.items():
        _write_rows(demo, f"obs/{key}", values)
        if set(episode.final) == set(observations):
            following = np.concatenate([values[1:], episode.final[key][None]])
            _write_rows(demo, f"next_obs/{key}", following)
    if set(episode.final) != set(observations):
        lost.add("next_obs: the observation after the last action is unknown")
    if episode.success is not None:
        lost.add("success of the episodes")
    if episode.name and episode.name != demo.name.rpartition("/")[2]:
        lost.add("names of the episodes")
    return lost | ({"tasks in words"} if episode.task else set())


def _rows(values: np.ndarray) -> np.ndarray:
    """Actions [T, D_a]."""
    return values if values.ndim > 1 else values[:, None]


def _write_rows(demo: Any, name: str, values: np.ndarray) -> None:
    """Write rows; those of pictures compressed, one a chunk."""
    packed = {"compression": "gzip", "chunks": (1, *values.shape[1:])}
    options = packed if values.ndim == PICTURE + 1 and values.dtype == np.uint8 else {}
    demo.create_dataset(name, data=values, **options)
