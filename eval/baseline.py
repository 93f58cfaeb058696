"""The loop that people run today: the network called whole at every step, diffusers' scheduler."""

from typing import Any

import numpy as np
import torch

from diffpolicy.checkpoint import Checkpoint
from diffpolicy.denoisers import build
from diffpolicy.errors import DiffpolicyError
from diffpolicy.noise import alpha_bar_table, betas_of

PREDICTION_TYPES: dict[str, Any] = {"epsilon": "epsilon", "x0": "sample", "v": "v_prediction"}


def scheduler_class() -> Any:
    """Of a package that is no requirement; DiffpolicyError where it is not there."""
    try:
        from diffusers.schedulers.scheduling_ddim import DDIMScheduler
    except ImportError as error:
        raise DiffpolicyError(
            f"--baseline diffusers needs `pip install diffusers`: {error}"
        ) from error
    return DDIMScheduler


class DiffusersLoop:
    """numpy in, numpy out, on the same weights and the trailing grid; nothing is hoisted."""

    def __init__(self, checkpoint: Checkpoint, ddim_steps: int, device: torch.device):
        spec = checkpoint.specification
        network = build(spec.model, spec.horizons, spec.task.observation_dim, spec.task.action_dim)
        network.load_state_dict(checkpoint.weights)
        self.network = network.to(device).eval().requires_grad_(False)
        self.shape = (1, spec.horizons.prediction, spec.task.action_dim)
        self.usable, self.device = slice(spec.horizons.observation - 1, None), device
        self.normalize = checkpoint.observation_normalizer.normalize
        self.unnormalize = checkpoint.action_normalizer.unnormalize
        model = spec.model
        self.scheduler = scheduler_class()(
            num_train_timesteps=model.train_timesteps,
            trained_betas=betas_of(alpha_bar_table(model.schedule, model.train_timesteps)).tolist(),
            clip_sample=spec.clip_range is not None,
            clip_sample_range=spec.clip_range or 1.0,
            prediction_type=PREDICTION_TYPES[model.prediction],
            timestep_spacing="trailing",
        )
        self.scheduler.set_timesteps(ddim_steps)

    @torch.inference_mode()
    def __call__(self, observation_history: np.ndarray) -> np.ndarray:
        """observation_history [1, T_o, D_o] -> actions [1, T_p - T_o + 1, D_a]."""
        observation = torch.from_numpy(self.normalize(observation_history)).to(self.device)
        x = torch.randn(self.shape, device=self.device)
        for t in self.scheduler.timesteps:
            times = t.to(self.device).expand(1)
            x = self.scheduler.step(self.network(x, times, observation), t, x).prev_sample
        return self.unnormalize(x[:, self.usable].cpu().numpy())
