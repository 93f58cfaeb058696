"""Balance-v0 with one habit that environments have, for tests; importable in worker processes."""

import os
import signal
import time
from pathlib import Path

import gymnasium
import numpy as np

from diffpolicy import environment

BALANCE, TICKS = "diffpolicy.envs:Balance-v0", 40


class Faulty(gymnasium.Env):
    """At tick `at` of the episodes of odd seeds something happens.

    habit: raise, old step, exit, leave (SystemExit), crash, killed, hang, slow, nan, huge,
    global seed, residue, or the name of a call that raises: constructor, reset, close.
    Where the file `unless` exists all is well.
    """

    control_dt_s = 0.02

    def __init__(self, habit="", at=10, unless="/nowhere", ticks=TICKS, drift=1e-3):
        self.env = environment.make(BALANCE, {}, max_steps=ticks)
        self.observation_space = self.env.observation_space
        self.action_space = self.env.action_space
        self.habit, self.at, self.unless = habit, at, Path(unless)
        self.tick, self.odd, self.left_behind = 0, False, 0.0
        self.drift = drift
        self.refuse("constructor")

    def refuse(self, call):
        if self.habit == call:
            raise RuntimeError(f"the {call} says no")

    def reset(self, *, seed=None, options=None):
        if seed % 2:
            self.refuse("reset")
        observation, info = self.env.reset(seed=seed)
        self.tick, self.odd = 0, bool(seed % 2)
        if self.habit == "global seed":
            observation = observation + np.random.standard_normal(4)  # noqa: NPY002
        return observation + self.left_behind, info

    def step(self, action):
        self.tick += 1
        observation, *others = self.env.step(action)
        if self.habit == "residue":
            self.left_behind += self.drift
        if self.habit == "slow":
            time.sleep(0.01)
        if self.odd and self.tick >= self.at and not self.unless.exists():
            observation = self.happen(observation)
        if observation is None:
            return others
        return observation + self.left_behind, *others

    def happen(self, observation):
        if self.habit == "raise":
            raise RuntimeError("the simulator\nsays no")
        if self.habit == "orphan" and os.fork() == 0:
            time.sleep(20)  # a child that holds what its parent had open
        if self.habit in ("exit", "orphan"):
            os._exit(0)
        if self.habit == "leave":
            raise SystemExit(0)
        if self.habit == "crash":
            os.kill(os.getpid(), signal.SIGSEGV)
        if self.habit == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.habit == "hang":
            time.sleep(600)
        values = {"nan": np.nan, "huge": 1e30}
        if self.habit in values:
            observation[2] = values[self.habit]
        return None if self.habit == "old step" else observation

    def close(self):
        self.refuse("close")
        self.env.close()


gymnasium.register("Faulty-v0", entry_point="faulty:Faulty", max_episode_steps=TICKS)


def make_faulty(habit="", ticks=TICKS, **kwargs):
    """The environment as every loop gets it."""
    given = {"habit": habit, "ticks": ticks, **kwargs}
    return environment.make("faulty:Faulty-v0", given, max_steps=ticks)
