"""Diffusion policies for robots, evaluated for each number of denoising steps.

"How many denoising steps can your robot afford?"

    from diffpolicy import Policy
    policy = Policy.load("runs/pusht", ddim_steps=10)
    actions = policy(observation_history)  # [B, T_o, D_o] -> [B, T_p - T_o + 1, D_a]

Names are imported at first use, so `import diffpolicy` does not import torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from diffpolicy.version import __version__

if TYPE_CHECKING:
    from diffpolicy.data.demonstrations import Demonstrations
    from diffpolicy.errors import DiffpolicyError
    from diffpolicy.interfaces.scheduler import DDIMScheduler
    from diffpolicy.policy import Policy

__all__ = ["DDIMScheduler", "Demonstrations", "DiffpolicyError", "Policy", "__version__"]

_HOMES = {
    "DDIMScheduler": "diffpolicy.interfaces.scheduler",
    "Demonstrations": "diffpolicy.data.demonstrations",
    "DiffpolicyError": "diffpolicy.errors",
    "Policy": "diffpolicy.policy",
}


def __getattr__(name: str):
    """Import an exported name at its first use (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module 'diffpolicy' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
