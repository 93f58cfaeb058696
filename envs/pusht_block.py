"""The T-shaped block of Push-T: its shape, its poses and its model."""

# MuJoCo's bindings have no type stubs.
# pyright: reportAttributeAccessIssue=false

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import mujoco
import numpy as np

from .planar import Box, Pose, shared_area, transform

MODEL_PATH = Path(__file__).parent / "assets" / "pusht.xml"
UNITS_PER_PX = 0.01
QPOS_SCALE = np.array([UNITS_PER_PX] * 4 + [1.0])  # four positions and an angle

# Inertia over mass: of the nominal block in its model, and of its two boxes with equal masses.
NOMINAL_GYRATION_PX2, NOMINAL_BOXES_PX2 = 3000.0, 1912.5


@dataclass(frozen=True)
class Block:
    """A bar with a stem at the middle of its lower side; its origin is the middle of its top."""

    bar_px: tuple[float, ...] = (120.0, 30.0)  # width, height
    stem_px: tuple[float, ...] = (30.0, 90.0)

    def __post_init__(self):
        for name, sides in (("bar_px", self.bar_px), ("stem_px", self.stem_px)):
            if len(sides) != 2 or not all(20 <= side <= 200 for side in sides):
                raise ValueError(
                    f"{name} must be a width and a height, each 20 to 200 px; got {sides!r}."
                )

    @cached_property
    def boxes(self) -> tuple[Box, Box]:
        """Bar and stem in the frame of the block, px."""
        (bar_width, bar_height), (stem_width, stem_height) = self.bar_px, self.stem_px
        bar = (-bar_width / 2, 0.0, bar_width / 2, bar_height)
        return bar, (-stem_width / 2, bar_height, stem_width / 2, bar_height + stem_height)

    @cached_property
    def area_px2(self) -> float:
        """Area of bar and stem."""
        return sum(width * height for width, height in (self.bar_px, self.stem_px))

    @cached_property
    def centre_of_mass_px(self) -> float:
        """Distance of the centre of mass below the origin; bar and stem have equal masses."""
        return (self.bar_px[1] + self.stem_px[1] / 2 + self.bar_px[1] / 2) / 2

    @cached_property
    def centred_boxes(self) -> list[Box]:
        """Bar and stem relative to the centre of mass, px."""
        down = self.centre_of_mass_px
        return [(left, top - down, right, bottom - down) for left, top, right, bottom in self.boxes]

    @cached_property
    def gyration_px2(self) -> float:
        """Inertia over mass, about the centre of mass."""
        half_gap = (self.bar_px[1] + self.stem_px[1]) / 4
        about_own_centres = sum(a * a + b * b for a, b in (self.bar_px, self.stem_px)) / 24
        return NOMINAL_GYRATION_PX2 / NOMINAL_BOXES_PX2 * (about_own_centres + half_gap**2)

    def coverage(self, pose: Pose, goal: Pose) -> float:
        """Coverage of the goal: area(block ∩ goal) / area(goal)."""
        return shared_area(self.boxes, pose, goal) / self.area_px2

    def qpos_from_state(self, state: np.ndarray) -> np.ndarray:
        """Convert a state (agent x, y, block x, y, angle; px, rad) to joint positions [5]."""
        *agent, x, y, angle = state.tolist()
        [centre] = transform([(0.0, self.centre_of_mass_px)], (x, y, angle))
        return np.array([*agent, *centre, angle]) * QPOS_SCALE

    def state_from_qpos(self, qpos: np.ndarray) -> np.ndarray:
        """Inverse of `qpos_from_state`."""
        *agent, x, y, angle = (qpos / QPOS_SCALE).tolist()
        [origin] = transform([(0.0, -self.centre_of_mass_px)], (x, y, angle))
        return np.array([*agent, *origin, angle])


def block_model(block: Block, mass_kg: float, friction_kg_s: float) -> mujoco.MjModel:
    """Build the MuJoCo model with this block and its goal.

    Friction is viscous: force = −friction · velocity, with a torque such that rotation decays as
    fast as translation.
    """
    for name, value, low, high in (
        ("block_mass_kg", mass_kg, 0.1, 100.0),
        ("table_friction_kg_s", friction_kg_s, 10.0, 1e5),
    ):
        if not low <= value <= high:
            raise ValueError(f"{name} must be between {low:g} and {high:g}; got {value}")
    spec = mujoco.MjSpec.from_file(str(MODEL_PATH))
    for i, name in enumerate(("bar", "stem")):
        _set_box(spec.geom(name), block.centred_boxes[i])
        _set_box(spec.site(f"goal_{name}"), block.boxes[i])
    model = spec.compile()
    gyration = block.gyration_px2 * UNITS_PER_PX**2
    body, [first] = model.body("block"), model.joint("block_x").dofadr
    body.mass, body.inertia[:] = mass_kg, mass_kg * gyration
    model.dof_damping[first : first + 3] = friction_kg_s * np.array([1.0, 1.0, gyration])
    mujoco.mj_setConst(model, mujoco.MjData(model))
    return model


def _set_box(part: mujoco.MjsGeom | mujoco.MjsSite, box: Box) -> None:
    left, top, right, bottom = box
    part.size[:2] = (right - left) / 2 * UNITS_PER_PX, (bottom - top) / 2 * UNITS_PER_PX
    part.pos[1] = (top + bottom) / 2 * UNITS_PER_PX
