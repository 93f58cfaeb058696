"""Rendering of a MuJoCo model, or one clear error without OpenGL."""

import os

import mujoco


def open_renderer(model: mujoco.MjModel) -> mujoco.Renderer:  # pyright: ignore[reportAttributeAccessIssue]
    """Renderer of the offscreen size in the model (offwidth and offheight, px)."""
    size = model.vis.global_
    try:
        return mujoco.Renderer(model, size.offheight, size.offwidth)
    except Exception as error:  # each GL backend fails in its own way
        backend = os.environ.get("MUJOCO_GL", "")
        others = [name for name in ("egl", "osmesa", "glfw") if name != backend]
        raise RuntimeError(
            f"render() needs OpenGL, and MUJOCO_GL={backend!r} failed: {error}. Set it to "
            f"{' or '.join(others)}, whichever is installed; only render() needs it"
        ) from error
