"""Episodes that the sample data sets hold, and comparison of episodes to the bit."""

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest

from diffpolicy.data.demonstration import OUTCOMES, Demonstration
from diffpolicy.data.formats.opened import Opened
from diffpolicy.specification import ACTION


def samples() -> Path:
    """Folder of the sample data sets, or skip the test."""
    folder = os.environ.get("DIFFPOLICY_SAMPLES")
    if not folder:
        pytest.skip("DIFFPOLICY_SAMPLES does not name the folder of sample data sets")
    return Path(folder)


def recorded() -> list[dict[str, np.ndarray]]:
    """Arrays of the three episodes that every sample holds: observations [T + 1, 4], …"""
    with np.load(samples() / "source.npz") as file:
        names = {name.rpartition("_")[0] for name in file.files}
        return [{name: file[f"{name}_{i}"] for name in names} for i in range(3)]


def assert_equal(found: np.ndarray, expected: np.ndarray) -> None:
    """Equal types, shapes and bits."""
    assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
    assert np.array_equal(found, expected)


def assert_alike(found: Demonstration, expected: Demonstration) -> None:
    """Equal arrays, outcomes, final observations and success."""
    for part in ("arrays", "outcomes", "final"):
        assert_maps_equal(getattr(found, part), getattr(expected, part))
    assert found.success == expected.success


def assert_maps_equal(found: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray]) -> None:
    """Equal arrays of equal names."""
    assert set(found) == set(expected)
    for name, values in expected.items():
        assert_equal(np.asarray(found[name]), np.asarray(values))


def a_source(episodes: Iterable[Demonstration], **attributes) -> Opened:
    """A source of given episodes."""
    held = list(episodes)

    def read(start: int) -> Iterator[Demonstration]:
        yield from held[start:]

    return Opened("test", Path("test"), len(held), read, attributes)


def an_episode(steps: int, seed: int = 0, **changes) -> Demonstration:
    """An episode with everything that a format may hold."""
    rng = np.random.default_rng(seed)
    arrays = {
        "observation": rng.normal(size=(steps, 3)),
        "robot/joint": rng.normal(size=(steps, 2)).astype(np.float32),
        "camera": rng.integers(0, 256, (steps, 40, 36, 3), dtype=np.uint8),
        ACTION: rng.normal(size=(steps, 2)).astype(np.float32),
    }
    final = {
        k: rng.permutation(x.ravel())[: x[0].size].reshape(x[0].shape) for k, x in arrays.items()
    }
    del final[ACTION]
    ends = np.arange(steps) == steps - 1
    outcomes = dict(zip(OUTCOMES, (rng.normal(size=steps).astype("f4"), ends, ~ends), strict=True))
    whole = {"arrays": arrays, "outcomes": outcomes, "final": final, "success": bool(seed % 2)}
    return Demonstration(**{**whole, **changes})
