"""Diffusion policies of LeRobot, of state and pictures: a folder that `save_pretrained` wrote.

config.json, model.safetensors
policy_preprocessor.json, policy_postprocessor.json and the statistics that they name (0.4 on);
before, the statistics are in model.safetensors.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from diffpolicy.checked import read_json, validate
from diffpolicy.config import ModelConfig
from diffpolicy.data.normalizer import Normalizer, identity
from diffpolicy.errors import DiffpolicyError
from diffpolicy.policies.foreign import (
    FINAL_GROUPS,
    Foreign,
    Scheduler,
    centred_crop,
    check_all_taken,
    constants,
    fold_batch_norms,
    read_tensors,
    refuse_others,
    share_seen,
)
from diffpolicy.policies.lerobot_statistics import Statistics, read_statistics
from diffpolicy.policies.unet import LEROBOT, unet_weights
from diffpolicy.specification import ACTION, Horizons, ObservationSpec, picture

CONFIG, WEIGHTS = "config.json", "model.safetensors"
STATE, PICTURE, WORLD = "STATE", "VISUAL", "ENV"  # types of features, in the encoder's order
NORMALIZERS: dict[str, Any] = {"MIN_MAX": "limits", "MEAN_STD": "gaussian", "IDENTITY": None}
ENCODER = {  # place in torchvision's network: our name
    **{"backbone.0": "backbone.conv1", "backbone.1": "backbone.bn1"},
    **{f"backbone.{3 + n}": f"backbone.layer{n}" for n in (1, 2, 3, 4)},
    **{"pool.nets": "pool.nets", "out": "out"},
}


@dataclass(frozen=True)
class Feature:
    """Type and shape of an input or output; pictures are [C, H, W]."""

    type: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class LeRobotConfig:
    """Fields of config.json that matter to control; older files have shapes instead of features."""

    horizon: int
    n_obs_steps: int
    n_action_steps: int
    vision_backbone: str
    crop_shape: tuple[int, int] | None
    use_group_norm: bool
    spatial_softmax_num_keypoints: int
    down_dims: tuple[int, ...]
    kernel_size: int
    n_groups: int
    diffusion_step_embed_dim: int
    use_film_scale_modulation: bool
    noise_scheduler_type: str
    num_train_timesteps: int
    beta_schedule: str
    beta_start: float
    beta_end: float
    prediction_type: str
    clip_sample: bool
    clip_sample_range: float
    type: str = "diffusion"
    num_inference_steps: int | None = None
    resize_shape: tuple[int, int] | None = None
    use_separate_rgb_encoder_per_camera: bool = False
    input_features: dict[str, Feature] | None = None
    output_features: dict[str, Feature] | None = None
    normalization_mapping: dict[str, str] | None = None
    input_shapes: dict[str, tuple[int, ...]] | None = None
    output_shapes: dict[str, tuple[int, ...]] | None = None
    input_normalization_modes: dict[str, str] | None = None
    output_normalization_modes: dict[str, str] | None = None


def read(folder: Path) -> Foreign:
    """The policy of a folder. Raises DiffpolicyError for one that is not supported."""
    where = str(folder / CONFIG)
    document = read_json(folder / CONFIG)
    kind = document.get("type", "diffusion") if isinstance(document, dict) else "diffusion"
    refuse_others(where, "the policy", kind, ("diffusion",))
    config: LeRobotConfig = validate(LeRobotConfig, document, where, others=True)
    tensors = read_tensors(folder / WEIGHTS)
    inputs, ignored, actions = _features(config, where)
    cameras = [key for key, feature in inputs.items() if feature.type == PICTURE]
    _check(config, cameras, where)
    statistics = read_statistics(folder, _modes(config), tensors)
    modes = {key: statistics.mode(key, f.type) for key, f in inputs.items()}
    specs = {key: _spec(config, f, modes[key], f"{where}: {key}") for key, f in inputs.items()}
    normalizers = {
        key: _normalizer(statistics, key, spec, modes[key])
        for key, spec in specs.items()
        if spec.normalizer
    }
    scheduler, action_mode = _scheduler(config), statistics.mode(ACTION, "ACTION")
    model = ModelConfig(
        **scheduler.process(where),
        **_sizes(config),
        normalizer=NORMALIZERS[action_mode] or "limits",
        crop=share_seen(specs),
    )
    return Foreign(
        model=model,
        horizons=Horizons(config.n_obs_steps, config.horizon, config.n_action_steps),
        observations=specs,
        action_dim=actions,
        clip_range=scheduler.clip_range,
        weights=_weights(tensors, config, model, where),
        observation_normalizers=normalizers,
        action_normalizer=statistics.action_normalizer(actions),
        grid="leading",
        rederive=config.noise_scheduler_type == "DDPM",
        origin={"format": "lerobot", "config": document},
        notes=(*_notes(config, ignored), *constants(normalizers)),
    )


def _features(config: LeRobotConfig, where: str) -> tuple[dict[str, Feature], list[str], int]:
    """Inputs in the order of the conditioning, keys that it leaves out, and D_a."""
    inputs = config.input_features or {
        key: Feature(_type(key), shape) for key, shape in (config.input_shapes or {}).items()
    }
    outputs = config.output_features or {
        key: Feature(ACTION.upper(), shape) for key, shape in (config.output_shapes or {}).items()
    }
    keys = {STATE: "observation.state", WORLD: "observation.environment_state"}
    ordered = {
        key: feature
        for kind in (STATE, PICTURE, WORLD)
        for key, feature in inputs.items()
        if feature.type == kind and key == keys.get(kind, key)
    }
    if keys[STATE] not in ordered or len(ordered) < 2 or ACTION not in outputs:
        raise DiffpolicyError(
            f"{where}: a diffusion policy observes {keys[STATE]} and pictures or {keys[WORLD]}, "
            f"and outputs {ACTION}; got {', '.join(inputs) or 'no inputs'} and "
            f"{', '.join(outputs) or 'no outputs'}"
        )
    for key, feature in {**ordered, ACTION: outputs[ACTION]}.items():
        if len(feature.shape) != (3 if feature.type == PICTURE else 1):
            raise DiffpolicyError(f"{where}: {key} has an unexpected shape {list(feature.shape)}")
    return ordered, sorted(inputs.keys() - ordered.keys()), outputs[ACTION].shape[0]


def _type(key: str) -> str:
    """Type of an input of an older file."""
    if key.startswith("observation.image"):
        return PICTURE
    return WORLD if key == "observation.environment_state" else STATE


def _check(config: LeRobotConfig, cameras: list[str], where: str) -> None:
    """Refuse what the network here does not have."""
    refuse_others(where, "noise_scheduler_type", config.noise_scheduler_type, ("DDIM", "DDPM"))
    refuse_others(where, "n_groups", config.n_groups, (FINAL_GROUPS,))
    if cameras:
        refuse_others(where, "vision_backbone", config.vision_backbone, ("resnet18",))


def _modes(config: LeRobotConfig) -> dict[str, str]:
    """Modes of normalisation by type of feature, or by key in older files."""
    older = {
        **(config.input_normalization_modes or {}),
        **(config.output_normalization_modes or {}),
    }
    return {key: mode.upper() for key, mode in (config.normalization_mapping or older).items()}


def _spec(config: LeRobotConfig, feature: Feature, mode: str, where: str) -> ObservationSpec:
    if feature.type != PICTURE:
        return ObservationSpec(feature.shape, normalizer=NORMALIZERS[mode])
    channels, height, width = feature.shape
    spec = picture(height, width, channels)
    refuse_others(where, "resize_shape", config.resize_shape, (None, (height, width)))
    crop = centred_crop(spec.shape, *(config.crop_shape or (height, width)))
    return ObservationSpec(spec.shape, spec.dtype, spec.normalizer, crop)


def _sizes(config: LeRobotConfig) -> dict[str, Any]:
    """Fields of `ModelConfig` for the networks."""
    return {
        "denoiser": "unet",
        "condition": config.diffusion_step_embed_dim,
        "unet_channels": config.down_dims,
        "unet_kernel": config.kernel_size,
        "unet_groups": config.n_groups,
        "encoder": "resnet18" if config.use_group_norm else "resnet18-folded",
        "keypoints": config.spatial_softmax_num_keypoints,
        "share_encoder": not config.use_separate_rgb_encoder_per_camera,
    }


def _scheduler(config: LeRobotConfig) -> Scheduler:
    return Scheduler(
        num_train_timesteps=config.num_train_timesteps,
        beta_schedule=config.beta_schedule,
        prediction_type=config.prediction_type,
        beta_start=config.beta_start,
        beta_end=config.beta_end,
        clip_sample=config.clip_sample,
        clip_sample_range=config.clip_sample_range,
    )


def _normalizer(statistics: Statistics, key: str, spec: ObservationSpec, mode: str) -> Normalizer:
    """Of a vector as it is, or of a picture of 0 to 255, whose statistics are of [0, 1]."""
    count = spec.normalized_shape[0]
    found = statistics.normalizer(key, mode, count) if mode != "IDENTITY" else identity(count)
    if not spec.is_picture:
        return found
    return replace(found, scale=(found.scale / np.float64(255)).astype(np.float32))


def _weights(
    tensors: dict[str, Tensor], config: LeRobotConfig, model: ModelConfig, where: str
) -> dict[str, Tensor]:
    """Weights of the UNet and the cameras by our names.

    Those of a network under torch.compile have `_orig_mod` in theirs.
    """
    theirs = {
        name.removeprefix("diffusion.").replace("._orig_mod.", "."): tensor
        for name, tensor in tensors.items()
        if name.startswith("diffusion.") and not name.endswith("pos_grid")  # a constant
    }
    unet = {n.removeprefix("unet."): t for n, t in theirs.items() if n.startswith("unet.")}
    cameras = {n: t for n, t in theirs.items() if not n.startswith("unet.")}
    found = unet_weights(unet, LEROBOT, model, config.use_film_scale_modulation)
    found |= encoder_weights(cameras, config.use_separate_rgb_encoder_per_camera)
    check_all_taken(unet | cameras, where)
    return found


def encoder_weights(theirs: dict[str, Tensor], separate: bool = False) -> dict[str, Tensor]:
    """Weights of the cameras of an encoder by our names, removed from theirs.

    theirs: by the names inside `diffusion`. separate: each camera has weights of its own. BatchNorm
    is folded into its convolutions.
    """
    found = {}
    for name in list(theirs):
        _, inside, rest = name.partition("rgb_encoder.")
        number, _, rest = rest.partition(".") if separate else ("0", "", rest)
        for place, ours in ENCODER.items():
            if inside and rest.startswith(f"{place}."):
                ours_name = f"encoder.cameras.{number}.{ours}{rest.removeprefix(place)}"
                found[ours_name] = theirs.pop(name)
                break
    return fold_batch_norms(found)


def _notes(config: LeRobotConfig, ignored: list[str]) -> list[str]:
    """Sentences about the policy's own sampler and about inputs that its network leaves out."""
    steps = config.num_inference_steps or config.num_train_timesteps
    eta = " --eta 1" if config.noise_scheduler_type == "DDPM" else ""
    own = f"LeRobot samples this policy by {config.noise_scheduler_type} with --ddim-steps {steps}"
    unused = [f"its network does not use {', '.join(ignored)}"] if ignored else []
    return [f"{own}{eta}", *unused]
