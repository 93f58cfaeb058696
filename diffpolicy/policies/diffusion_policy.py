"""Checkpoints of Diffusion Policy (arXiv 2303.04137): its UNets of vectors and of pictures.

payload["cfg"]                      configuration, with `policy`
payload["state_dicts"]["ema_model"] averaged weights, with the normaliser; or ["model"]
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from diffpolicy.checked import shown, validate
from diffpolicy.config import ModelConfig
from diffpolicy.data.normalizer import Normalizer
from diffpolicy.errors import DiffpolicyError
from diffpolicy.policies.diffusion_policy_cameras import (
    MultiImage,
    multi_image,
    resnet,
    visual_core,
)
from diffpolicy.policies.foreign import (
    FINAL_GROUPS,
    Foreign,
    Scheduler,
    as_float32,
    centred_crop,
    check_all_taken,
    fold_batch_norms,
    refuse_others,
    share_seen,
    take,
)
from diffpolicy.policies.pickled import TorchFile
from diffpolicy.policies.unet import DIFFUSION_POLICY, unet_weights
from diffpolicy.specification import ACTION, FLAT, Horizons, ObservationSpec, picture

LOWDIM, HYBRID = "DiffusionUnetLowdimPolicy", "DiffusionUnetHybridImagePolicy"
IMAGE = "DiffusionUnetImagePolicy"
OBS = "obs"  # the only observation of a policy of vectors
SCHEDULERS = {"DDPMScheduler": True, "DDIMScheduler": False}  # ε̂ is read from the clipped x̂0
VARIANCES = ("fixed_small", "fixed_small_log")
KEYPOINTS = 32  # of robomimic's spatial softmax
UNUSED = ("_dummy_variable", "pos_x", "pos_y", "temperature")  # ends of names without effect


@dataclass(frozen=True)
class Network:
    """Options of ConditionalUnet1D that a policy of pictures has among its own."""

    diffusion_step_embed_dim: int = 256
    down_dims: tuple[int, ...] = (256, 512, 1024)
    kernel_size: int = 5
    n_groups: int = 8
    cond_predict_scale: bool = True


@dataclass(frozen=True)
class Unet(Network):
    """Options of ConditionalUnet1D, with its defaults."""

    kernel_size: int = 3
    cond_predict_scale: bool = False


@dataclass(frozen=True)
class Key:
    """An observation of a policy of pictures, which are [C, H, W]."""

    shape: tuple[int, ...]
    type: str = "low_dim"


@dataclass(frozen=True)
class Meta:
    """Observations and actions of a policy of pictures."""

    obs: dict[str, Key]
    action: Key


@dataclass(frozen=True)
class PolicyConfig:
    """Options that matter to control, with the defaults of a policy of pictures.

    eta and use_clipped_model_output are given to the scheduler.
    """

    horizon: int
    n_obs_steps: int
    n_action_steps: int
    noise_scheduler: dict[str, Any]
    num_inference_steps: int | None = None
    obs_as_global_cond: bool = True
    eta: float = 0.0
    use_clipped_model_output: bool = False
    shape_meta: dict[str, Any] = field(default_factory=dict)
    crop_shape: tuple[int, int] | None = (76, 76)
    obs_encoder_group_norm: bool = False
    eval_fixed_crop: bool = False
    obs_encoder: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class LowdimConfig(PolicyConfig):
    """Options of a policy of vectors, with its defaults."""

    obs_as_global_cond: bool = False
    obs_as_local_cond: bool = False
    pred_action_steps_only: bool = False
    oa_step_convention: bool = False
    obs_dim: int = 0
    action_dim: int = 0
    model: dict[str, Any] = field(default_factory=dict)


def read(path: Path) -> Foreign:
    """The policy of a checkpoint. Raises DiffpolicyError for one that is not supported."""
    where = str(path)
    document, tensors, averaged = _content(path)
    options = document["policy"]
    kind = str(options.get("_target_")).rpartition(".")[2]
    refuse_others(where, "the policy", kind, (LOWDIM, HYBRID, IMAGE))
    expected = LowdimConfig if kind == LOWDIM else PolicyConfig
    config: PolicyConfig = validate(expected, options, f"{where}: policy", others=True)
    _check(config, where)
    encoder = multi_image(config.obs_encoder, where) if kind == IMAGE else None
    if encoder:
        config = replace(config, crop_shape=encoder.crop)
    specs, actions = _observations(config, encoder, where)
    scheduler, rederive = _scheduler(config, where)
    network = _network(config, options, where)
    model = ModelConfig(
        **scheduler.process(where),
        denoiser="unet",
        condition=network.diffusion_step_embed_dim,
        unet_channels=network.down_dims,
        unet_kernel=network.kernel_size,
        unet_groups=network.n_groups,
        encoder="resnet18" if (encoder or config).obs_encoder_group_norm else "resnet18-folded",
        keypoints=0 if encoder else KEYPOINTS,
        share_encoder=encoder is not None and encoder.share_rgb_model,
        crop=share_seen(specs),
    )
    theirs = {FLAT: OBS} if kind == LOWDIM else {}
    return Foreign(
        model=model,
        horizons=Horizons(config.n_obs_steps, config.horizon, config.n_action_steps),
        observations=specs,
        action_dim=actions,
        clip_range=scheduler.clip_range,
        observation_normalizers={
            key: _normalizer(tensors, theirs.get(key, key), spec, encoder)
            for key, spec in specs.items()
        },
        action_normalizer=_normalizer(tensors, ACTION, ObservationSpec((actions,))),
        weights=_weights(tensors, specs, model, network.cond_predict_scale, where),
        grid="leading",
        rederive=rederive,
        origin={"format": "diffusion_policy", "config": document, "weights": averaged},
        notes=(f"weights of {averaged}", *_notes(config, kind, scheduler, specs)),
    )


def _content(path: Path) -> tuple[dict[str, Any], dict[str, Tensor], str]:
    """Configuration, tensors and name of the state dict of a checkpoint."""
    file = TorchFile(path)
    payload = file.payload if isinstance(file.payload, dict) else {}
    document, states = file.plain(payload.get("cfg")), payload.get("state_dicts")
    options = document.get("policy") if isinstance(document, dict) else None
    if not isinstance(options, dict) or not isinstance(states, dict):
        raise DiffpolicyError(
            f"{path} is not a checkpoint of Diffusion Policy; expected cfg.policy and state_dicts"
        )
    name = "ema_model" if "ema_model" in states else "model"
    tensors = file.tensors(states.get(name))
    return document, {n: as_float32(tensor) for n, tensor in tensors.items()}, name


def _network(config: PolicyConfig, options: dict[str, Any], where: str) -> Network:
    """Options of the UNet, which stand in `model` or among those of the policy."""
    given = (Unet, config.model) if isinstance(config, LowdimConfig) else (Network, options)
    found: Network = validate(*given, where, others=True)
    refuse_others(where, "n_groups", found.n_groups, (FINAL_GROUPS,))
    return found


def _check(config: PolicyConfig, where: str) -> None:
    """Refuse what the network here does not have."""
    refuse_others(where, "obs_as_global_cond", config.obs_as_global_cond, (True,))
    if isinstance(config, LowdimConfig):
        refuse_others(where, "obs_as_local_cond", config.obs_as_local_cond, (False,))
        refuse_others(where, "pred_action_steps_only", config.pred_action_steps_only, (False,))
        refuse_others(where, "oa_step_convention", config.oa_step_convention, (True,))


def _observations(
    config: PolicyConfig, encoder: MultiImage | None, where: str
) -> tuple[dict[str, ObservationSpec], int]:
    """Observations in the order of the conditioning, and D_a."""
    if isinstance(config, LowdimConfig):
        return {FLAT: ObservationSpec((config.obs_dim,))}, config.action_dim
    meta: Meta = validate(Meta, config.shape_meta, f"{where}: shape_meta", others=True)
    keys = list(meta.obs)
    if encoder:  # pictures first, each group by name
        keys.sort(key=lambda key: (meta.obs[key].type != "rgb", key))
    specs = {key: _spec(config, key, meta.obs[key], where) for key in keys}
    resized = encoder.resize_shape if encoder else None
    for shape in (spec.shape for spec in specs.values() if spec.is_picture):
        refuse_others(where, "resize_shape", resized, (None, shape[:2]))
    if len(meta.action.shape) != 1:
        raise DiffpolicyError(f"{where}: an action has the shape {shown(meta.action.shape)}")
    return specs, meta.action.shape[0]


def _spec(config: PolicyConfig, key: str, found: Key, where: str) -> ObservationSpec:
    refuse_others(where, f"the type of {key},", found.type, ("rgb", "low_dim"))
    if found.type == "low_dim":
        return ObservationSpec(found.shape)
    if len(found.shape) != 3:
        raise DiffpolicyError(f"{where}: {key} has an unexpected shape {shown(found.shape)}")
    channels, height, width = found.shape
    spec = picture(height, width, channels)
    crop = centred_crop(spec.shape, *(config.crop_shape or (height, width)))
    return ObservationSpec(spec.shape, spec.dtype, spec.normalizer, crop)


def _notes(
    config: PolicyConfig, kind: str, scheduler: Scheduler, specs: dict[str, ObservationSpec]
) -> Iterator[str]:
    """Sentences about the policy's own sampler and crop."""
    sampler = str(config.noise_scheduler.get("_target_")).rpartition(".")[2]
    steps = config.num_inference_steps or scheduler.num_train_timesteps
    η = 1.0 if SCHEDULERS[sampler] else config.eta
    eta = f" --eta {η:g}" if η else ""
    yield f"Diffusion Policy samples this policy by {sampler} with --ddim-steps {steps}{eta}"
    cropped = any(spec.crop for spec in specs.values()) and config.crop_shape
    if kind == HYBRID and cropped and not config.eval_fixed_crop:
        yield "its crop is random also in control (eval_fixed_crop: False); here it is the centre"


