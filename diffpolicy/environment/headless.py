"""Pictures without a display."""

import os
import sys
from ctypes.util import find_library


def prefer_egl() -> None:
    """Sets MUJOCO_GL=egl unless the user chose another; call it before mujoco is imported.

    MuJoCo chooses its OpenGL when it is imported, and its usual choice aborts the whole process
    where there is no display. EGL needs none, but naming it where it is missing would break the
    import itself.
    """
    if sys.platform == "linux" and "MUJOCO_GL" not in os.environ and find_library("EGL"):
        os.environ["MUJOCO_GL"] = "egl"  # asking for the library starts a process: once is enough
