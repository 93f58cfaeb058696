"""Writer of Minari data sets (HDF5, pictures without loss), through its own library.

Shapes: T actions of an episode.
"""

import os
import shutil
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
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
from diffpolicy.data.formats.minari import OWN, SUCCESS
from diffpolicy.data.formats.opened import without_place
from diffpolicy.data.formats.options import ExportOptions
from diffpolicy.errors import DiffpolicyError, one_line
from diffpolicy.specification import ACTION, FLAT, NO_ENVIRONMENT

ROOT = "MINARI_DATASETS_PATH"
NAMESPACE = "namespace_metadata.json"


def write(source: Source, options: ExportOptions, partial: Path) -> Sequence[str]:
    """Write a data set; return a sentence for everything that it does not hold.

    The id is NAMESPACE/NAME-vN, the end of `options.out`. Nothing is left after a failure.
    """
    minari = _library(options.out)
    name = dataset_id(options.out)
    root = partial.absolute().with_name(f"{partial.name}.root")
    try:
        with _datasets_in(root), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # one for each absent piece of metadata
            lost = _write(minari, source, name)
        (root / name).rename(partial)
    except (ValueError, TypeError, AssertionError) as error:
        raise DiffpolicyError(f"{options.out} cannot be written: {one_line(error)}") from error
    finally:
        shutil.rmtree(root, ignore_errors=True)
    namespace = options.out.parent / NAMESPACE
    if not namespace.exists():
        namespace.write_text("{}", encoding="utf-8")
    return sorted(lost)


def dataset_id(out: Path) -> str:
    """The id that a path ends with. Raises DiffpolicyError for a path without one."""
    from minari.dataset.minari_dataset import parse_dataset_id

    name = "/".join(out.absolute().parts[-2:])
    try:
        namespace, _, _ = parse_dataset_id(name)
    except (TypeError, ValueError):
        namespace = None
    if not namespace:
        raise DiffpolicyError(
            f"{out} is not a place for a Minari data set; expected FOLDER/NAMESPACE/NAME-vN, such "
            f"as minari/mine/push-v0, with letters, digits, - and _; got {name!r}"
        )
    return name


def _library(out: Path) -> Any:
    try:
        import h5py  # noqa: F401
        import minari
    except ImportError:
        raise DiffpolicyError(
            f"writing {out} needs minari; install it with pip install 'diffpolicy[minari]'"
        ) from None
    return minari


@contextmanager
def _datasets_in(root: Path) -> Iterator[None]:
    """Let the library keep its data sets in a folder."""
    before = os.environ.get(ROOT)
    os.environ[ROOT] = str(root)
    try:
        yield
    finally:
        if before is None:
            del os.environ[ROOT]
        else:
            os.environ[ROOT] = before


def _write(minari: Any, source: Source, name: str) -> set[str]:
    """Write all episodes; return sentences about what is lost."""
    env, lost = _environment(source.attributes)
    dataset, unknown = None, set()
    try:
        for episode in alike(source):
            buffer, absent, missing = _buffer(episode)
            lost |= missing
            unknown |= absent
            if dataset is None:
                dataset = _created(minari, name, buffer, env)
            else:
                dataset.storage.update_episodes([buffer])
    finally:
        if env is not None:
            env.close()
    if dataset is None:
        raise DiffpolicyError(f"{source.path} holds no episode")
    own = {name: source.attributes[name] for name in READ if name in source.attributes}
    dataset.storage.update_metadata({OWN: {"attributes": own, "unknown": sorted(unknown)}})
    return lost | set(without_place(source.attributes))


def _environment(attributes: Mapping[str, Any]) -> tuple[Any, set[str]]:
    """The environment that the attributes name, made, or None and the reason."""
    import gymnasium

    if (name := attributes.get("env_id")) in (None, NO_ENVIRONMENT):
        return None, {"the environment, which is unknown"}
    try:
        return gymnasium.make(name, **(attributes.get("env_kwargs") or {})), set()
    except Exception as error:  # of any environment
        return None, {f"the environment: {name} cannot be made here ({one_line(error)})"}


