"""Precision of a training step: bfloat16 autocast where it is faster on this machine.

Weights, optimiser, EMA and loss stay in float32; matrix products and convolutions of the forward
and backward pass take bfloat16 (mixed precision, arXiv 1710.03740; bfloat16, arXiv 1905.12322).
"""

import time
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

import torch

from diffpolicy.config import TrainConfig

if TYPE_CHECKING:
    from diffpolicy.data.windows import Windows
    from diffpolicy.training.learner import Learner

AUTO, FLOAT32, BFLOAT16 = "auto", "float32", "bfloat16"
PRECISIONS = (FLOAT32, BFLOAT16)
LONG_STEPS, LONG_MINUTES = 1000, 1.0  # from here on a measurement pays
LEAST_GAIN = 1.15
ROUNDS, WARM_UP, LIMIT_S = 9, 2, 2.0


@dataclass(frozen=True)
class Measured:
    """gain: time in float32 over time in bfloat16. deviation: relative, of the loss."""

    gain: float
    deviation: float

    @property
    def faster(self) -> str:
        """The precision to train in."""
        return BFLOAT16 if self.gain >= LEAST_GAIN else FLOAT32

    def __str__(self) -> str:
        return (
            f"{self.faster}: bfloat16 takes 1/{self.gain:.2f} of the time of float32 here, and its "
            f"loss differs by {self.deviation:.2%}"
        )


def choose(
    config: TrainConfig, learner: "Learner", windows: "Windows", batch: int
) -> Measured | None:
    """Set the precision of a new run; a measurement if --precision auto makes one."""
    steps, minutes = config.steps or 0, config.minutes or 0
    if config.precision != AUTO or (steps < LONG_STEPS and minutes < LONG_MINUTES):
        return None
    measured = measure(learner, windows, batch)
    learner.precision = measured.faster
    return measured


def measure(learner: "Learner", windows: "Windows", batch: int) -> Measured:
    """Time gradients of the same batch in both precisions, interleaved; nothing is learnt.

    Stops early after 2 s, with one round at least.
    """
    losses = {name: float(_gradient(learner, windows, batch, name)) for name in PRECISIONS}
    seconds: dict[str, list[float]] = {name: [] for name in PRECISIONS}
    begin = time.perf_counter()
    for number in range(WARM_UP + ROUNDS):
        for name in PRECISIONS:
            start = time.perf_counter()
            float(_gradient(learner, windows, batch, name))  # waits for the device
            seconds[name].append(time.perf_counter() - start)
        if time.perf_counter() - begin > LIMIT_S:
            break
        if number + 1 == WARM_UP:
            seconds = {name: [] for name in PRECISIONS}
    gain = median(seconds[FLOAT32]) / median(seconds[BFLOAT16])
    return Measured(gain, abs(losses[BFLOAT16] / losses[FLOAT32] - 1))


def _gradient(learner: "Learner", windows: "Windows", batch: int, name: str) -> torch.Tensor:
    kept, learner.precision = learner.precision, name
    try:
        return learner.backward(windows, batch)
    finally:
        learner.precision = kept
