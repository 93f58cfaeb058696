"""A policy of another library, read but not yet written: the parts of a checkpoint, and checks.

Shapes: T timesteps.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from diffpolicy.checked import shown
from diffpolicy.config import ModelConfig
from diffpolicy.data.normalizer import Normalizer
from diffpolicy.errors import DiffpolicyError
from diffpolicy.sampling.noise import BETAS, MAX_BETA, alpha_bar_of, alpha_bar_table
from diffpolicy.specification import Horizons, ObservationSpec

SCHEDULE_NAMES = {
    "squaredcos_cap_v2": "squaredcos",
    "linear": "linear",
    "scaled_linear": "scaled_linear",
}
PREDICTION_NAMES = {"epsilon": "epsilon", "sample": "x0", "v_prediction": "v"}
BATCH_EPSILON = 1e-5  # of BatchNorm in PyTorch
FINAL_GROUPS = 8  # of the last block of both libraries' UNets, whatever n_groups is


@dataclass(frozen=True)
class Foreign:
    """All of a policy but its task: weights by our names, normalisers, and its own sampler.

    notes: sentences for the user. origin: provenance, for the checkpoint.
    """

    model: ModelConfig
    horizons: Horizons
    observations: dict[str, ObservationSpec]
    action_dim: int
    clip_range: float | None
    weights: dict[str, Tensor]
    observation_normalizers: dict[str, Normalizer]
    action_normalizer: Normalizer
    grid: Literal["leading", "trailing"]
    rederive: bool
    origin: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Scheduler:
    """Options of the schedulers of diffusers, with its defaults; others have no effect here."""

    num_train_timesteps: int
    beta_schedule: str
    prediction_type: str = "epsilon"
    beta_start: float = 0.0001
    beta_end: float = 0.02
    clip_sample: bool = True
    clip_sample_range: float = 1.0
    timestep_spacing: str = "leading"
    steps_offset: int = 0
    set_alpha_to_one: bool = True
    thresholding: bool = False
    rescale_betas_zero_snr: bool = False

    def process(self, where: str) -> dict[str, Any]:
        """Fields of `ModelConfig` for the diffusion process.

        Raises DiffpolicyError, with `where` as the name of the file, for a process that no
        configuration here describes.
        """
        schedule, prediction = self.beta_schedule, self.prediction_type
        refuse_others(where, "beta_schedule", schedule, SCHEDULE_NAMES)
        refuse_others(where, "prediction_type", prediction, PREDICTION_NAMES)
        refuse_others(where, "timestep_spacing", self.timestep_spacing, ("leading", "trailing"))
        refuse_others(where, "steps_offset", self.steps_offset, (0,))
        refuse_others(where, "set_alpha_to_one", self.set_alpha_to_one, (True,))
        refuse_others(where, "thresholding", self.thresholding, (False,))
        refuse_others(where, "rescale_betas_zero_snr", self.rescale_betas_zero_snr, (False,))
        fields = {
            "train_timesteps": self.num_train_timesteps,
            "schedule": SCHEDULE_NAMES[schedule],
            "prediction": PREDICTION_NAMES[prediction],
            "clip": self.clip_sample,
        }
        ModelConfig(**fields)  # checks the number of timesteps
        self._check_betas(where)
        return fields

    def _check_betas(self, where: str) -> None:
        """Compare the noise levels ᾱ [T] with ours: a linear schedule has its range of β there."""
        name, timesteps = SCHEDULE_NAMES[self.beta_schedule], self.num_train_timesteps
        betas = BETAS[name](timesteps, self.beta_start, self.beta_end)
        ours = alpha_bar_table(name, timesteps)
        if not np.allclose(alpha_bar_of(np.minimum(betas, MAX_BETA)), ours, rtol=1e-6, atol=0):
            raise DiffpolicyError(
                f"{where}: the schedule {self.beta_schedule} with β from {self.beta_start:g} to "
                f"{self.beta_end:g} over {timesteps} timesteps is not supported; expected β from "
                f"{0.1 / timesteps:g} to {20 / timesteps:g}, or squaredcos_cap_v2"
            )

    @property
    def clip_range(self) -> float | None:
        """Bound of the predicted clean actions."""
        return self.clip_sample_range if self.clip_sample else None


def refuse_others(where: str, name: str, found: Any, expected: Any) -> None:
    """Raise DiffpolicyError unless the value of an option is one of the expected ones."""
    if found not in expected:
        listed = " or ".join(str(value) for value in expected)
        raise DiffpolicyError(f"{where}: {name} {shown(found)} is not supported; expected {listed}")


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Tensors of a safetensors file, floats as float32. Raises DiffpolicyError; runs no code."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors = load_file(path)
    except (SafetensorError, OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
        raise DiffpolicyError(f"{path} is not a safetensors file: {error}") from error
    return {name: as_float32(tensor) for name, tensor in tensors.items()}


def as_float32(tensor: Tensor) -> Tensor:
    """A tensor of floats in the type of our weights; others as they are."""
    return tensor.to(torch.float32) if tensor.is_floating_point() else tensor


def take(theirs: dict[str, Tensor], name: str) -> Tensor:
    """Remove a tensor and return it. Raises DiffpolicyError if there is none."""
    if name not in theirs:
        raise DiffpolicyError(f"the policy has no tensor {name}, which its configuration asks for")
    return theirs.pop(name)


def move(theirs: dict[str, Tensor], name: str, ours: str) -> dict[str, Tensor]:
    """Remove the weight and, if there is one, the bias of a layer; return them by our name."""
    found = {f"{ours}.weight": take(theirs, f"{name}.weight")}
    if f"{name}.bias" in theirs:
        found[f"{ours}.bias"] = theirs.pop(f"{name}.bias")
    return found


def fold_batch_norms(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights of a ResNet-18 by our names with each BatchNorm, if any, in its convolution.

    In control y = γ (w ∗ x - μ) / √(σ² + ε) + β (Ioffe & Szegedy, arXiv 1502.03167), a
    convolution with a bias. Raises DiffpolicyError for parts that do not fit.
    """
    found = dict(weights)
    for name in [name for name in weights if name.endswith(".running_mean")]:
        norm = name.removesuffix(".running_mean")
        inner = re.sub(r"bn(\d)$", r"conv\1", re.sub(r"downsample\.1$", "downsample.0", norm))
        parts = ("weight", "bias", "running_mean", "running_var")
        scale, shift, mean, variance = (take(found, f"{norm}.{part}").double() for part in parts)
        found.pop(f"{norm}.num_batches_tracked", None)
        kernel = take(found, f"{inner}.weight").double()
        if {x.shape for x in (scale, shift, mean, variance)} != {kernel.shape[:1]}:
            raise DiffpolicyError(f"{norm} does not have one number for each output of {inner}")
        scale = scale / (variance + BATCH_EPSILON).sqrt()
        found[f"{inner}.weight"] = (kernel * scale.view(-1, 1, 1, 1)).float()
        found[f"{inner}.bias"] = (shift - mean * scale).float()
    return found


