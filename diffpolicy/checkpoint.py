"""Checkpoints: safetensors files with a JSON header; loading one runs no code.

A run folder contains:
    policy.safetensors     EMA weights, normalisers and, in the header, the specification
    training.safetensors   state of training: raw weights, EMA, optimiser, step
    log.jsonl              one line for each logged step
The first two are renamed into place, so they are complete or absent.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from torch import Tensor

from diffpolicy.checked import Range, parse_json, shown, validate
from diffpolicy.config import MINUTES, STEPS, THREADS, ModelConfig
from diffpolicy.data.normalizer import Normalizer
from diffpolicy.denoisers import build_network
from diffpolicy.errors import DiffpolicyError
from diffpolicy.files import write_atomically
from diffpolicy.specification import ACTION, FLAT, Specification, Task

FORMAT_VERSION = 6  # see `_migrate` for the older ones
POLICY_FILE = "policy.safetensors"
TRAINING_FILE = "training.safetensors"
HEADER = "diffpolicy"


def _defaults(*names: str) -> dict[str, Any]:
    """Fields of a model that older versions do not have."""
    return {field.name: field.default for field in fields(ModelConfig) if field.name in names}


WITHOUT_PICTURES = _defaults("encoder", "keypoints", "share_encoder", "crop")  # before version 4
WITHOUT_OBJECTIVE = _defaults("mip_timestep", "time_sampling", "prefix_max")  # before version 6


@dataclass(frozen=True)
class PolicyHeader:
    """Header of the policy file."""

    specification: Specification


@dataclass(frozen=True)
class Target:
    """Length of a training run: either steps or minutes."""

    steps: Annotated[int | None, STEPS]
    minutes: Annotated[float | None, MINUTES]


@dataclass(frozen=True)
class TrainingState(Target):
    """Header of the training file: progress and identity of a run."""

    step: Annotated[int, Range(0, 10**12)]
    elapsed_s: Annotated[float, Range(0, 1e12)]
    threads: Annotated[int, THREADS]
    identity: dict[str, Any]


@dataclass(frozen=True)
class Checkpoint:
    """A specification with its weights and its normalisers."""

    specification: Specification
    weights: dict[str, Tensor]
    observation_normalizers: dict[str, Normalizer]
    action_normalizer: Normalizer
    folder: Path | None = None  # source folder


def save_tensors(path: Path, tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> None:
    """Write a safetensors file with a JSON header atomically. Raises DiffpolicyError, OSError."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    contiguous = {name: tensor.detach().contiguous().cpu() for name, tensor in tensors.items()}
    metadata = {HEADER: json.dumps({"format_version": FORMAT_VERSION, **header})}
    try:
        write_atomically(path, lambda temporary: save_file(contiguous, temporary, metadata))
    except SafetensorError as error:  # raised on a full disk, for example
        raise DiffpolicyError(f"cannot write {path}: {error}") from error


def load_header(path: Path) -> dict[str, Any]:
    """The header alone, as `load_tensors` gives it."""
    return load_tensors(path, only_header=True)[1]


