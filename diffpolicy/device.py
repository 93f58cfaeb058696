"""Where tensors live."""

import torch

from diffpolicy.errors import DiffpolicyError


def choose_device(name: str) -> torch.device:
    """auto takes CUDA where there is some; asking for CUDA where there is none is an error."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cuda" and not torch.cuda.is_available():
        raise DiffpolicyError("--device cuda: torch sees no CUDA device here; use cpu or auto")
    return torch.device(name)
