"""Read a store with Diffusion Policy's own ReplayBuffer; run by a Python that imports it.

    python read_diffusion_policy.py STORE OUT.npz

OUT holds data/<key> [N, …] and episode_ends [E], read by each way that opens a folder or a zip:
copied into memory, and for a folder also in place.
"""

import sys
from pathlib import Path

import numpy as np
import zarr
from diffusion_policy.common.replay_buffer import (  # pyright: ignore[reportMissingImports]
    ReplayBuffer,
)


def main(path: str, out: str) -> None:
    if Path(path).is_dir():
        ways = {
            "copied": ReplayBuffer.copy_from_path(path),
            "in place": ReplayBuffer.create_from_path(path, mode="r"),
        }
    else:
        with zarr.ZipStore(path, mode="r") as store:
            ways = {"copied": ReplayBuffer.copy_from_store(store, store=zarr.MemoryStore())}
    found = {}
    for way, buffer in ways.items():
        found[f"{way}/episode_ends"] = np.asarray(buffer.episode_ends[:])
        for key, values in buffer.items():
            found[f"{way}/{key}"] = np.asarray(values[:])
    np.savez(out, **found)


if __name__ == "__main__":
    main(*sys.argv[1:])
