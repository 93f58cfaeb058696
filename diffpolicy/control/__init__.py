"""Receding-horizon control: controller, late chunks, latency, and episodes on three clocks.

`from diffpolicy.control import Controller` is the loop for a robot; it is imported at first use.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from diffpolicy.control.controller import Controller, Statistics

__all__ = ["Controller", "Statistics"]


def __getattr__(name: str) -> Any:
    """Import an exported name at its first use (PEP 562)."""
    if name not in __all__:
        raise AttributeError(f"module 'diffpolicy.control' has no attribute {name!r}")
    from diffpolicy.control import controller

    return getattr(controller, name)
