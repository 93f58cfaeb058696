"""Reader of ManiSkill's trajectories: HDF5 groups traj_N, and a JSON of the same name beside it.

    traj_N    obs [T + 1, …] or nested groups, actions [T, D_a], success, terminated, truncated [T]

Layout: ManiSkill, docs/source/user_guide/datasets/demos. success and the rest are optional.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from diffpolicy.checked import read_json
from diffpolicy.data.demonstration import REWARD, TERMINATED, TRUNCATED, Demonstration
from diffpolicy.data.formats.hdf5_files import (
    child,
    dataset,
    is_hdf5,
    leaves,
    links,
    open_hdf5,
    root_names,
    rows,
    rows_of,
)
from diffpolicy.data.formats.opened import Opened, demonstration, flat_or_named, kept_names
from diffpolicy.data.formats.options import SourceOptions
from diffpolicy.errors import DiffpolicyError

TRAJECTORY = re.compile(r"traj_(\d+)")
OUTCOMES = {"rewards": REWARD, "terminated": TERMINATED, "truncated": TRUNCATED}
TARGETS = {"delta": False, "vel": False, "pos": True, "pose": True}  # words, in this order
OBS = "obs"


def matches(path: Path) -> bool:
    """True for HDF5 with groups traj_N."""
    return is_hdf5(path) and any(TRAJECTORY.fullmatch(name) for name in root_names(path))


def open_source(path: Path, options: SourceOptions) -> Opened:
    """Open a file. Raises DiffpolicyError."""
    declared = path.with_suffix(".json")
    facts = read_json(declared) if declared.exists() else {}
    facts = facts if isinstance(facts, dict) else {}
    with open_hdf5(path) as file:
        names = [name for name in links(file) if TRAJECTORY.fullmatch(name)]
        names.sort(key=lambda name: int(name.removeprefix("traj_")[:18]))
        if not names:
            raise DiffpolicyError(f"{path} holds no group traj_0, traj_1, …")
        if OBS not in links(child(file, names[0])):
            raise DiffpolicyError(
                f"{path} holds no observations; they need the simulator: run ManiSkill's "
                "replay_trajectory with an observation mode first"
            )
        found = list(_observations(child(file, names[0])))
        keys = kept_names(found, options.skip, f"{path}: obs")
        others = sorted(set(links(child(file, names[0]))) - {OBS, "actions", "success", *OUTCOMES})
    attributes, notes = _declared(facts)
    notes += [f"left out of each trajectory: {', '.join(others)}"] if others else []

    def read(start: int) -> Iterator[Demonstration]:
        with open_hdf5(path) as file:
            for name in names[start:]:
                yield _episode(child(file, name), flat_or_named(keys, keys == [OBS]), name)

    return Opened("maniskill", path, len(names), read, attributes, tuple(notes))


def _observations(trajectory: Any) -> dict[str, Any]:
    """Data sets of the observations; one array has the name obs."""
    import h5py

    if isinstance(trajectory.get(OBS, getlink=True), h5py.HardLink) and isinstance(
        trajectory[OBS], h5py.Group
    ):
        return leaves(trajectory[OBS])
    return {OBS: dataset(trajectory, OBS)}


def _declared(facts: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Attributes that the JSON declares, and notes on what it does not."""
    info = facts.get("env_info")
    info = info if isinstance(info, dict) else {}
    kwargs = info.get("env_kwargs")
    kwargs = kwargs if isinstance(kwargs, dict) else {}
    attributes: dict[str, Any] = {}
    notes = ["success of an episode is any true row of success"]
    if isinstance(info.get("env_id"), str) and info["env_id"]:
        attributes |= {"env_id": info["env_id"], "env_kwargs": kwargs}
        notes.append("the environment is named without the module that registers it: use --env")
    words = str(kwargs.get("control_mode", "")).split("_")
    found = [target for word, target in TARGETS.items() if word in words]
    if found:
        attributes["position_targets"] = found[0]
    return attributes, notes


def _episode(trajectory: Any, keys: dict[str, str], name: str) -> Demonstration:
    found, what = _observations(trajectory), f"{trajectory.file.filename}: {name}"
    if missing := [key for key in keys if key not in found]:
        raise DiffpolicyError(f"{what} lacks the observations {missing}")
    observations = rows_of({ours: found[theirs] for theirs, ours in keys.items()}, what)
    there = links(trajectory)
    outcomes = {o: rows(dataset(trajectory, n)) for n, o in OUTCOMES.items() if n in there}
    success = bool(rows(dataset(trajectory, "success")).any()) if "success" in there else None
    actions = rows(dataset(trajectory, "actions"))
    return demonstration(what, observations, actions, outcomes, success=success, name=name)
