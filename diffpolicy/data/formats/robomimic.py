"""Reader of robomimic's HDF5: demonstrations under data/demo_N, lists of them under mask/.

    data               attributes total, env_args (JSON: env_name, type, env_kwargs)
    data/demo_N        actions [T, D_a], rewards [T], dones [T], obs/<key> [T, …], next_obs/<key>
    mask/<name>        names of demonstrations

Layout: robomimic 0.3 to 0.5, docs/datasets/overview. The number in the name gives the order.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from diffpolicy.checked import parse_json
from diffpolicy.data.demonstration import REWARD, Demonstration
from diffpolicy.data.formats.hdf5_files import (
    check_claim,
    child,
    dataset,
    is_hdf5,
    leaves,
    leaves_of_any_type,
    links,
    open_hdf5,
    root_names,
    rows,
    rows_of,
    text,
)
from diffpolicy.data.formats.opened import Opened, declared, demonstration, kept_names
from diffpolicy.data.formats.options import SourceOptions
from diffpolicy.errors import DiffpolicyError
from diffpolicy.specification import NO_ENVIRONMENT

DEMO = re.compile(r"demo_(\d+)")
GYM = 2  # type of an environment in env_args
OWN = "diffpolicy"  # attribute of data/ with what this project's exports know besides
READ = {"actions", "rewards", "dones", "obs", "next_obs"}


def matches(path: Path) -> bool:
    """True for HDF5 with a group data of demonstrations."""
    return is_hdf5(path) and any(DEMO.fullmatch(name) for name in root_names(path, "data"))


def open_source(path: Path, options: SourceOptions) -> Opened:
    """Open a file, or the list of it that `options.subset` names. Raises DiffpolicyError."""
    with open_hdf5(path) as file:
        data = child(file, "data")
        names = _ordered(file, options.subset)
        if not names:
            raise DiffpolicyError(f"{path} holds no demonstration {options.subset or ''}")
        first = child(data, names[0])
        if "obs" not in links(first):
            raise DiffpolicyError(
                f"{path} holds simulator states and actions but no observations; they need the "
                "simulator to become observations: run robomimic's dataset_states_to_obs.py first"
            )
        keys = kept_names(list(leaves(child(first, "obs"))), options.skip, f"{path}: obs")
        attributes, notes = _declared(data)
        notes += _losses(file, first, options.subset)

    def read(start: int) -> Iterator[Demonstration]:
        with open_hdf5(path) as file:
            for name in names[start:]:
                yield _episode(child(child(file, "data"), name), keys, f"{path}: {name}", name)

    return Opened("robomimic", path, len(names), read, attributes, tuple(notes))


def _ordered(file: Any, subset: str | None) -> list[str]:
    """Names of the demonstrations, or of those in a list, by their number."""
    found = [name for name in links(child(file, "data")) if DEMO.fullmatch(name)]
    if subset is not None:
        masks = leaves_of_any_type(child(file, "mask")) if "mask" in links(file) else {}
        if subset not in masks:
            raise DiffpolicyError(
                f"{file.filename} has no list mask/{subset}; it has: {', '.join(masks) or 'none'}"
            )
        listed = _names_in_list(masks[subset])
        if absent := sorted(listed - set(found)):
            raise DiffpolicyError(f"{file.filename}: mask/{subset} names absent {absent[:5]}")
        found = [name for name in found if name in listed]
    return sorted(found, key=lambda name: int(name.removeprefix("demo_")[:18]))


def _names_in_list(data: Any) -> set[str]:
    if data.dtype.kind != "S" or len(data.shape) != 1:
        raise DiffpolicyError(f"{data.name} must be a list of names; its type is {data.dtype}")
    check_claim(data, data.name)
    return {name.decode("utf-8") for name in data[()]}


def _declared(data: Any) -> tuple[dict[str, Any], list[str]]:
    """Attributes that env_args declare, and notes on what they do not."""
    where = f"{data.file.filename}: {data.name}"
    facts = parse_json(text(data, "env_args") or "{}", f"{where}: env_args")
    facts = facts if isinstance(facts, dict) else {}
    kwargs = facts.get("env_kwargs")
    kwargs = kwargs if isinstance(kwargs, dict) else {}
    attributes: dict[str, Any] = {}
    notes = ["success of an episode is unknown: dones mark success, the end, or both"]
    name = facts.get("env_name")
    name = None if name == NO_ENVIRONMENT else name
    if facts.get("type") == GYM and isinstance(name, str) and name:
        attributes |= {"env_id": name, "env_kwargs": kwargs}
    elif name:
        notes.append(f"env_args names {str(name)[:80]!r}, which is no Gymnasium id: use --env")
    frequency = kwargs.get("control_freq")
    if isinstance(frequency, int | float) and 0 < frequency < 1e9:
        attributes["control_dt_s"] = 1 / frequency
    if len(deltas := set(_deltas(kwargs.get("controller_configs")))) == 1:
        attributes["position_targets"] = not deltas.pop()
    if own := text(data, OWN):
        attributes |= declared(parse_json(own, f"{where}: {OWN}"))
    return attributes, notes


def _deltas(controller: Any) -> Iterator[bool]:
    """Every control_delta, or input_type, of robosuite's controllers: True for deltas."""
    if isinstance(controller, dict):
        for key, value in controller.items():
            if key == "control_delta" and isinstance(value, bool):
                yield value
            elif key == "input_type" and value in ("delta", "absolute"):
                yield value == "delta"
            else:
                yield from _deltas(value)


def _losses(file: Any, first: Any, subset: str | None) -> list[str]:
    """Notes on what is in the file and not in a store."""
    notes = []
    if subset is None and "mask" in links(file):
        masks = ", ".join(links(child(file, "mask")))
        notes.append(
            f"every demonstration is read; import --subset takes one of the lists: {masks}"
        )
    if others := sorted(set(links(first)) - READ):
        notes.append(f"left out of each demonstration: {', '.join(others)}")
    if "next_obs" not in links(first):
        notes.append("without next_obs, the observation after the last action is unknown")
    return notes


def _episode(demo: Any, keys: list[str], what: str, name: str) -> Demonstration:
    found = leaves(child(demo, "obs"))
    if missing := [key for key in keys if key not in found]:
        raise DiffpolicyError(f"{what} lacks the observations {missing}")
    actions = rows(dataset(demo, "actions"))
    outcomes = {REWARD: rows(dataset(demo, "rewards"))} if "rewards" in links(demo) else {}
    if not np.isfinite(outcomes.get(REWARD, 0)).all():
        outcomes = {}  # written for want of rewards
    final = {}
    if "next_obs" in links(demo):
        following = leaves(child(demo, "next_obs"))
        if missing := [k for k in keys if k not in following or len(following[k]) != len(actions)]:
            raise DiffpolicyError(f"{what} lacks rows of next_obs/{missing[0]}")
        final = {key: rows(following[key], len(actions) - 1)[0] for key in keys if len(actions)}
    observations = rows_of({key: found[key] for key in keys}, what)
    return demonstration(what, observations, actions, outcomes, final=final, name=name)