def load_tensors(path: Path, only_header: bool = False) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors on the CPU and the header. Raises DiffpolicyError on a file that is no checkpoint."""
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        foreign = (path.parent / "model.safetensors").is_file()
        advice = f"; bring a policy of LeRobot in: diffpolicy import-policy {path.parent} --out RUN"
        raise DiffpolicyError(
            f"there is no {path.name} in {path.parent}; expected a run folder, after the first "
            f"checkpoint of its training{advice if foreign else ''}"
        )
    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get(HEADER, "{}")
            names = [] if only_header else file.keys()
            tensors = {name: file.get_tensor(name) for name in names}
    except (SafetensorError, OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
        raise DiffpolicyError(f"{path} is corrupt or not a checkpoint: {error}") from error
    header = parse_json(text, f"{path}: header")
    version = header.pop("format_version", None) if isinstance(header, dict) else None
    if version not in range(1, FORMAT_VERSION + 1) or isinstance(version, bool):
        raise DiffpolicyError(
            f"{path} is not a diffpolicy checkpoint of format 1 to {FORMAT_VERSION}; its header "
            f"has format_version {shown(version)}"
        )
    return tensors, _migrate(header, version)


def _migrate(header: dict[str, Any], version: Any) -> dict[str, Any]:
    """Convert a header of an older version to version 6; leave misplaced fields to validation.

    Version 1 has no constants in its normalisers and no target in its training state; versions 1
    and 2 have one observation, a vector; version 3 has no pictures; version 4 has no crop of one
    camera, no grid of its own and always re-derives ε̂; version 5 is either regression or not.
    """
    match header:
        case {"specification": {"task": {**task}, "model": {**model}, **others}}:
            if version == 1:
                task["observation_keys"] = None
                model.setdefault("regression", False)  # absent from the first files
            if version < 4:
                task, model = _by_key(task, model), {**WITHOUT_PICTURES, **model}
            if version < 5:
                task = _without_crops(task)
                others = {"grid": "trailing", "rederive": True, **others}
            if version < 6:
                others, model = {"schedules": [], **others}, _with_objective(model)
            return {**header, "specification": {**others, "task": task, "model": model}}
        case {"identity": {**identity}}:
            target = {"steps": None, "minutes": None} if version == 1 else {}
            if version < 4:
                identity = {**WITHOUT_PICTURES, "colour_jitter": 0.0, **identity}
            if version < 6:
                identity = _with_objective(identity)
            match identity:
                case {"task": {**task}} if version < 5:
                    task = _by_key(task, identity) if version < 4 else task
                    identity["task"] = _without_crops(task)
            return {**header, **target, "identity": identity}
    return header


def _with_objective(model: dict[str, Any]) -> dict[str, Any]:
    """Convert a model that is regression or not to one with an objective."""
    regression = model.pop("regression", None)
    objective = {True: "regression", False: "denoising"}.get(regression, regression)
    return {**WITHOUT_OBJECTIVE, "objective": objective, **model}


def _by_key(task: dict[str, Any], model: dict[str, Any]) -> dict[str, Any]:
    """Convert a task with one observation vector to observations by key, without a camera."""
    task.setdefault("camera", None)
    if "observation_dim" not in task:
        return task
    kind = model.get("normalizer")
    spec = {"shape": [task.pop("observation_dim")], "dtype": "float32", "normalizer": kind}
    return {**task, "observations": {FLAT: spec}}


def _without_crops(task: dict[str, Any]) -> dict[str, Any]:
    """Convert a task whose cameras have no crops of their own."""
    match task:
        case {"observations": {**specs}}:
            with_crop = {k: {"crop": None, **s} for k, s in specs.items() if isinstance(s, dict)}
            return {**task, "observations": {**specs, **with_crop}}
    return task


def policy_path(run: str | Path) -> Path:
    """Policy file of a run folder, or the file itself."""
    run = Path(run)
    return run if run.suffix == ".safetensors" else run / POLICY_FILE


def save_policy(path: Path, checkpoint: Checkpoint) -> None:
    """Write the policy file atomically."""
    tensors = {f"weights.{name}": tensor for name, tensor in checkpoint.weights.items()}
    normalizers = {**checkpoint.observation_normalizers, ACTION: checkpoint.action_normalizer}
    for name, normalizer in normalizers.items():
        tensors |= _pack(name, normalizer)
    save_tensors(path, tensors, {"specification": asdict(checkpoint.specification)})


def load_policy(run: str | Path) -> Checkpoint:
    """Read the policy file of a run folder. Raises DiffpolicyError if any part of it is invalid."""
    path = policy_path(run)
    tensors, header = load_tensors(path)
    specification = validate(PolicyHeader, header, f"{path}: header").specification
    if specification.model.clip == (specification.clip_range is None):
        raise DiffpolicyError(
            f"{path}: header has clip = {specification.model.clip}, which contradicts clip_range = "
            f"{specification.clip_range}"
        )
    _check_fit(specification, tensors, path)
    prefix = "weights."
    weights = {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
    check_finite(weights, path)
    normalizers = {name: _unpack(name, tensors, path) for name in _normalized(specification.task)}
    action = normalizers.pop(ACTION)
    return Checkpoint(specification, weights, normalizers, action, folder=path.parent)


def weights_fingerprint(weights: Mapping[str, Tensor]) -> str:
    """A hash of the weights, in the order of their names."""
    digest = hashlib.blake2b(digest_size=16)
    for _, weight in sorted(weights.items()):
        array = weight.cpu().numpy()
        digest.update(repr((array.shape, array.dtype.str)).encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def load_training(path: Path) -> tuple[dict[str, Tensor], TrainingState]:
    """Read the training file of a run folder; `Learner.restorable` gives its expected tensors."""
    tensors, header = load_tensors(path)
    return tensors, validate(TrainingState, header, f"{path}: header")


def _check_fit(specification: Specification, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Compare the tensors with the header, without allocating the network."""
    try:
        with torch.device("meta"):
            network = build_network(specification)
    except (DiffpolicyError, RuntimeError, ValueError) as error:
        raise DiffpolicyError(f"{path}: header does not describe a network: {error}") from error
    expected = {f"weights.{name}": weight for name, weight in network.state_dict().items()}
    for name, shape in _normalized(specification.task).items():
        for part in (field.name for field in fields(Normalizer)):
            key = f"normalizer.{name}.{part}"
            if part != "constant" or key in tensors:
                expected[key] = torch.empty(shape, device="meta")
    check_tensors(tensors, expected, path)


