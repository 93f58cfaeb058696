"""Precision of a training step: bfloat16 autocast where it is faster on this machine.

Weights, optimiser, EMA and loss stay in float32; matrix products and convolutions of the forward
and backward pass take bfloat16 (mixed precision, arXiv 1710.03740; bfloat16, arXiv 1905.12322).
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

from diffpolicy.training.config import TrainConfig

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
            f"{self.faster}: bfloat16 takes {1 / self.gain:.2f} of the time of float32 here, and "
            f"its loss differs by {self.deviation:.2%}"
        )


def measured_for(config: TrainConfig) -> bool:
    """True if a new run is long enough for a measurement, and asks for one."""
    steps, minutes = config.steps or 0, config.minutes or 0
    return config.precision == AUTO and (steps >= LONG_STEPS or minutes >= LONG_MINUTES)


def measure(gradient: Callable[[str], float]) -> Measured:
    """Time gradients in both precisions, interleaved.

    gradient: the loss of one batch in a precision, once its gradients are computed. Stops early
    after 2 s, with one round at least.
    """
    losses = {name: gradient(name) for name in PRECISIONS}
    seconds: dict[str, list[float]] = {name: [] for name in PRECISIONS}
    begin = time.perf_counter()
    for number in range(WARM_UP + ROUNDS):
        for name in PRECISIONS:
            start = time.perf_counter()
            gradient(name)
            seconds[name].append(time.perf_counter() - start)
        if time.perf_counter() - begin > LIMIT_S:
            break
        if number + 1 == WARM_UP:
            seconds = {name: [] for name in PRECISIONS}
    gain = median(seconds[FLOAT32]) / median(seconds[BFLOAT16])
    return Measured(gain, abs(losses[BFLOAT16] / losses[FLOAT32] - 1))
