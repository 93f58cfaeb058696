"""Rendering without a display."""

import os
import sys
from ctypes.util import find_library


def prefer_egl() -> None:
    """Set MUJOCO_GL=egl unless the user chose another; call it before mujoco is imported.

    MuJoCo chooses its OpenGL when it is imported, and its default aborts the process without a
    display. EGL needs none, but naming a missing EGL would break the import.
    """
    if sys.platform == "linux" and "MUJOCO_GL" not in os.environ and find_library("EGL"):
        os.environ["MUJOCO_GL"] = "egl"  # the look-up starts a process: once is enough
