"""Policies of others for Balance-v0, good ones and bad ones; importable in worker processes."""

import sys

import numpy as np

from diffpolicy.specification import Horizons

GAINS = np.array([1.8, 3.7, 34.0, 6.9]) / 8


class Feedback:
    """Linear feedback; it is late by nothing and rounds to `steps` digits."""

    horizons = Horizons(1, 8, 4)

    def __init__(self, steps):
        self.steps = steps

    def noise_shape(self, batch):
        return 0, batch

    def __call__(self, observation, noise):
        newest = observation["observation"][:, -1]
        assert noise.shape == (0, len(newest))
        action = np.round(newest @ GAINS, self.steps)
        return np.repeat(action[:, None, None], self.horizons.usable, axis=1)


class Noisy(Feedback):
    """Feedback with noise in its actions, as a diffusion policy has."""

    def noise_shape(self, batch):
        return 1, batch, self.horizons.usable, 1

    def __call__(self, observation, noise):
        return super().__call__(observation, np.empty((0, noise.shape[1]))) + 0.1 * noise[0]


class Unpicklable(Feedback):
    """A policy that holds what no pickle takes, as a connection is."""

    def __init__(self, steps):
        super().__init__(steps)
        self.connection = sys.stdout


class Answers(Feedback):
    """A policy with another answer, or exception."""

    answer = None

    def __call__(self, observation, noise):
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer


def answering(value):
    return type("Answering", (Answers,), {"answer": value})


raises = answering(ValueError("the model\nsays no"))
leaves = answering(SystemExit(0))
text = answering([[["left"]]])
ragged = answering([[1.0], [1.0, 2.0]])
flat = answering(np.zeros((1, 8)))
short = answering(np.zeros((1, 7, 1)))
wide = answering(np.zeros((1, 8, 2)))
unfinished = answering(np.full((1, 8, 1), np.nan))
whole = answering(np.zeros((1, 8, 1), int))


class Together(Feedback):
    """It fails for several episodes at once."""

    def __call__(self, observation, noise):
        if np.count_nonzero(observation["observation"].any(axis=(1, 2))) > 1:
            raise RuntimeError("one at a time")
        return super().__call__(observation, noise)


class Blind(Feedback):
    observations = ("camera",)


class NoHorizons(Feedback):
    horizons = (1, 8, 4)


class OddNoise(Feedback):
    def noise_shape(self, batch):
        return batch, 0


def broken(steps):
    raise RuntimeError(f"no model of {steps} steps")


def nothing(steps):
    return None