def _scheduler(config: PolicyConfig, where: str) -> tuple[Scheduler, bool]:
    """The scheduler, and `rederive` of the specification."""
    options = config.noise_scheduler
    kind = str(options.get("_target_")).rpartition(".")[2]
    refuse_others(where, "noise_scheduler", kind, SCHEDULERS)
    refuse_others(where, "variance_type", options.get("variance_type", VARIANCES[0]), VARIANCES)
    found = validate(Scheduler, options, f"{where}: noise_scheduler", others=True)
    return found, SCHEDULERS[kind] or config.use_clipped_model_output


def _normalizer(
    tensors: dict[str, Tensor], key: str, spec: ObservationSpec, encoder: MultiImage | None = None
) -> Normalizer:
    """scale · x + offset of a key; that of a picture takes numbers in [0, 1] there."""
    parts = (take(tensors, f"normalizer.params_dict.{key}.{part}") for part in ("scale", "offset"))
    scale, offset = (part.double().numpy() for part in parts)
    try:
        scale, offset = (np.broadcast_to(x, spec.normalized_shape) for x in (scale, offset))
    except ValueError:
        raise DiffpolicyError(
            f"the normaliser of {key} has {len(scale)} numbers; expected {spec.normalized_shape[0]}"
        ) from None
    found = Normalizer(scale.astype(np.float32), offset.astype(np.float32))
    if not spec.is_picture:
        return found
    found = encoder.normalizer(key, found) if encoder else found
    return replace(found, scale=(found.scale / np.float64(255)).astype(np.float32))


def _weights(
    tensors: dict[str, Tensor],
    specs: dict[str, ObservationSpec],
    model: ModelConfig,
    scales: bool,
    where: str,
) -> dict[str, Tensor]:
    """Weights of the UNet and the cameras by our names."""
    theirs = {
        name: tensor
        for name, tensor in tensors.items()
        if not name.startswith("normalizer.") and not name.endswith(UNUSED)
    }
    unet = {n.removeprefix("model."): t for n, t in theirs.items() if n.startswith("model.")}
    rest = {n: t for n, t in theirs.items() if not n.startswith("model.")}
    found = unet_weights(unet, DIFFUSION_POLICY, model, scales)
    keys = [key for key, spec in specs.items() if spec.is_picture]
    for number, key in enumerate(["rgb"] if model.share_encoder else keys):
        camera = visual_core if model.keypoints else resnet
        found |= camera(rest, key, f"encoder.cameras.{number}")
    check_all_taken(unet | rest, where)
    return fold_batch_norms(found)
