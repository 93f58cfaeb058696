"""Checkpoints: safetensors with a JSON header, so that nothing loaded can run code.

A run folder holds
    policy.safetensors     EMA weights, normalisers and, in the header, the specification
    training.safetensors   what resuming needs besides: raw weights, EMA, optimiser, step
    log.jsonl              one line for each logged step
Each is one file, renamed into place: it is wholly there or not at all.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from diffpolicy.config import ModelConfig
from diffpolicy.environment import Task
from diffpolicy.errors import DiffpolicyError
from diffpolicy.files import write_atomically
from diffpolicy.normalizer import Normalizer
from diffpolicy.windows import Horizons

FORMAT_VERSION = 1
POLICY_FILE = "policy.safetensors"
TRAINING_FILE = "training.safetensors"
HEADER = "diffpolicy"


@dataclass(frozen=True)
class Specification:
    """Everything but the weights that rebuilds a policy."""

    model: ModelConfig
    horizons: Horizons
    task: Task
    clip_range: float | None  # in normalised units
    training: dict[str, Any]  # provenance: data, fingerprint, seed, steps, versions


@dataclass(frozen=True)
class Checkpoint:
    """A specification with its weights and its normalisers."""

    specification: Specification
    weights: dict[str, Tensor]
    observation_normalizer: Normalizer
    action_normalizer: Normalizer
    folder: Path | None = None  # where it was loaded from


def save_tensors(path: Path, tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> None:
    """One safetensors file with a JSON header, atomically."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    contiguous = {name: tensor.detach().contiguous().cpu() for name, tensor in tensors.items()}
    metadata = {HEADER: json.dumps({"format_version": FORMAT_VERSION, **header})}
    try:
        write_atomically(path, lambda temporary: save_file(contiguous, temporary, metadata))
    except SafetensorError as error:  # how safetensors reports a full disk
        raise DiffpolicyError(f"cannot write {path}: {error}") from error


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors (on the CPU) and the header."""
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise DiffpolicyError(
            f"no {path.name} in {path.parent}: not a run folder, or training has not yet written "
            "its first checkpoint"
        )
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {}).get(HEADER, "{}"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise DiffpolicyError(f"{path} is damaged or no checkpoint: {error}") from error
    version = header.get("format_version") if isinstance(header, dict) else None
    if version != FORMAT_VERSION:
        raise DiffpolicyError(
            f"{path} is not a diffpolicy checkpoint of format {FORMAT_VERSION}; its header says "
            f"{version!r}"
        )
    return tensors, header


def policy_path(run: str | Path) -> Path:
    """The policy file of a run folder, or the file itself."""
    run = Path(run)
    return run if run.suffix == ".safetensors" else run / POLICY_FILE


def save_policy(path: Path, checkpoint: Checkpoint) -> None:
    """Writes the policy file."""
    tensors = {f"weights.{name}": tensor for name, tensor in checkpoint.weights.items()}
    tensors |= _pack("observation", checkpoint.observation_normalizer)
    tensors |= _pack("action", checkpoint.action_normalizer)
    save_tensors(path, tensors, {"specification": asdict(checkpoint.specification)})


def load_policy(run: str | Path) -> Checkpoint:
    """Reads the policy file of a run folder."""
    path = policy_path(run)
    tensors, header = load_tensors(path)
    try:
        specification = parse_specification(header["specification"])
        of_observations, of_actions = (_unpack(name, tensors) for name in ("observation", "action"))
    except (KeyError, TypeError) as error:
        raise DiffpolicyError(f"{path} lacks or does not know {error}") from error
    prefix = "weights."
    weights = {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
    return Checkpoint(specification, weights, of_observations, of_actions, path.parent)


def parse_specification(data: Mapping[str, Any]) -> Specification:
    """The inverse of asdict."""
    model = {**data["model"], "unet_channels": tuple(data["model"]["unet_channels"])}
    keys = data["task"].get("observation_keys")
    task = {**data["task"], "observation_keys": None if keys is None else tuple(keys)}
    return Specification(
        model=ModelConfig(**model),
        horizons=Horizons(**data["horizons"]),
        task=Task(**task),
        clip_range=data["clip_range"],
        training=data["training"],
    )


def _pack(name: str, normalizer: Normalizer) -> dict[str, Tensor]:
    import torch

    return {
        f"normalizer.{name}.scale": torch.from_numpy(normalizer.scale),
        f"normalizer.{name}.offset": torch.from_numpy(normalizer.offset),
    }


def _unpack(name: str, tensors: Mapping[str, Tensor]) -> Normalizer:
    def array(part: str) -> np.ndarray:
        return tensors[f"normalizer.{name}.{part}"].numpy()

    return Normalizer(array("scale"), array("offset"))