def _created(minari: Any, name: str, buffer: Any, env: Any) -> Any:
    """A data set with its first episode."""
    observation, action = _space(buffer.observations), _space(buffer.actions)
    if env is not None and _alike(env.action_space, action):
        action = env.action_space
    return minari.create_dataset_from_buffers(
        name,
        [buffer],
        env=env,
        observation_space=observation,
        action_space=action,
        data_format="hdf5",
        jpeg_encoding=False,
    )


def _space(values: Any) -> Any:
    """Space of arrays [T, …], a Dict for those with names: what their types can hold."""
    from gymnasium import spaces

    if isinstance(values, dict):
        return spaces.Dict({name: _space(part) for name, part in values.items()})
    if values.dtype.kind == "f":
        return spaces.Box(-np.inf, np.inf, values.shape[1:], values.dtype.type)
    limits = (0, 1) if values.dtype.kind == "b" else _limits(values.dtype)
    return spaces.Box(*limits, values.shape[1:], values.dtype.type)


def _limits(dtype: np.dtype) -> tuple[int, int]:
    return int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)


def _alike(space: Any, other: Any) -> bool:
    return type(space) is type(other) and (space.shape, space.dtype) == (other.shape, other.dtype)


def _buffer(episode: Demonstration) -> tuple[Any, set[str], set[str]]:
    """An episode in the library's form, outcomes that are unknown, sentences about what is lost."""
    from minari.data_collector import EpisodeBuffer

    episode_buffer: Any = EpisodeBuffer  # it says lists and takes arrays
    seen = {key: x for key, x in episode.arrays.items() if key != ACTION}
    if set(episode.final) == set(seen):
        steps, lost = len(episode), set()
        seen = {key: np.concatenate([x, episode.final[key][None]]) for key, x in seen.items()}
    else:
        steps = len(episode) - 1
        lost = {
            "the last action of each episode: the observation after it, which Minari needs, is "
            "unknown"
        }
    if not steps:
        raise DiffpolicyError(
            f"episode {episode.name!r} has one step and no observation after it, so Minari cannot "
            "hold it; leave it out with diffpolicy filter --shortest 2"
        )
    outcomes = _outcomes(episode, steps)
    unknown = {name for name in outcomes if name not in episode.outcomes}
    lost |= {
        f"{name}, which is unknown and {text}" for name, text in UNKNOWN.items() if name in unknown
    }
    lost |= {"tasks in words"} if episode.task else set()
    lost |= {"names of the episodes"} if episode.name else set()
    buffer = episode_buffer(
        observations=seen[FLAT] if set(seen) == {FLAT} else nested(seen),
        actions=episode.arrays[ACTION][:steps],
        rewards=outcomes[REWARD],
        terminations=outcomes[TERMINATED],
        truncations=outcomes[TRUNCATED],
        infos=_infos(episode.success, steps),
    )
    return buffer, unknown, lost


UNKNOWN = {
    REWARD: "written as NaN",
    TERMINATED: "written as false",
    TRUNCATED: "written as true in the last row",
}


def _outcomes(episode: Demonstration, steps: int) -> dict[str, np.ndarray]:
    """Outcomes [T], with the stand-ins of `UNKNOWN`; an episode that is cut off is truncated."""
    stand_in = {
        REWARD: np.full(steps, np.nan, np.float32),
        TERMINATED: np.zeros(steps, bool),
        TRUNCATED: np.arange(1, steps + 1) == steps,
    }
    found = {name: values[:steps].copy() for name, values in episode.outcomes.items()}
    if steps < len(episode) and TRUNCATED in found:
        found[TRUNCATED][-1] = True
    return {**stand_in, **found}


def _infos(success: bool | None, steps: int) -> dict[str, np.ndarray] | None:
    """Success of an episode, as info of its last step."""
    return None if success is None else {SUCCESS: (np.arange(steps + 1) == steps) & success}


def nested(arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """{"a/b": x} as {"a": {"b": x}}: the library keeps parts of an observation apart."""
    found: dict[str, Any] = {}
    for name, values in arrays.items():
        *parents, last = name.split("/")
        place = found
        for parent in parents:
            place = place.setdefault(parent, {})
        place[last] = values
    return found
