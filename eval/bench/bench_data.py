"""Cost of data: `python eval/bench/bench_data.py`. Ratios of interleaved blocks of one run.

- windows by index against a DataLoader over the same windows, batch 256
- the data step as a share of a training step of the default network
- a store of 1,000,000 steps (20 observations, 2 actions, float32): open, draw, memory
"""

# diffpolicy.eval is known to Python, not to pyright.
# pyright: reportMissingImports=false

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader

from diffpolicy.config import ModelConfig
from diffpolicy.data.demonstration_writer import DemonstrationWriter
from diffpolicy.data.demonstrations import open_demonstrations
from diffpolicy.data.windows import Windows, make_windows
from diffpolicy.eval.measure.diffusers_loop import OneByOne
from diffpolicy.specification import Horizons, Specification, Task, flat_observation
from diffpolicy.training.learner import Learner, gather

BATCH, BLOCKS, BATCHES = 256, 7, 40
EPISODES, LENGTH, D_O, D_A = 5000, 200, 20, 2
MIB = 2**20


def median_s(*functions) -> list[float]:
    """Median time of each function over interleaved blocks, in seconds."""
    times: list[list[float]] = [[] for _ in functions]
    for _ in range(BLOCKS):
        for i, function in enumerate(functions):
            begin = time.perf_counter()
            function()
            times[i].append(time.perf_counter() - begin)
    return [float(np.median(t)) for t in times]


def loader_against_index(windows: Windows) -> None:
    """Print the rates of as many batches from a DataLoader and by index."""
    loader = DataLoader(OneByOne(windows), BATCH, shuffle=True)

    def by_loader() -> None:
        for i, _ in enumerate(loader):
            if i + 1 == BATCHES:
                return

    def by_index() -> None:
        for _ in range(BATCHES):
            gather(windows, torch.randint(len(windows), (BATCH,)))

    slow, fast = median_s(by_loader, by_index)
    samples = BATCH * BATCHES
    print(f"DataLoader {samples / slow:,.0f} windows/s, by index {samples / fast:,.0f}")
    print(f"  ratio {slow / fast:.1f}")


def share_of_training_step(windows: Windows) -> None:
    """Print the share of the data step in a training step of the default network."""
    task = Task("none", 0.1, True, flat_observation(D_O), D_A)
    specification = Specification(ModelConfig(), windows.horizons, task, 1.0, {})
    learner = Learner(specification, torch.device("cpu"))

    def data() -> None:
        for _ in range(10):
            gather(windows, torch.randint(len(windows), (BATCH,)))

    def whole() -> None:
        for _ in range(10):
            learner.learn(windows, BATCH, 0.5)

    part, all_of_it = median_s(data, whole)
    print(f"training step {100 * all_of_it:.1f} ms, of which data {100 * part:.2f} ms")
    print(f"  share {100 * part / all_of_it:.2f} %")


def big_store(path: Path) -> None:
    """Write 1,000,000 steps as `diffpolicy record` does, in ten large episodes."""
    rng = np.random.default_rng(0)
    writer = DemonstrationWriter(path, {"env_id": "none"})
    steps = EPISODES * LENGTH // 10
    for seed in range(10):
        observation = rng.standard_normal((steps, D_O), np.float32)
        action = rng.standard_normal((steps, D_A), np.float32)
        writer.append({"observation": observation, "action": action}, seed)


def memory_mib(name: str) -> float:
    """Memory of this process in MiB from /proc: VmRSS (current) or VmHWM (peak)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) / 1024
    raise LookupError(name)


def open_and_draw(path: Path) -> None:
    """Open a store and draw 100,000 windows in batches, in a process of its own for its memory."""
    import zarr  # noqa: F401  imported before the clock starts

    before = memory_mib("VmRSS")
    begin = time.perf_counter()
    store = open_demonstrations(path)
    opened = time.perf_counter()
    windows = make_windows(
        {"observation": store.arrays["observation"]},
        store.action,
        store.episode_ends,
        Horizons(2, 16, 8),
    )
    indexed = time.perf_counter()
    rng = np.random.default_rng(0)
    for _ in range(100_000 // BATCH + 1):
        windows.gather(rng.integers(0, len(windows), BATCH))
    drawn = time.perf_counter()
    peak = memory_mib("VmHWM") - before
    arrays = sum(a.nbytes for a in store.arrays.values()) / MIB
    print(f"1,000,000 steps: open {opened - begin:.2f} s, index {indexed - opened:.3f} s")
    print(f"  100,000 windows {drawn - indexed:.2f} s")
    print(f"  memory {peak:.0f} MiB for arrays of {arrays:.0f} MiB, ratio {peak / arrays:.2f}")


def main() -> None:
    """Run all three, or the last alone with --open STORE."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--open", type=Path)
    store = parser.parse_args().open
    if store:
        open_and_draw(store)
        return
    rng = np.random.default_rng(0)
    rows = 100 * LENGTH
    windows = make_windows(
        {"observation": rng.standard_normal((rows, D_O), np.float32)},
        rng.standard_normal((rows, D_A), np.float32),
        np.arange(1, 101) * LENGTH,
        Horizons(2, 16, 8),
    )
    loader_against_index(windows)
    share_of_training_step(windows)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "million.zarr"
        big_store(path)
        for _ in range(3):
            subprocess.run([sys.executable, __file__, "--open", path], check=True)


if __name__ == "__main__":
    main()