def _normalized(task: Task) -> dict[str, tuple[int, ...]]:
    """Shape of each normaliser by name."""
    observations = {k: s.normalized_shape for k, s in task.observations.items() if s.normalizer}
    return {**observations, ACTION: (task.action_dim,)}


def check_tensors(found: Mapping[str, Tensor], expected: Mapping[str, Tensor], path: Path) -> None:
    """Raise DiffpolicyError unless names, shapes and dtypes are the expected ones."""
    for name in sorted(found.keys() | expected.keys()):
        has, wanted = (
            f"{t.dtype} {list(t.shape)}" if (t := given.get(name)) is not None else "nothing"
            for given in (found, expected)
        )
        if has != wanted:
            raise DiffpolicyError(
                f"{path}: {shown(name)} does not fit the header; expected {wanted}, got {has}"
            )


def check_finite(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Raise DiffpolicyError if a number is NaN or infinite."""
    for name, tensor in tensors.items():
        if not tensor.isfinite().all():
            raise DiffpolicyError(f"{path}: {shown(name)} is not finite (NaN or inf)")


def _pack(name: str, normalizer: Normalizer) -> dict[str, Tensor]:
    parts = {part: value for part, value in vars(normalizer).items() if value is not None}
    return {f"normalizer.{name}.{part}": torch.from_numpy(x) for part, x in parts.items()}


def _unpack(name: str, tensors: Mapping[str, Tensor], path: Path) -> Normalizer:
    names = {part.name: f"normalizer.{name}.{part.name}" for part in fields(Normalizer)}
    found = Normalizer(**{p: tensors[n].numpy() for p, n in names.items() if n in tensors})
    constant = np.full_like(found.scale, np.nan) if found.constant is None else found.constant
    finite = np.isfinite(found.scale) & np.isfinite(found.offset) & ~np.isinf(constant)
    if not (finite & ((found.scale == 0) == np.isfinite(constant))).all():
        raise DiffpolicyError(
            f"{path}: the normaliser of {name} must be finite, with scale 0 only for constant "
            f"dimensions; got scale {shown(found.scale.tolist())}, offset "
            f"{shown(found.offset.tolist())}"
        )
    return found
