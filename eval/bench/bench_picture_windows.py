"""Random windows of pictures: `python eval/bench/bench_picture_windows.py --data STORE`.

Batches of 64 windows of two pictures and 16 actions of the human Push-T set, as the windows of
training give them, in memory or from disk (as beyond --picture-memory), against Diffusion Policy's
ways: float32 pictures in memory or a zarr store, sliced one sample at a time, divided by 255 with
channels first, and stacked by a DataLoader without workers. Its image dataset slices as many
pictures as actions; here it slices two. Blocks of the ways are interleaved, each way in a process
of its own for its memory. `diffpolicy import` makes small chunks, which are read faster from disk.
"""

# diffpolicy.eval is known to Python, not to pyright.
# pyright: reportMissingImports=false

import argparse
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from diffpolicy.data.demonstrations import contents, read_demonstrations
from diffpolicy.data.windows import Windows, make_windows
from diffpolicy.eval.gpu import HUMAN
from diffpolicy.specification import Horizons
from diffpolicy.training.learner import gather

BATCH, BLOCKS = 64, 9
HORIZONS = Horizons(2, 16, 8)
MIB = 2**20

Draw = Callable[[], Any]


def episode_ends(data: Path, rows: int) -> np.ndarray:
    """Ends [E] of the episodes within so many rows."""
    ends = contents(data).ends
    return ends[ends <= rows]


def by_index(data: Path, rows: int, on_disk: bool = False) -> Windows:
    """Windows over the pictures as uint8, read as training reads them."""
    source = replace(contents(data), ends=episode_ends(data, rows))
    found = read_demonstrations(source, ["img"], on_disk=on_disk)
    return make_windows({"img": found.arrays["img"]}, found.action, source.ends, HORIZONS)


class OneByOne(Dataset):
    """Slices of arrays [N, …], padded at the ends of episodes, as floats in [0, 1], [T_o, C, H, W].

    pictures: a NumPy array, or a zarr array that is read for each sample.
    """

    def __init__(self, pictures: Any, actions: np.ndarray, ends: np.ndarray):
        self.pictures, self.actions = pictures, actions
        index = make_windows({}, actions, ends, HORIZONS)
        self.newest, self.first, self.last = index.newest, index.first, index.last

    def __len__(self) -> int:
        return len(self.newest)

    def __getitem__(self, i: int) -> dict[str, torch.Tensor]:
        begin = self.newest[i] - HORIZONS.observation + 1
        seen = self._slice(self.pictures, i, begin, HORIZONS.observation)
        action = self._slice(self.actions, i, begin, HORIZONS.prediction)
        image = np.moveaxis(seen, -1, 1).astype(np.float32) / 255
        return {"image": torch.from_numpy(image), "action": torch.from_numpy(action)}

    def _slice(self, array: Any, i: int, begin: int, count: int) -> np.ndarray:
        first, last = self.first[i], self.last[i]
        values = array[max(begin, first) : min(begin + count, last + 1)]
        before, after = max(0, first - begin), max(0, begin + count - last - 1)
        return np.concatenate([values[:1]] * before + [values] + [values[-1:]] * after)


def endless(loader: DataLoader) -> Iterator[Any]:
    """Batches of one epoch after another."""
    while True:
        yield from loader


def loaded(data: Path, rows: int, in_memory: bool) -> Draw:
    """Draw from a DataLoader over float32 pictures in memory, or over the store."""
    source, ends = contents(data), episode_ends(data, rows)
    pictures = source.array("img")[0]
    pictures = pictures[: ends[-1]] if in_memory else pictures
    actions = np.asarray(source.array("action")[0][: ends[-1]], np.float32)
    batches = endless(DataLoader(OneByOne(pictures, actions, ends), BATCH, shuffle=True))
    return lambda: next(batches)


def indexed(data: Path, rows: int, as_floats: bool) -> Draw:
    """Draw windows by index: bytes, or floats in [0, 1] with channels first."""
    windows = by_index(data, rows)

    def draw() -> Any:
        observations, action, real = gather(windows, torch.randint(len(windows), (BATCH,)))
        if as_floats:
            observations["img"] = observations["img"].permute(0, 1, 4, 2, 3).float().div_(255)
        return observations, action, real

    return draw


def from_disk(data: Path, rows: int, on_disk: bool) -> Draw:
    """Draw windows by index, as bytes, of pictures that are not held in memory."""
    windows = by_index(data, rows, on_disk)
    return lambda: gather(windows, torch.randint(len(windows), (BATCH,)))


WAYS = {  # name: (maker, argument, batches of a block)
    "uint8 by index": (indexed, False, 40),
    "uint8 by index, then floats": (indexed, True, 20),
    "uint8 on disk, by index": (from_disk, True, 4),
    "float32 in memory, one by one": (loaded, True, 10),
    "zarr store, one by one": (loaded, False, 1),
}


def memory_mib(name: str) -> float:
    """Memory of this process in MiB from /proc: VmRSS (current) or VmHWM (peak)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) / 1024
    raise LookupError(name)


def serve(pipe: Connection, way: str, data: Path, rows: int) -> None:
    """Time a block of batches for each request; at the end send the memory that the way took."""
    import zarr  # noqa: F401  imported before the memory is read

    torch.set_num_threads(1)
    torch.manual_seed(0)
    before = memory_mib("VmRSS")
    maker, argument, batches = WAYS[way]
    draw = maker(data, rows, argument)
    draw()
    pipe.send("ready")
    while pipe.recv():
        begin = time.perf_counter()
        for _ in range(batches):
            draw()
        pipe.send((time.perf_counter() - begin) / batches)
    pipe.send(memory_mib("VmHWM") - before)


def measure(data: Path, rows: int) -> dict[str, tuple[float, float]]:
    """{way: (median seconds of a batch, MiB)}."""
    context, pipes, processes = multiprocessing.get_context("spawn"), {}, []
    for way in WAYS:
        pipes[way], theirs = context.Pipe()
        processes.append(context.Process(target=serve, args=(theirs, way, data, rows)))
        processes[-1].start()
        pipes[way].recv()
    times: dict[str, list[float]] = {way: [] for way in WAYS}
    for _ in range(BLOCKS):
        for way, pipe in pipes.items():
            pipe.send(True)
            times[way].append(pipe.recv())
    found = {}
    for way, pipe in pipes.items():
        pipe.send(False)
        found[way] = float(np.median(times[way])), pipe.recv()
    for process in processes:
        process.join()
    return found


def main() -> None:
    """Print time and memory of each way, and their ratios to windows by index."""
    demos = os.environ.get("DIFFPOLICY_DEMOS", ".")
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, default=Path(demos) / HUMAN)
    parser.add_argument("--rows", type=int, default=10**9, help="read at most so many rows")
    arguments = parser.parse_args()
    found = measure(arguments.data, arguments.rows)
    quick, small = found["uint8 by index"]
    print(f"batches of {BATCH} windows, {episode_ends(arguments.data, arguments.rows)[-1]:,} rows")
    for way, (seconds, mib) in found.items():
        print(
            f"{way:<30} {1e3 * seconds:8.2f} ms, {mib:6.0f} MiB; "
            f"time × {seconds / quick:.1f}, memory × {mib / small:.2f}"
        )


if __name__ == "__main__":
    main()
