"""Correction at every tick: a small head adds to each action of a chunk, by a newer observation.

A2C2, arXiv 2509.23224. Shapes: B batch, T_o observation horizon, D_a action dimensions, C inputs.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from diffpolicy.checked import validate
from diffpolicy.checkpoint import (
    Checkpoint,
    check_finite,
    check_tensors,
    load_tensors,
    save_tensors,
    weights_fingerprint,
)
from diffpolicy.data.normalizer import Normalizer
from diffpolicy.errors import DiffpolicyError
from diffpolicy.late.drop import DropHead

if TYPE_CHECKING:
    from diffpolicy.specification import Specification

FILE = "correction.safetensors"
HIDDEN = 256


@dataclass(frozen=True)
class CorrectionHeader:
    """Header of a head's file. policy: hash of the weights whose chunks it corrects."""

    policy: str
    training: dict[str, Any]


@dataclass(frozen=True)
class Corrector:
    """A head with the normalisers of its policy. keys: of the vectors that it observes."""

    weights: dict[str, np.ndarray]
    keys: tuple[str, ...]
    observation_normalizers: dict[str, Normalizer]
    action_normalizer: Normalizer
    usable: int

    @torch.inference_mode()
    def __call__(
        self, observation: Mapping[str, np.ndarray], actions: np.ndarray, index: np.ndarray
    ) -> np.ndarray:
        """Corrected actions [B, D_a] from {key: [B, T_o, …]}, actions and their rows [B] in chunks.

        A row of the result depends on the same row of the arguments, and on B, alone.
        """
        histories = [self._normalised(key, observation[key]) for key in self.keys]
        normal = _tensor(self.action_normalizer.normalize(actions))
        seen = inputs(histories, normal, torch.from_numpy(index), self.usable)
        weights = {name: torch.from_numpy(weight) for name, weight in self.weights.items()}
        change, scale = evaluate(weights, seen).numpy(), self.action_normalizer.scale
        in_units = np.divide(change, scale, out=np.zeros_like(change), where=scale != 0)
        return (actions + in_units).astype(actions.dtype)

    def _normalised(self, key: str, history: np.ndarray) -> Tensor:
        normalizer = self.observation_normalizers.get(key)
        return _tensor(history if normalizer is None else normalizer.normalize(history))


@dataclass(frozen=True)
class Correct(DropHead):
    """Drop the stale head, and correct every action by the observation of the tick before it."""

    text: str = "correct"

    @property
    def of_runs(self) -> bool:
        """True: the head is a file of the run."""
        return True

    def corrector(self, checkpoint: Checkpoint) -> Corrector:
        """See `DropHead`. Raises DiffpolicyError without a head that fits the policy."""
        if checkpoint.folder is None:
            raise DiffpolicyError(
                "--late correct: the head is a file of a run folder; there is none"
            )
        return load_corrector(checkpoint.folder / FILE, checkpoint)


def inputs(histories: list[Tensor], actions: Tensor, index: Tensor, usable: int) -> Tensor:
    """[B, C]: normalised histories [B, T_o, …] and actions [B, D_a], and the rows [B] of these."""
    place = index[:, None] / usable
    return torch.cat([*(history.flatten(1) for history in histories), actions, place], dim=1)


def evaluate(weights: Mapping[str, Tensor], x: Tensor) -> Tensor:
    """The head, two layers of ReLU and a linear one: inputs [B, C] -> changes [B, D_a]."""
    for layer in ("0", "1"):
        x = functional.linear(x, weights[f"{layer}.weight"], weights[f"{layer}.bias"]).relu()
    return functional.linear(x, weights["2.weight"], weights["2.bias"])


def observed_keys(specification: "Specification") -> tuple[str, ...]:
    """Keys that a head observes: the vectors. Raises DiffpolicyError without any."""
    observations = specification.task.observations
    found = tuple(key for key, spec in observations.items() if not spec.is_picture)
    if not found:
        raise DiffpolicyError(
            f"a correction head observes vectors; the run has only pictures: "
            f"{', '.join(observations)}"
        )
    return found


def new_weights(specification: "Specification", generator: torch.Generator) -> dict[str, Tensor]:
    """Uniform weights within 1/√inputs; the last layer is zero, so that it changes nothing yet."""
    task = specification.task
    sizes = [task.observations[key].size for key in observed_keys(specification)]
    first = specification.horizons.observation * sum(sizes) + task.action_dim + 1
    widths, weights = (first, HIDDEN, HIDDEN, task.action_dim), {}
    for layer, (before, after) in enumerate(pairwise(widths)):
        bound = 0.0 if layer == 2 else before**-0.5
        for name, shape in (("weight", (after, before)), ("bias", (after,))):
            drawn = torch.rand(shape, generator=generator)
            weights[f"{layer}.{name}"] = bound * (2 * drawn - 1)
    return weights


def save_corrector(
    path: Path, weights: Mapping[str, Tensor], policy: Checkpoint, training: Mapping[str, Any]
) -> None:
    """Write the file of a head atomically. training: provenance, JSON values by name."""
    about = {"policy": weights_fingerprint(policy.weights), "training": dict(training)}
    save_tensors(path, weights, about)


def load_corrector(path: Path, policy: Checkpoint) -> Corrector:
    """Read the file of a head. Raises DiffpolicyError for one of another policy, or not valid."""
    if not path.is_file():
        raise DiffpolicyError(
            f"--late correct: {path.parent} has no correction head; "
            f"try: diffpolicy train-correction --run {path.parent}"
        )
    tensors, header = load_tensors(path)
    about: CorrectionHeader = validate(CorrectionHeader, header, f"{path}: header")
    if about.policy != weights_fingerprint(policy.weights):
        raise DiffpolicyError(
            f"{path} was trained for other weights than those of the policy beside it; "
            f"try: diffpolicy train-correction --run {path.parent}"
        )
    specification = policy.specification
    check_tensors(tensors, new_weights(specification, torch.Generator()), path)
    check_finite(tensors, path)
    return Corrector(
        {name: tensor.numpy() for name, tensor in tensors.items()},
        observed_keys(specification),
        policy.observation_normalizers,
        policy.action_normalizer,
        specification.horizons.usable,
    )


def _tensor(values: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, np.float32))
