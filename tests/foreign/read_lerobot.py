"""Read a data set with lerobot's own reader and save what it gives; run by lerobot's own Python.

    python read_lerobot.py FOLDER OUT.npz

OUT holds every feature as <name> [N, …] and the tasks as `task` [N]; version is lerobot's. Pictures
are uint8 [N, H, W, C]; lerobot gives them in [0, 1], channels first.
"""

import importlib.metadata
import sys
import types

import numpy as np

# Operations of torchvision that a CPU build of torch does not know; nothing here uses them.
sys.modules["torchvision._meta_registrations"] = types.ModuleType("_meta_registrations")


def main(folder: str, out: str) -> None:
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    data = LeRobotDataset("any/name", root=folder)
    items = [data[i] for i in range(len(data))]
    found = {}
    for name in items[0]:
        values = [item[name] for item in items]
        if isinstance(values[0], str):
            found[name] = np.array(values)
            continue
        array = np.stack([value.numpy() for value in values])
        if name in data.meta.camera_keys:
            array = np.round(array * 255).astype(np.uint8).transpose(0, 2, 3, 1)
        found[name] = array
    stats = {f"stats/{n}/{k}": v for n, s in data.meta.stats.items() for k, v in s.items()}
    facts = {"version": importlib.metadata.version("lerobot"), "fps": data.fps}
    np.savez(out, **found, **stats, **facts)


if __name__ == "__main__":
    main(*sys.argv[1:])
