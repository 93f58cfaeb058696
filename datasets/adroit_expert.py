r"""Trained experts for the Adroit hand, as plain arrays: for `diffpolicy record --policy`.

    cd datasets
    diffpolicy record --env gymnasium_robotics:AdroitHandDoor-v1 --policy adroit_expert:door \
        --episodes 50 --out door_expert.zarr

Not human data: tanh networks (Rajeswaran et al., RSS 2018, Apache-2.0), whose weights are in
adroit_experts/ of the folder that DIFFPOLICY_DEMOS names.
"""

import os
from functools import cache
from pathlib import Path

import numpy as np

from diffpolicy.errors import DiffpolicyError


@cache
def _arrays(task: str) -> dict[str, np.ndarray]:
    folder = os.environ.get("DIFFPOLICY_DEMOS")
    if not folder:
        raise DiffpolicyError("set DIFFPOLICY_DEMOS to the folder that contains adroit_experts/")
    path = Path(folder) / "adroit_experts" / f"{task}-v0_policy.npz"
    if not path.is_file():
        raise DiffpolicyError(f"no expert at {path}; DIFFPOLICY_DEMOS must contain adroit_experts/")
    with np.load(path, allow_pickle=False) as file:
        return dict(file)


def _act(task: str, observation: np.ndarray) -> np.ndarray:
    """Evaluate W₂ tanh(W₁ tanh(W₀ x + b₀) + b₁) + b₂ on the shifted and scaled observation."""
    w = _arrays(task)
    h = (observation - w["in_shift"]) / (w["in_scale"] + 1e-8)
    h = np.tanh(w["W0"] @ h + w["b0"])
    h = np.tanh(w["W1"] @ h + w["b1"])
    return (w["W2"] @ h + w["b2"]) * w["out_scale"] + w["out_shift"]


def door(observation: np.ndarray) -> np.ndarray:
    """Expert of AdroitHandDoor-v1: observation [39] -> action [28]."""
    return _act("door", observation)


def hammer(observation: np.ndarray) -> np.ndarray:
    """Expert of AdroitHandHammer-v1: observation [46] -> action [26]."""
    return _act("hammer", observation)


def pen(observation: np.ndarray) -> np.ndarray:
    """Expert of AdroitHandPen-v1: observation [45] -> action [24]."""
    return _act("pen", observation)
