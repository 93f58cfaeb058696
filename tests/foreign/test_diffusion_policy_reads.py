"""Diffusion Policy's own ReplayBuffer against stores and exports; see README.md in this folder."""

import os
import subprocess
from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from foreign_data import a_source, an_episode

from diffpolicy.data.demonstration import Demonstration
from diffpolicy.data.demonstration_writer import DemonstrationWriter
from diffpolicy.data.formats import diffusion_policy
from diffpolicy.data.formats.options import ExportOptions

READ = Path(__file__).with_name("read_diffusion_policy.py")
PYTHON = "DIFFPOLICY_DIFFUSION_POLICY_PYTHON"


def episodes() -> list[Demonstration]:
    """Three episodes without groups of arrays, which its reader takes for arrays."""
    held = []
    for seed, steps in enumerate((5, 1, 12)):
        found = an_episode(steps, seed)
        kept = {k: x for k, x in found.arrays.items() if "/" not in k}
        held.append(
            replace(found, arrays=kept, final={k: found.final[k] for k in found.final if k in kept})
        )
    return held


def recorded(held: list[Demonstration], path: Path) -> None:
    with closing(DemonstrationWriter(path, {})) as writer:
        for number, episode in enumerate(held):
            writer.append(episode, number)


def exported(held: list[Demonstration], path: Path) -> None:
    source: Any = a_source(held)
    diffusion_policy.write(source, ExportOptions(format="zarr", out=path), path)


@pytest.mark.parametrize(
    ("make", "name"), [(recorded, "s.zarr"), (exported, "e.zarr"), (exported, "e.zarr.zip")]
)
def test_diffusion_policy_reads_what_was_written(make, name, tmp_path):
    """Every array and the ends of episodes, to the bit, by every way that opens the store."""
    python = os.environ.get(PYTHON)
    if not python:
        pytest.skip(f"{PYTHON} does not name a Python that has Diffusion Policy")
    held, path, out = episodes(), tmp_path / name, tmp_path / "out.npz"
    make(held, path)
    subprocess.run([python, READ, path, out], check=True)
    with np.load(out) as found:
        ways = {key.partition("/")[0] for key in found}
        assert len(ways) == (1 if name.endswith(".zip") else 2)
        for way in ways:
            check(found, way, held)


def check(found: Mapping[str, np.ndarray], way: str, held: list[Demonstration]) -> None:
    assert found[f"{way}/episode_ends"].tolist() == np.cumsum([len(e) for e in held]).tolist()
    for key in held[0].arrays:
        expected = np.concatenate([e.arrays[key] for e in held])
        assert found[f"{way}/{key}"].dtype == expected.dtype
        assert np.array_equal(found[f"{way}/{key}"], expected)
    reward = np.concatenate([e.outcomes["reward"] for e in held])
    assert np.array_equal(found[f"{way}/reward"], reward)
