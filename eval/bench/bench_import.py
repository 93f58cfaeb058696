"""Cost of importing LeRobot data: `python eval/bench/bench_import.py`; one core, one process each.

A data set 3.0 of 1,000,000 rows (14 states, 7 actions, a reward; episodes of 200) is made in a
temporary folder, once with a group of rows for each episode, as lerobot records, and once with few
large groups, as its converters write. Printed are rows per second of the wall clock and of CPU
time, and the peak of memory, of reading alone and of the import to a store.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from diffpolicy.data.formats.lerobot import open_source
from diffpolicy.data.formats.lerobot_layout import Feature
from diffpolicy.data.formats.lerobot_tables import table

EPISODES, LENGTH, FPS = 5000, 200, 50
ROWS = EPISODES * LENGTH
FEATURES = {
    "observation.state": Feature("float32", (14,)),
    "action": Feature("float32", (7,)),
    "next.reward": Feature("float32", (1,)),
    "timestamp": Feature("float32", (1,)),
    **{n: Feature("int64", (1,)) for n in ("frame_index", "episode_index", "index", "task_index")},
}


def make(folder: Path, group_rows: int) -> None:
    """Write the data set, in groups of so many rows."""
    rng, frames = np.random.default_rng(0), np.arange(ROWS)
    columns = {
        name: rng.standard_normal((ROWS, *feature.shape), np.float32)
        for name, feature in FEATURES.items()
        if feature.dtype == "float32"
    }
    columns["timestamp"] = (frames % LENGTH / FPS).astype(np.float32)[:, None]
    columns |= {"frame_index": frames % LENGTH, "episode_index": frames // LENGTH}
    columns |= {"index": frames, "task_index": np.zeros_like(frames)}
    for folder_name in ("data/chunk-000", "meta/episodes/chunk-000"):
        (folder / folder_name).mkdir(parents=True)
    rows = table(columns, FEATURES)
    pq.write_table(rows, folder / "data/chunk-000/file-000.parquet", row_group_size=group_rows)
    numbers = np.arange(EPISODES)
    episodes = {
        "episode_index": numbers,
        "tasks": [["push"]] * EPISODES,
        "length": np.full(EPISODES, LENGTH),
        "data/chunk_index": np.zeros_like(numbers),
        "data/file_index": np.zeros_like(numbers),
        "dataset_from_index": numbers * LENGTH,
        "dataset_to_index": (numbers + 1) * LENGTH,
    }
    pq.write_table(pa.table(episodes), folder / "meta/episodes/chunk-000/file-000.parquet")
    pq.write_table(pa.table({"task_index": [0], "task": ["push"]}), folder / "meta/tasks.parquet")
    info = {
        "codebase_version": "v3.0",
        "fps": FPS,
        "total_episodes": EPISODES,
        "total_frames": ROWS,
        "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
        "features": {name: asdict(feature) for name, feature in FEATURES.items()},
    }
    (folder / "meta/info.json").write_text(json.dumps(info))


def read(folder: Path) -> None:
    """Read every episode; print the rate and the peak of memory."""
    begin = time.perf_counter(), time.process_time()
    rows = sum(len(episode) for episode in open_source(folder).episodes())
    _print("read", rows, *begin)


def import_(folder: Path, out: Path) -> None:
    """Import to a store; print the rate and the peak of memory."""
    from diffpolicy.stores.config import ImportConfig
    from diffpolicy.stores.importing import import_store

    begin = time.perf_counter(), time.process_time()
    import_store(ImportConfig(source=folder, out=out, position_targets=True))
    _print("import", ROWS, *begin)


def _print(name: str, rows: int, begin: float, begin_cpu: float) -> None:
    rates = rows / (time.perf_counter() - begin), rows / (time.process_time() - begin_cpu)
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    peak_mb = int(status["VmHWM"].split()[0]) * 1024 / 1e6
    wall, cpu = (f"{rate:,.0f}" for rate in rates)
    print(f"  {name}: {wall} rows/s, {cpu} rows for 1 s of CPU, {peak_mb:,.0f} MB at most")


def main() -> None:
    """Make both data sets and measure each part in a process of its own, on one core."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--read", type=Path)
    parser.add_argument("--import-to", type=Path, nargs=2)
    options = parser.parse_args()
    if options.read:
        read(options.read)
        return
    if options.import_to:
        import_(*options.import_to)
        return
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    with tempfile.TemporaryDirectory() as temporary:
        for group_rows in (LENGTH, 200_000):
            folder = Path(temporary) / f"groups-{group_rows}"
            make(folder, group_rows)
            print(f"{ROWS:,} rows in groups of {group_rows:,}", flush=True)
            for part in (["--read", folder], ["--import-to", folder, folder.with_suffix(".zarr")]):
                subprocess.run([sys.executable, __file__, *map(str, part)], check=True)


if __name__ == "__main__":
    main()
