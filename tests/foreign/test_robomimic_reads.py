"""robomimic's own reader against exports; see robomimic.md in this folder."""

import os
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from foreign_data import a_source, an_episode

from diffpolicy.data.formats import robomimic_writer
from diffpolicy.data.formats.options import ExportOptions

READ = Path(__file__).with_name("read_robomimic.py")
PYTHON = "DIFFPOLICY_ROBOMIMIC_PYTHON"


def test_robomimic_reads_what_was_written(tmp_path):
    """Windows of two steps, those beyond the end repeating the last one, to the bit."""
    python = os.environ.get(PYTHON)
    if not python:
        pytest.skip(f"{PYTHON} does not name a Python that has robomimic")
    held = [an_episode(steps, seed) for seed, steps in enumerate((5, 1, 12))]
    keys = ["observation", "joint"]
    for i, episode in enumerate(held):
        arrays, final = (
            {"observation": x["observation"], "joint": x["robot/joint"]}
            for x in (episode.arrays, episode.final)
        )
        arrays["action"] = episode.arrays["action"]
        held[i] = replace(episode, arrays=arrays, final=final)
    path, out = tmp_path / "out.hdf5", tmp_path / "out.npz"
    source: Any = a_source(held)
    robomimic_writer.write(source, ExportOptions(format="robomimic", out=path), path)
    subprocess.run([python, READ, path, out, *keys], check=True)
    with np.load(out) as found:
        assert found["demos"].tolist() == ["demo_0", "demo_1", "demo_2"]
        assert np.array_equal(found["actions"], windows([e.arrays["action"] for e in held]))
        assert np.array_equal(found["rewards"], windows([e.outcomes["reward"] for e in held]))
        ends = [np.arange(len(e)) == len(e) - 1 for e in held]
        assert np.array_equal(found["dones"], windows(ends))
        for key in keys:
            assert np.array_equal(found[f"obs/{key}"], windows([e.arrays[key] for e in held]))
            after = [np.concatenate([e.arrays[key][1:], e.final[key][None]]) for e in held]
            assert np.array_equal(found[f"next_obs/{key}"], windows(after))


def windows(episodes: list[np.ndarray]) -> np.ndarray:
    """[N, 2, …]: every row with the next one of its episode, the last one twice."""
    return np.concatenate([np.stack([x, np.concatenate([x[1:], x[-1:]])], 1) for x in episodes])
