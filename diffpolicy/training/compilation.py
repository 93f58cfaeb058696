"""Compilation of the network's call in training, where it is faster on this machine.

torch.compile makes kernels for one network and one batch, for the forward and the backward pass
(Ansel et al., PyTorch 2, ASPLOS 2024). Optimiser, EMA, validation and the encoders of pictures stay
eager.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from diffpolicy.training.measuring import Measured

EAGER, COMPILED = "eager", "compiled"
LEAST_MINUTES = 20.0  # of training from which on a minute or two of compilation pay
LEAST_GAIN, MOST_DEVIATION = 1.1, 0.01


def is_better(measured: Measured) -> bool:
    """True if the other way is clearly faster, and rounding explains the difference of its loss."""
    return measured.gain >= LEAST_GAIN and measured.deviation <= MOST_DEVIATION


def compiled(network: nn.Module) -> Callable[..., Tensor]:
    """The network's call, to be compiled at its first one; the module itself stays as it is.

    The compiler's cache on disk shortens the same compilation of a later run.
    """
    return torch.compile(network, fullgraph=True, dynamic=False)


def failure(build: Callable[[], object]) -> str:
    """The kind and first line of the error that a compilation ends in; empty if it succeeds."""
    try:
        build()
    except Exception as error:  # compilers and drivers fail in many ways
        cause = getattr(error, "inner_exception", error)  # torch wraps that of a compiler
        lines = str(cause).strip().splitlines()
        return ": ".join([type(cause).__name__, *lines[:1]])
    return ""
