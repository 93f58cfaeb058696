"""Export to the zarr layout of Diffusion Policy's ReplayBuffer (format 2), as a folder or a zip.

    data/<key> [N, …], data/action [N, D_a]   flat: its reader takes a group for an array
    meta/episode_ends [E] int64               cumulative, and nothing else

Shapes: N rows, E episodes.
"""

import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from diffpolicy.data.demonstration import Demonstration, Source, alike, batches
from diffpolicy.data.demonstration_writer import layout
from diffpolicy.data.formats.options import ExportOptions
from diffpolicy.errors import DiffpolicyError


def write(source: Source, options: ExportOptions, partial: Path) -> list[str]:
    """Write a zarr folder, or a zip of one if the name ends in .zip; return what it cannot hold."""
    if options.out.suffix != ".zip":
        return _write_folder(source, partial)
    with tempfile.TemporaryDirectory(prefix=partial.name, dir=partial.parent) as folder:
        lost = _write_folder(source, Path(folder))
        with zipfile.ZipFile(partial, "w") as packed:  # the chunks are compressed already
            for path in sorted(Path(folder).rglob("*")):
                if path.is_file():
                    packed.write(path, path.relative_to(folder))
    return lost


def _write_folder(source: Source, folder: Path) -> list[str]:
    import zarr

    root: Any = zarr.create_group(folder, zarr_format=2, attributes=dict(source.attributes))
    names: dict[str, str] = {}
    arrays: dict[str, Any] = {}
    lengths, lost = [], set()
    with zarr.config.set({"array.write_empty_chunks": True}):
        for batch in batches(alike(source)):
            first = {**batch[0].arrays, **batch[0].outcomes}
            names = names or _flat(first)
            arrays = arrays or {name: _create(root, names[name], x) for name, x in first.items()}
            for name, array in arrays.items():
                array.append(_rows(batch, name, array.dtype))
            lengths += [len(episode) for episode in batch]
            lost |= {sentence for episode in batch for sentence in _lost(episode)}
        root.create_array("meta/episode_ends", data=np.cumsum(lengths, dtype=np.int64))
    renamed = {name: new for name, new in names.items() if new != name}
    return [*(f"the group of {n}; written as {new}" for n, new in renamed.items()), *sorted(lost)]


def _flat(arrays: Mapping[str, Any]) -> dict[str, str]:
    """{name: name without groups}."""
    names = {name: name.replace("/", "_") for name in arrays}
    if len(set(names.values())) < len(names):
        raise DiffpolicyError(f"names of {', '.join(names)} are not unique without their groups")
    return names


def _create(root: Any, name: str, values: np.ndarray) -> Any:
    shape = (0, *values.shape[1:])
    return root.create_array(f"data/{name}", shape=shape, dtype=values.dtype, **layout(values))


def _rows(batch: Sequence[Demonstration], name: str, kind: np.dtype) -> np.ndarray:
    """[Σ T, …] rows of one array of several episodes."""
    rows = [{**episode.arrays, **episode.outcomes}[name] for episode in batch]
    return np.concatenate(rows, dtype=kind, casting="same_kind")


def _lost(episode: Demonstration) -> list[str]:
    """Facts of an episode that the layout has no place for."""
    facts = {
        "the observation after the last action of each episode": episode.final,
        "success of each episode": episode.success is not None,
        "task texts": episode.task,
        "names of the episodes": episode.name,
    }
    return [sentence for sentence, known in facts.items() if known]
