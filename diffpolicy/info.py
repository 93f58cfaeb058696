"""`diffpolicy info`: what a store of demonstrations or a run folder holds."""

import json
from dataclasses import asdict

import numpy as np

from diffpolicy.config import InfoConfig


def info(config: InfoConfig) -> None:
    """Prints a store's arrays and episodes, or a run's specification."""
    if config.path.suffix == ".safetensors" or list(config.path.glob("*.safetensors")):
        return _print_run(config)
    _print_store(config)


def _print_run(config: InfoConfig) -> None:
    from diffpolicy.checkpoint import load_policy

    checkpoint = load_policy(config.path)
    count = sum(tensor.numel() for tensor in checkpoint.weights.values())
    print(f"{config.path}: a policy of {count:,} parameters")
    print(json.dumps(asdict(checkpoint.specification), indent=2, default=str))


def _print_store(config: InfoConfig) -> None:
    from diffpolicy.demonstrations import open_demonstrations

    store = open_demonstrations(config.path)
    lengths = np.diff(store.episode_ends, prepend=0)
    print(f"{config.path}: {len(lengths)} episodes, {int(store.episode_ends[-1]):,} steps")
    print(f"  lengths {lengths.min()} to {lengths.max()}, mean {lengths.mean():.1f}")
    for name, array in store.arrays.items():
        flat = array.reshape(len(array), -1)
        print(f"  data/{name:<14} {array.shape!s:<18} from {flat.min():.4g} to {flat.max():.4g}")
    for name, value in store.attributes.items():
        print(f"  {name}: {value}")
