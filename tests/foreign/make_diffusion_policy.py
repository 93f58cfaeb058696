"""Write checkpoints of Diffusion Policy, by its own code, with the actions that it predicts.

    python make_diffusion_policy.py OUT

writes OUT/lowdim.ckpt, OUT/ddim.ckpt, OUT/hybrid.ckpt (state and a picture) and OUT/image.ckpt (two
pictures and three vectors), OUT/batch_norm.ckpt (hybrid) and OUT/shared.ckpt (image) with
BatchNorm, and for each an npz with observations, noise and actions. It needs its own environment:
the folder `diffusion_policy` of https://github.com/real-stanford/diffusion_policy on the path,
torch, torchvision, diffusers, einops, hydra-core, omegaconf, dill, zarr<3, robomimic 0.3 and their
requirements.
"""

import copy
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from unittest.mock import MagicMock

import diffusion_policy
import hydra
import numpy as np
import torch
from diffusion_policy.model.common.normalizer import LinearNormalizer
from diffusion_policy.workspace.base_workspace import BaseWorkspace
from omegaconf import OmegaConf

OmegaConf.register_new_resolver("eval", eval, replace=True)
OmegaConf.register_new_resolver("now", lambda text: text, replace=True)
CONFIGS = Path(next(iter(diffusion_policy.__path__))) / "config"
SMALL = {"down_dims": [32, 64], "diffusion_step_embed_dim": 32}
BATCH = 3


class Workspace(BaseWorkspace):
    """A policy with averaged weights, as the workspaces of Diffusion Policy hold them."""

    include_keys = ("global_step", "epoch")

    def __init__(self, cfg):
        super().__init__(cfg, output_dir="unused")
        torch.manual_seed(0)
        self.model = hydra.utils.instantiate(cfg.policy)
        for parameter in self.model.parameters():
            parameter.data += 0.02 * torch.randn_like(parameter)
        self.ema_model = copy.deepcopy(self.model)
        for parameter in self.ema_model.parameters():
            parameter.data += 0.02 * torch.randn_like(parameter)
        parameters = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer = hydra.utils.instantiate(cfg.optimizer, params=parameters)
        self.global_step, self.epoch = 7, 1


def configuration(workspace, task):
    cfg = OmegaConf.load(CONFIGS / f"{workspace}.yaml")
    for key in ("defaults", "hydra", "multi_run"):
        cfg.pop(key)
    cfg.task = OmegaConf.load(CONFIGS / "task" / f"{task}.yaml")
    return cfg


def lowdim():
    cfg = configuration("train_diffusion_unet_lowdim_workspace", "pusht_lowdim")
    cfg.policy.model.update(SMALL)
    return cfg, {"obs": torch.randn(64, 20) * 100 + 256}


def leave_out(*names):
    """Stand-ins for modules that are imported and never called here."""
    for name in names:
        sys.modules[name] = MagicMock(__spec__=ModuleSpec(name, None))


def hybrid():
    cfg = configuration("train_diffusion_unet_hybrid_workspace", "pusht_image")
    cfg.policy.update(SMALL | {"crop_shape": [85, 77]})
    pictures = torch.randint(256, (64, 3, 96, 96)) / 255
    return cfg, {"image": pictures, "agent_pos": torch.randn(64, 2) * 100 + 256}


def image():
    cfg = configuration("train_diffusion_unet_image_workspace", "lift_image_abs")
    cfg.policy.update(SMALL)
    cfg.policy.obs_encoder.crop_shape = [75, 67]
    shapes = {key: tuple(found.shape) for key, found in cfg.shape_meta.obs.items()}
    draw = {1: lambda s: torch.randn(64, *s), 3: lambda s: torch.randint(256, (64, *s)) / 255}
    return cfg, {key: draw[len(shape)](shape) for key, shape in shapes.items()}


def shared():
    cfg, observations = image()
    cfg.policy.obs_encoder.share_rgb_model = True
    return cfg, observations


def batch_norm():
    cfg, observations = hybrid()
    cfg.policy.obs_encoder_group_norm = False
    return cfg, observations


def ddim():
    cfg, observations = lowdim()
    options = OmegaConf.load(CONFIGS / "train_diffusion_unet_ddim_lowdim_workspace.yaml").policy
    cfg.policy.noise_scheduler = options.noise_scheduler
    cfg.policy.num_inference_steps = options.num_inference_steps
    cfg.policy.model.cond_predict_scale = False
    return cfg, observations


def normalizer_of(observations, actions):
    normalizer = LinearNormalizer()
    vectors = {k: x for k, x in observations.items() if x.ndim == 2}
    normalizer.fit({**vectors, "action": actions})
    for key in observations.keys() - vectors:
        from diffusion_policy.common.normalize_util import get_image_range_normalizer

        normalizer[key] = get_image_range_normalizer()
    return normalizer


def measure(policy, observations):
    """Set the statistics of BatchNorm, if any, to those of the observations."""
    norms = [module for module in policy.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = None  # the mean over all calls
    if norms:
        with torch.no_grad():
            policy.train().obs_encoder(policy.normalizer.normalize(observations))


def write(name, make, out):
    torch.manual_seed(1)
    cfg, observations = make()
    OmegaConf.resolve(cfg)  # as its train.py does
    action_dim = cfg.task.get("action_dim") or cfg.task.shape_meta.action.shape[0]
    actions = 2 * torch.rand(64, action_dim) - 1
    workspace = Workspace(cfg)
    for policy in (workspace.model, workspace.ema_model):
        policy.set_normalizer(normalizer_of(observations, actions))
        measure(policy, observations)
    workspace.save_checkpoint(out / f"{name}.ckpt", use_thread=False)
    policy = workspace.ema_model.eval()
    seen = {k: x[: 2 * BATCH].unflatten(0, (BATCH, 2)) for k, x in observations.items()}
    shape = (BATCH, policy.horizon, action_dim)
    torch.manual_seed(2)
    noise = torch.stack([torch.randn(shape) for _ in range(1 + policy.num_inference_steps)])
    torch.manual_seed(2)
    with torch.inference_mode():
        found = policy.predict_action(seen)
    seen = {f"obs/{key}": x.numpy() for key, x in seen.items()}
    np.savez(out / f"{name}.npz", noise=noise, action=found["action"], **seen)


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    folder.mkdir(exist_ok=True)
    # The first has no operators beside a torch for CPUs alone; the others draw pictures.
    leave_out("torchvision._meta_registrations", "matplotlib", "matplotlib.pyplot")
    for make in (lowdim, ddim, hybrid, batch_norm, image, shared):
        write(make.__name__, make, folder)
