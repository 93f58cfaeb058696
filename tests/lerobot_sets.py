"""Demonstrations of every kind, as a source, and LeRobot data sets that hold them."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from diffpolicy.data.demonstration import Demonstration
from diffpolicy.data.formats.lerobot_writer import write
from diffpolicy.data.formats.options import ExportOptions

FACTS = {"control_dt_s": 0.05, "position_targets": False, "env_id": "none", "env_kwargs": {"a": 1}}


@dataclass(frozen=True)
class Made:
    """A source that holds its episodes."""

    held: list[Demonstration]
    attributes: dict[str, Any] = field(default_factory=lambda: dict(FACTS))
    format: str = "zarr"
    path: Path = Path("made")
    notes: tuple[str, ...] = ()

    def __len__(self):
        return len(self.held)

    def episodes(self, start=0):
        yield from self.held[start:]


def episode(seed: int, length: int, pictures=False, **more) -> Demonstration:
    """One episode of random numbers: vectors, matrices, rows without dimensions, whole numbers."""
    rng = np.random.default_rng(seed)
    arrays = {
        "observation": rng.standard_normal((length, 3)).astype(np.float32),
        "robot/joint": rng.standard_normal((length, 2, 4)),
        "contacts": rng.integers(-5, 5, length),
        "open": rng.integers(0, 2, (length, 1)).astype(bool),
        "action": rng.standard_normal((length, 2)).astype(np.float32),
    }
    if pictures:
        arrays["top"] = rng.integers(0, 256, (length, 10, 12, 3), dtype=np.uint8)
        arrays["grey"] = rng.integers(0, 256, (length, 8, 9, 1), dtype=np.uint8)
    ends = np.arange(length) == length - 1
    outcomes = {
        "reward": rng.standard_normal(length).astype(np.float32),
        "terminated": ends,
        "truncated": ~ends,
    }
    return Demonstration(arrays, outcomes, **more)


def episodes(pictures=False) -> list[Demonstration]:
    """Four episodes, of lengths 1 to 7, of two tasks, one of unknown success."""
    facts = [(5, True, "push"), (1, False, "pull"), (7, None, "push"), (2, True, "")]
    return [
        episode(i, n, pictures, success=success, task=task, name=f"episode_{i:06d}")
        for i, (n, success, task) in enumerate(facts)
    ]


def exported(folder: Path, version="3.0", source: Made | None = None, **options) -> list[str]:
    """Write a source; return the notes."""
    form = ExportOptions(format=f"lerobot-{version}", out=folder, **options)
    return list(write(source or Made(episodes()), form, folder))


def assert_equal(found: Demonstration, expected: Demonstration) -> None:
    """Equal to the bit, types and facts too."""
    for one, other in ((found.arrays, expected.arrays), (found.outcomes, expected.outcomes)):
        assert one.keys() == other.keys()
        for name, values in one.items():
            assert values.dtype == other[name].dtype
            assert values.shape == other[name].shape
            assert np.array_equal(values, other[name])
    assert (found.success, found.task) == (expected.success, expected.task)
    assert found.name == expected.name
