"""Human demonstrations of the Adroit hand's door: conversion to a store, and an environment.

    cd datasets
    python adroit_door_human.py --out door_human.zarr

Source: Rajeswaran et al., RSS 2018 (Apache-2.0): 25 episodes of teleoperation at 100 Hz. The pickle
is in adroit_door_human/ of the folder that DIFFPOLICY_DEMOS names. Because a pickle can run code,
only the file with the known hash is read, and only arrays are admitted. Importing this module
registers HumanDoor-v0.
"""

import hashlib
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium.envs.registration import register
from tqdm import tqdm

from diffpolicy.data.demonstration_writer import DemonstrationWriter
from diffpolicy.data.demonstrations import open_demonstrations
from diffpolicy.data.unpickler import unpickle
from diffpolicy.errors import DiffpolicyError

DOOR = "gymnasium_robotics:AdroitHandDoor-v1"
ENV_ID = "adroit_door_human:HumanDoor-v0"
EPISODE_TICKS = 400  # the longest demonstration has 300; the limit of the environment is 200
OPEN_RAD = 1.35
HINGE = 28  # index of the door in the observation, which starts with qpos[1:-2]
INITIAL = ("qpos", "qvel", "door_body_pos")
SHA256 = "d6ec9a090261f901e5c9bf10082799e30c8d34c3f28aef4026e492a1aefc96c3"
ATTRIBUTES = {
    "env_id": ENV_ID,
    "env_kwargs": {},
    "control_dt_s": 0.01,
    "position_targets": True,
    "expert": "human teleoperation",
}


class HumanDoor(gymnasium.Wrapper):
    """AdroitHandDoor-v1 for the length (4 s) and the initial states of the demonstrations.

    starts: store of this recipe whose initial states are drawn at reset (the first row of each
    episode), or None for the distribution of the environment. success_rad: angle of the hinge from
    which the door counts as open. `reset(options={"demonstration": n})` starts as demonstration n.
    """

    def __init__(
        self,
        starts: str | None = None,
        success_rad: float = OPEN_RAD,
        render_mode: str | None = None,
    ):
        if not 0 < success_rad <= 1.57:
            raise ValueError(f"success_rad must be between 0 and 1.57; got {success_rad}")
        super().__init__(gymnasium.make(DOOR, render_mode=render_mode).unwrapped)
        self.success_rad = success_rad
        self.starts = None if starts is None else initial_states(starts)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        """Start an episode from the environment's distribution or from a demonstration."""
        observation, info = self.env.reset(seed=seed)
        wanted = (options or {}).get("demonstration")
        if self.starts is None:
            if wanted is not None:
                raise ValueError("options={'demonstration': n} needs starts=STORE")
            return observation, info
        number = self.env.unwrapped.np_random.integers(len(self.starts))
        chosen = self.starts[number if wanted is None else wanted]
        return self.env.reset(options={"initial_state_dict": chosen})

    def step(self, action: Any):
        """Advance one control tick; `info` has `success` and `hinge_rad`."""
        observation, reward, terminated, truncated, _ = self.env.step(action)
        hinge_rad = float(observation[HINGE])
        info = {"success": hinge_rad >= self.success_rad, "hinge_rad": hinge_rad}
        return observation, reward, terminated, truncated, info


def initial_states(store: str | Path) -> list[dict[str, np.ndarray]]:
    """Initial state of each episode of a store, for `reset(options={"initial_state_dict": …})`."""
    demonstrations = open_demonstrations(store, [f"initial_{name}" for name in INITIAL])
    first = np.concatenate([[0], demonstrations.episode_ends[:-1]])
    arrays = demonstrations.arrays
    return [
        {name: np.asarray(arrays[f"initial_{name}"][row], np.float64) for name in INITIAL}
        for row in first
    ]


def read(path: Path) -> list[dict[str, Any]]:
    """Read the episodes of the pickle: observations [T, 39], actions [T, 28], init_state_dict."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DiffpolicyError(f"cannot read the demonstrations at {path}: {error}") from error
    if (found := hashlib.sha256(content).hexdigest()) != SHA256:
        expected = f"expected SHA-256 {SHA256}; got {found}"
        raise DiffpolicyError(f"{path} is not the known file; {expected}")
    return unpickle(content, path)


def convert(path: Path, out: Path) -> None:
    """Write a store of actions (clipped as in the environment), observations and initial states.

    `observation` is the recorded one. `replayed` is the observation of the environment for the same
    actions from the recorded initial state, with the hand at rest, which it was not when recorded.
    """
    if out.exists():
        raise DiffpolicyError(f"{out} exists; choose another --out")
    episodes = read(path)
    unfinished = out.with_name(f".{out.name}.partial")
    shutil.rmtree(unfinished, ignore_errors=True)
    writer, env = DemonstrationWriter(unfinished, ATTRIBUTES), HumanDoor()
    for number, episode in enumerate(tqdm(episodes, desc="convert", unit="episode")):
        initial, actions = episode["init_state_dict"], episode["actions"].clip(-1, 1)
        arrays = {f"initial_{n}": np.tile(initial[n], (len(actions), 1)) for n in INITIAL}
        arrays |= {"observation": episode["observations"], "action": actions}
        arrays["replayed"] = replay(env, initial, actions)
        writer.append(arrays, number)
    env.close()
    unfinished.rename(out)
    print(f"{out}: {len(writer.seeds)} human episodes")


def replay(env: HumanDoor, initial: dict[str, np.ndarray], actions: np.ndarray) -> np.ndarray:
    """Observations [T, 39] before each of the actions [T, 28], from an initial state."""
    states = {name: initial[name] for name in INITIAL}
    observation, _ = env.env.reset(options={"initial_state_dict": states})
    seen = []
    for action in actions:
        seen.append(observation)
        observation, *_ = env.step(action.astype(np.float32))
    return np.array(seen)


@dataclass(frozen=True)
class Config:
    """Convert the human door demonstrations to a store."""

    out: Path = Path("door_human.zarr")
    """Store to write."""


def main(config: Config) -> None:
    """Convert the pickle in the folder that DIFFPOLICY_DEMOS names."""
    folder = os.environ.get("DIFFPOLICY_DEMOS")
    if not folder:
        raise SystemExit("set DIFFPOLICY_DEMOS to the folder that contains adroit_door_human/")
    try:
        convert(Path(folder) / "adroit_door_human" / "door-v0_demos.pickle", config.out)
    except DiffpolicyError as error:
        raise SystemExit(str(error)) from error


register("HumanDoor-v0", entry_point=f"{__name__}:HumanDoor", max_episode_steps=EPISODE_TICKS)

if __name__ == "__main__":
    import tyro

    main(tyro.cli(Config))
