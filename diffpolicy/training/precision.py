"""Precision of a training step: bfloat16 autocast where it is faster on this machine.

Weights, optimiser, EMA and loss stay in float32; matrix products and convolutions of the forward
and backward pass take bfloat16 (mixed precision, arXiv 1710.03740; bfloat16, arXiv 1905.12322).
"""

from diffpolicy.training.config import TrainConfig
from diffpolicy.training.measuring import Measured

AUTO, FLOAT32, BFLOAT16 = "auto", "float32", "bfloat16"
PRECISIONS = (FLOAT32, BFLOAT16)
LONG_STEPS, LONG_MINUTES = 1000, 1.0  # from here on a measurement pays
LEAST_GAIN = 1.15


def pays(measured: Measured) -> bool:
    """True if bfloat16 is clearly faster."""
    return measured.gain >= LEAST_GAIN


def is_long(config: TrainConfig) -> bool:
    """True if a run is long enough for measurements of some seconds."""
    return (config.steps or 0) >= LONG_STEPS or (config.minutes or 0) >= LONG_MINUTES
