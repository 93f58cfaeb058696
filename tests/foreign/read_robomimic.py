"""Read a file with robomimic's own reader and save what it gives; run by robomimic's own Python.

    python read_robomimic.py FILE OUT.npz KEY...

OUT holds, for every index of `SequenceDataset` (a window of two steps), actions, rewards, dones,
obs/<key> and next_obs/<key>, [N, 2, …], and the names of the demonstrations.
"""

import sys
from typing import Any

import numpy as np
from robomimic.utils import obs_utils  # pyright: ignore[reportMissingImports]
from robomimic.utils.dataset import SequenceDataset  # pyright: ignore[reportMissingImports]


def main(path: str, out: str, *keys: str) -> None:
    obs_utils.initialize_obs_utils_with_obs_specs({"obs": {"low_dim": list(keys)}})
    data = SequenceDataset(
        path,
        obs_keys=keys,
        dataset_keys=("actions", "rewards", "dones"),
        seq_length=2,
        load_next_obs=True,
        hdf5_cache_mode="low_dim",
    )
    found: dict[str, Any] = {"demos": np.array(data.demos)}
    items = [data[i] for i in range(len(data))]
    for name in ("actions", "rewards", "dones"):
        found[name] = np.stack([item[name] for item in items])
    for group in ("obs", "next_obs"):
        for key in keys:
            found[f"{group}/{key}"] = np.stack([item[group][key] for item in items])
    np.savez(out, **found)


if __name__ == "__main__":
    main(*sys.argv[1:])
