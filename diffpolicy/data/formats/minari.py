"""Reader of Minari's local data sets, through its own library (Minari 0.4 to 0.5).

    NAMESPACE/NAME-vN/data/metadata.json, and main_data.hdf5 or one folder of arrow or parquet files
    an episode. T + 1 observations, T actions, rewards, terminations and truncations.

The metadata and the sizes in the files are checked first: the library itself would make the
environment that they name, and read any amount.
"""

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from diffpolicy.checked import read_json
from diffpolicy.data.demonstration import REWARD, TERMINATED, TRUNCATED, Demonstration
from diffpolicy.data.formats.minari_files import (
    MAIN_FILE,
    check_episode,
    episodes_on_disk,
    is_raw,
    pictures,
)
from diffpolicy.data.formats.opened import (
    Opened,
    declared,
    demonstration,
    flat_or_named,
    kept_names,
)
from diffpolicy.data.formats.options import SourceOptions
from diffpolicy.data.zarr_store import as_one_error
from diffpolicy.errors import DiffpolicyError
from diffpolicy.specification import FLAT

OWN = "diffpolicy"  # key of the metadata with what this project's exports know besides
FORMATS = ("hdf5", "arrow", "parquet")
OUTCOMES = {"rewards": REWARD, "terminations": TERMINATED, "truncations": TRUNCATED}
SUCCESS = "success"


def matches(path: Path) -> bool:
    """True for a data set's folder, or the folder data in it."""
    return any((p / "metadata.json").is_file() and _is_data(p) for p in (path / "data", path))


def _is_data(folder: Path) -> bool:
    return (folder / MAIN_FILE).is_file() or (folder / "0" / "metadata.json").is_file()


def open_source(path: Path, options: SourceOptions) -> Opened:
    """Open a data set without its environment. Raises DiffpolicyError."""
    folder = path / "data" if (path / "data" / "metadata.json").exists() else path
    metadata = _metadata(folder)
    with _reading(path):
        dataset = _library(path).MinariDataset(folder)
        count = int(dataset.total_episodes)
        space, own = dataset.observation_space, _own(metadata)
        raw = is_raw(folder, metadata, space)
        if raw:
            dataset.storage._jpeg_encoding = False  # 0.5.3 and older say nothing in the metadata
        keys = kept_names(_leaf_names(space), options.skip, str(path))
    named = flat_or_named(keys, not _parts(space))
    attributes, notes = _declared(dataset, own)
    notes += _losses(dataset, metadata, raw)

    def read(start: int) -> Iterator[Demonstration]:
        for number in range(start, count):
            what = f"{path}: episode {number}"
            steps = check_episode(folder, number, dataset.storage)
            with _reading(what):
                [episode] = dataset.iterate_episodes([number])
                found = _episode(episode, named, own.get("unknown") or (), what)
            if steps not in (None, len(found)):  # the library takes the first batch of rows
                raise DiffpolicyError(f"{what}: Minari reads {len(found)} of its {steps} steps")
            yield found

    return Opened("minari", path, count, read, attributes, tuple(notes))


def _library(path: Path) -> Any:
    try:
        import minari
    except ImportError:
        raise DiffpolicyError(
            f"reading {path} needs minari; install it with pip install 'diffpolicy[minari]'"
        ) from None
    return minari


@contextmanager
def _reading(what: object) -> Iterator[None]:
    """Errors of the library as one DiffpolicyError, and none of its warnings."""
    with as_one_error(what), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _metadata(folder: Path) -> dict[str, Any]:
    """Metadata with everything that the library would otherwise get from elsewhere."""
    metadata = read_json(folder / "metadata.json")
    where = f"{folder}/metadata.json"
    if not isinstance(metadata, dict) or metadata.get("data_format") not in FORMATS:
        raise DiffpolicyError(f"{where} does not name a data_format of {', '.join(FORMATS)}")
    for name in ("observation_space", "action_space"):
        if not isinstance(metadata.get(name), str):
            raise DiffpolicyError(
                f"{where} has no {name}, and it is not taken from the environment, whose code "
                "would run; write the data set again with Minari 0.5"
            )
    found = episodes_on_disk(folder, metadata["data_format"])
    if type(metadata.get("total_episodes")) is not int or metadata["total_episodes"] != found:
        raise DiffpolicyError(
            f"{where} counts {metadata.get('total_episodes')!r} episodes; the data hold {found}"
        )
    return metadata


def _own(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Facts that this project wrote besides."""
    own = metadata.get(OWN)
    return own if isinstance(own, dict) else {}


def _parts(space: Any) -> dict[str, Any]:
    """Spaces inside a Dict or Tuple, by name; none for another space."""
    from gymnasium import spaces

    if isinstance(space, spaces.Dict):
        return dict(space.spaces)
    return dict(_numbered(space.spaces)) if isinstance(space, spaces.Tuple) else {}


def _numbered(values: Any) -> Iterator[tuple[str, Any]]:
    return ((str(i), value) for i, value in enumerate(values))


def _leaf_names(space: Any) -> list[str]:
    """Names of the arrays of an observation, nested ones as "a/b"; FLAT for one array."""
    parts = _parts(space)
    if not parts:
        return [FLAT]
    found = []
    for name, part in parts.items():
        found += [f"{name}/{x}" for x in _leaf_names(part)] if _parts(part) else [name]
    return found


def _leaf(values: Any, name: str) -> np.ndarray:
    """The array of a name in nested values."""
    for part in name.split("/"):
        values = values[int(part)] if isinstance(values, tuple) else values[part]
    return np.asarray(values)


def _declared(dataset: Any, own: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Attributes that the metadata declare, and notes on what they do not."""
    notes, attributes = [], declared(own.get("attributes"))
    spec = dataset.env_spec
    if spec and "env_id" not in attributes:
        attributes |= {"env_id": str(spec.id), "env_kwargs": dict(spec.kwargs or {})}
        notes.append(f"{spec.id} is made by {spec.entry_point}; name its module with --env")
    return attributes, notes


def _losses(dataset: Any, metadata: Mapping[str, Any], raw: bool) -> list[str]:
    """Notes on pictures that are not the recorded ones, and on what a store does not hold."""
    notes = [
        f"success of an episode is any true row of infos/{SUCCESS}; other infos, options and seeds "
        "of resets are left out"
    ]
    if (
        metadata.get("jpeg_encoding", True)
        and not raw
        and list(pictures(dataset.observation_space))
    ):
        notes.append("pictures were compressed by JPEG when the data set was written: not exact")
    return notes


def _episode(episode: Any, keys: Mapping[str, str], unknown: Any, what: str) -> Demonstration:
    seen = episode.observations
    arrays = {FLAT: np.asarray(seen)} if FLAT in keys and not _nested(seen) else {}
    arrays = arrays or {ours: _leaf(seen, name) for name, ours in keys.items()}
    outcomes = {o: np.asarray(getattr(episode, n)) for n, o in OUTCOMES.items() if o not in unknown}
    if not np.isfinite(outcomes.get(REWARD, 0)).all():
        raise DiffpolicyError(f"{what} has rewards that are not finite")
    success = (episode.infos or {}).get(SUCCESS)
    known = None if success is None else bool(np.any(np.asarray(success)))
    actions = np.asarray(episode.actions)
    if any(x.dtype.kind not in "fiub" for x in (actions, *arrays.values(), *outcomes.values())):
        raise DiffpolicyError(f"{what} holds values that are not numbers")
    return demonstration(
        what, arrays, actions, outcomes, success=known, name=f"episode_{episode.id}"
    )


def _nested(values: Any) -> bool:
    return isinstance(values, dict | tuple)
