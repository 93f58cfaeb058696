"""Options of the commands that bring policies in and out, with defaults and help texts."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional

from diffpolicy.checked import Checked, Range
from diffpolicy.config import CONTROL_DT, LEVEL


@dataclass(frozen=True)
class ImportPolicyConfig(Checked):
    """Convert a trained policy of LeRobot or Diffusion Policy to a run folder."""

    source: Positional[Path]
    """LeRobot: folder with config.json. Diffusion Policy: checkpoint file (.ckpt)."""
    out: Path
    """Run folder to write."""
    env: str | None = None
    """Gymnasium id (module:Name-v0) to evaluate in; by default none."""
    env_kwargs: str | None = None
    """Keyword arguments of the environment, as a JSON object."""
    control_dt: Annotated[float | None, CONTROL_DT] = None
    """Control period in seconds; needed without an environment that declares it."""
    position_targets: bool | None = None
    """True if actions are position targets; needed without an environment that declares it."""


@dataclass(frozen=True)
class ExportPolicyConfig(Checked):
    """Write a run as one ONNX file that needs nothing but onnxruntime, with its contract."""

    run: Positional[Path]
    """Run folder, or a policy.safetensors in it."""
    out: Path
    """ONNX file to write; the contract is written beside it, with the suffix .json."""
    ddim_steps: int | None = None
    """Denoising steps for each chunk; by default 10, 0 for a regression policy, 2 for MIP and for a
    distilled policy."""
    sampler: str = "ddim"
    """Sampling method: ddim, dpm++, unipc, heun or midpoint."""
    grid: str | None = None
    """Timestep grid; by default that of the run."""
    start: Annotated[int | None, LEVEL] = None
    """First timestep of a named grid; by default T - 1, or 10/11 of it for lambda and karras."""
    eta: Annotated[float, Range(0, 1)] = 0.0
    """Stochasticity η: 0 is DDIM, 1 is ancestral (DDPM) sampling, with noise for each step."""
