"""Optional facts of a store about its episodes.

    data/reward, data/terminated, data/truncated [N]   outcome of each action
    final/<observation key> [E, …]      observation after the last action
    meta/success [E] int8               1, 0, or -1 for unknown
    meta/episode_tasks [E] int64        index into the attribute "tasks", or -1 without a task
    meta/episode_names [E, 256] uint8   name in the source: UTF-8, filled up with zeros
    meta/episode_hashes [E, 16] uint8   BLAKE2b of the episode's arrays, see `content_hash`

Shapes: N rows, E episodes. Readers of Diffusion Policy from before December 2024 take every item of
meta/ for an array, so that the group of final observations stands beside it.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from diffpolicy.data.demonstration import Demonstration
from diffpolicy.data.zarr_store import ZarrStore, check_memory, reading
from diffpolicy.errors import DiffpolicyError

FINAL, TASKS = "final", "tasks"  # a group, an attribute
SUCCESS, EPISODE_TASKS = "meta/success", "meta/episode_tasks"
NAMES, HASHES = "meta/episode_names", "meta/episode_hashes"
FORMS = {  # of one episode: (type, shape)
    SUCCESS: (np.int8, ()),
    EPISODE_TASKS: (np.int64, ()),
    NAMES: (np.uint8, (256,)),
    HASHES: (np.uint8, (16,)),
}
UNKNOWN = -1


def content_hash(episode: Demonstration) -> bytes:
    """BLAKE2b, 16 bytes, of names, types, shapes and bytes of the episode's arrays.

    They are those of observations and actions, outcomes and final observations.
    """
    digest = hashlib.blake2b(digest_size=16)
    finals = {f"{FINAL}/{key}": values for key, values in episode.final.items()}
    arrays = {**episode.arrays, **episode.outcomes, **finals}
    for name in sorted(arrays):
        values = np.ascontiguousarray(arrays[name])
        digest.update(repr((name, values.dtype.str, values.shape)).encode())
        digest.update(values.data)
    return digest.digest()


def known_facts(episodes: Sequence[Demonstration]) -> set[str]:
    """Names of the arrays of facts that at least one of the episodes needs."""
    known = {f"{FINAL}/{key}" for episode in episodes for key in episode.final}
    known |= {SUCCESS} if any(e.success is not None for e in episodes) else set()
    known |= {EPISODE_TASKS} if any(e.task for e in episodes) else set()
    return known | ({NAMES, HASHES} if any(e.name for e in episodes) else set())


def packed(
    episodes: Sequence[Demonstration], wanted: Sequence[str], tasks: list[str]
) -> dict[str, np.ndarray]:
    """The wanted arrays of facts, [len(episodes), …]; new tasks are appended to `tasks`."""
    numbers = {task: number for number, task in enumerate(tasks)}
    for task in dict.fromkeys(e.task for e in episodes if e.task and EPISODE_TASKS in wanted):
        if task not in numbers:
            numbers[task] = len(tasks)
            tasks.append(task)
    values = {
        SUCCESS: lambda e: UNKNOWN if e.success is None else int(e.success),
        EPISODE_TASKS: lambda e: numbers.get(e.task, UNKNOWN),
        NAMES: lambda e: _encoded(e.name),
        HASHES: lambda e: np.frombuffer(content_hash(e), np.uint8),
    }
    return {
        name: np.array([values[name](e) for e in episodes], FORMS[name][0])
        if name in FORMS
        else _finals(episodes, name.removeprefix(f"{FINAL}/"))
        for name in wanted
    }


def _encoded(name: str) -> np.ndarray:
    [width] = FORMS[NAMES][1]
    encoded = name.encode()
    if len(encoded) > width or b"\0" in encoded:
        raise DiffpolicyError(f"an episode's name takes at most {width} bytes; got {name[:80]!r}…")
    return np.frombuffer(encoded.ljust(width, b"\0"), np.uint8)


def _finals(episodes: Sequence[Demonstration], key: str) -> np.ndarray:
    """[len(episodes), …] final observations of one key, as rows of its array."""
    finals = []
    for episode in episodes:
        if key not in episode.final:
            raise DiffpolicyError(f"an episode has no final {key!r}, as others of its store have")
        final = np.asarray(episode.final[key])
        if key not in episode.arrays or final.shape != np.shape(episode.arrays[key])[1:]:
            raise DiffpolicyError(
                f"an episode's final {key!r} has the shape {list(final.shape)}; expected that of "
                f"one row of the array {key!r}"
            )
        finals.append(final)
    return np.stack(finals)


@dataclass(frozen=True)
class EpisodeFacts:
    """Facts of E episodes; None, or empty, for those that the store does not hold.

    final: {key: zarr array [E, …]}, not read yet. success: [E] int8, -1 for unknown. tasks, names:
    text of each episode. hashes: [E, 16] uint8.
    """

    final: dict[str, Any]
    success: np.ndarray | None
    tasks: list[str] | None
    names: list[str] | None
    hashes: np.ndarray | None


def stored_facts(store: ZarrStore, episodes: int) -> EpisodeFacts:
    """Read the facts of the first episodes of a store; DiffpolicyError for damaged ones."""
    held = {name for name in FORMS if name.removeprefix("meta/") in store.names("meta")}
    read = {name: _read(store, name, episodes) for name in held}
    names = read.get(NAMES)
    return EpisodeFacts(
        {key: fact_array(store, f"{FINAL}/{key}", episodes) for key in store.names(FINAL)},
        read.get(SUCCESS),
        _texts(store, read[EPISODE_TASKS]) if EPISODE_TASKS in held else None,
        None if names is None else [_decoded(store, name) for name in names],
        read.get(HASHES),
    )


def fact_array(store: ZarrStore, name: str, episodes: int) -> Any:
    """A zarr array with a row for each of the first episodes; DiffpolicyError for any other."""
    array = store.array(name)
    kind, row = FORMS.get(name, (array.dtype, array.shape[1:]))
    if array.dtype != kind or array.shape[1:] != row or array.shape[0] < episodes:
        raise DiffpolicyError(
            f"{store.path}: {name} must be {np.dtype(kind)} {[episodes, *row]}; got {array.dtype} "
            f"{list(array.shape)}; the store is damaged: copy it again"
        )
    store.check_chunks(array, episodes, complete=True)
    return array


def _read(store: ZarrStore, name: str, episodes: int) -> np.ndarray:
    array = fact_array(store, name, episodes)
    check_memory(array, episodes, f"{store.path}: {name}")
    with reading(f"{store.path}: {name}"):
        return array[:episodes]


def stored_tasks(store: ZarrStore) -> list[str]:
    """Texts of the attribute "tasks"; DiffpolicyError if it is not a list of texts."""
    tasks = store.attributes.get(TASKS, [])
    if not isinstance(tasks, list) or not all(isinstance(task, str) for task in tasks):
        raise DiffpolicyError(f"{store.path}: the attribute {TASKS} is not a list of texts")
    return list(tasks)


def _texts(store: ZarrStore, numbers: np.ndarray) -> list[str]:
    tasks = stored_tasks(store)
    if numbers.size and not UNKNOWN <= numbers.min() <= numbers.max() < len(tasks):
        raise DiffpolicyError(f"{store.path}: {EPISODE_TASKS} names tasks that {TASKS} lacks")
    texts = [*tasks, ""]  # number -1 is the last one
    return [texts[number] for number in numbers]


def _decoded(store: ZarrStore, name: np.ndarray) -> str:
    try:
        return name.tobytes().rstrip(b"\0").decode()
    except UnicodeDecodeError as error:
        raise DiffpolicyError(f"{store.path}: {NAMES} is not UTF-8; copy it again") from error