def check_all_taken(theirs: Mapping[str, Tensor], where: str) -> None:
    """Raise DiffpolicyError if tensors are left: the policy has layers that we do not have."""
    if theirs:
        names = sorted(theirs)
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        raise DiffpolicyError(
            f"{where}: the tensor {shown(names[0])}{more} belongs to no layer that is supported"
        )


def statistics_normalizer(
    centre: np.ndarray, spread: np.ndarray, constant: np.ndarray, at_constant: float
) -> Normalizer:
    """Map centre ± spread [D] float64 to ±1; constant [D] dimensions always to `at_constant`.

    A constant dimension comes back as its centre.
    """
    scale = np.where(constant, 0, 1 / np.where(constant, 1, spread))
    offset = np.where(constant, at_constant, -centre * scale)
    kept = np.where(constant, centre, np.nan).astype(np.float32) if constant.any() else None
    return Normalizer(scale.astype(np.float32), offset.astype(np.float32), kept)


def constants(normalizers: Mapping[str, Normalizer]) -> Iterator[str]:
    """Sentences about dimensions whose values have no effect."""
    for key, normalizer in normalizers.items():
        still = np.flatnonzero(normalizer.scale == 0).tolist()
        if still:
            listed = ", ".join(map(str, still))
            yield f"{key}: without change in the training data, and so without effect: {listed}"


def centred_crop(shape: tuple[int, ...], height: int, width: int) -> tuple[int, int, int, int]:
    """Top, left, height and width of the centre of a picture [H, W, C], as torchvision crops it.

    The halves of odd differences are rounded to the even number.
    """
    top, left = round((shape[0] - height) / 2), round((shape[1] - width) / 2)
    return top, left, height, width


def share_seen(specs: Mapping[str, ObservationSpec]) -> float:
    """Share of the height that the crops of the cameras keep, for results; 1 without cameras."""
    shares = [spec.crop[2] / spec.shape[0] for spec in specs.values() if spec.crop]
    return max(0.1, *shares) if shares else 1.0
