"""Baselines: the sampling loop of diffusers and the training loop of Diffusion Policy.

Both run on the same networks and data as the engines and the learner.
"""

import copy
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from diffpolicy.checkpoint import Checkpoint
from diffpolicy.data.windows import Windows
from diffpolicy.denoisers import build_network
from diffpolicy.denoisers.committed import COMMITTED
from diffpolicy.errors import DiffpolicyError
from diffpolicy.sampling.noise import alpha_bar_table, betas_of
from diffpolicy.specification import FLAT, Specification

DIFFUSERS_GRIDS = ("trailing", "leading")
PREDICTION_TYPES = {"epsilon": "epsilon", "x0": "sample", "v": "v_prediction"}


def scheduler_class() -> Any:
    """Class of diffusers, an optional package. Raises DiffpolicyError if it is absent."""
    try:
        from diffusers.schedulers.scheduling_ddim import DDIMScheduler
    except ImportError as error:
        raise DiffpolicyError(
            f"--baseline diffusers needs `pip install diffusers`: {error}"
        ) from error
    return DDIMScheduler


def _scheduler(spec: Specification) -> Any:
    """Scheduler of diffusers with the same noise levels, on the run's grid if diffusers has it."""
    model = spec.model
    return scheduler_class()(
        num_train_timesteps=model.train_timesteps,
        trained_betas=betas_of(alpha_bar_table(model.schedule, model.train_timesteps)).tolist(),
        clip_sample=spec.clip_range is not None,
        clip_sample_range=spec.clip_range or 1.0,
        prediction_type=PREDICTION_TYPES[model.prediction],
        timestep_spacing=spec.grid if spec.grid in DIFFUSERS_GRIDS else "trailing",
    )


class DiffusersLoop:
    """Sampling loop of diffusers, numpy in, numpy out; the whole network runs at every step.

    As in Diffusion Policy the encoder runs once, before the steps.
    """

    def __init__(self, checkpoint: Checkpoint, ddim_steps: int, device: torch.device):
        spec, self.normalizers = checkpoint.specification, checkpoint.observation_normalizers
        network = build_network(spec, self.normalizers)
        network.load_state_dict(checkpoint.weights)
        self.network = network.to(device).eval().requires_grad_(False)
        self.shape = (1, spec.horizons.prediction, spec.task.action_dim)
        self.usable, self.device = slice(spec.horizons.observation - 1, None), device
        self.observations = spec.task.observations
        self.unnormalize = checkpoint.action_normalizer.unnormalize
        self.scheduler = _scheduler(spec)
        self.scheduler.set_timesteps(ddim_steps)

    @torch.inference_mode()
    def __call__(self, observation: Mapping[str, np.ndarray]) -> np.ndarray:
        """Histories {key: [1, T_o, …]} -> actions [1, T_p - T_o + 1, D_a]."""
        encoded = self.encode(observation)
        x = torch.randn(self.shape, device=self.device)
        for t in self.scheduler.timesteps:
            times = t.to(self.device).expand(1)
            x = self.scheduler.step(self.network(x, times, encoded), t, x).prev_sample
        return self.unnormalize(x[:, self.usable].cpu().numpy())

    @torch.inference_mode()
    def encode(self, observation: Mapping[str, np.ndarray]) -> Tensor:
        """The encoded observation [1, C], on the device."""
        histories = {
            key: torch.from_numpy(self._normalised(key, observation[key])).to(self.device)
            for key in self.observations
        }
        if most := self.network.encoder.prefix_max:
            histories[COMMITTED] = torch.zeros(1, most, self.shape[-1] + 1, device=self.device)
        return self.network.encoder(histories)

    def _normalised(self, key: str, history: np.ndarray) -> np.ndarray:
        whole = self.observations[key].is_picture or key not in self.normalizers
        return history if whole else self.normalizers[key].normalize(history)


class DiffusersTraining:
    """Training loop of Diffusion Policy.

    A DataLoader of single windows, diffusers' scheduler, AdamW, and an EMA over a loop of
    parameters.
    """

    def __init__(
        self, spec: Specification, windows: Windows, device: torch.device, batch: int, workers: int
    ):
        self.network, self.device = build_network(spec).to(device), device
        self.ema = copy.deepcopy(self.network).requires_grad_(False)
        self.optimizer = torch.optim.AdamW(
            self.network.parameters(), lr=1e-4, betas=(0.95, 0.999), weight_decay=1e-6
        )
        self.warmup = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer, lambda step: min(1.0, (step + 1) / 500)
        )
        self.scheduler, self.timesteps = _scheduler(spec), spec.model.train_timesteps
        pinned = device.type == "cuda"
        loader = DataLoader(
            OneByOne(windows), batch, shuffle=True, num_workers=workers, pin_memory=pinned
        )
        self.batches = _endless(loader)

    def learn(self) -> float:
        """Take one optimiser step; return the loss."""
        observation, action = (x.to(self.device, non_blocking=True) for x in next(self.batches))
        noise = torch.randn(action.shape, device=self.device)
        t = torch.randint(0, self.timesteps, (len(action),), device=self.device)
        noisy = self.scheduler.add_noise(action, noise, t)
        loss = torch.nn.functional.mse_loss(self.network(noisy, t, observation), noise)
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.warmup.step()
        self._average(0.999)
        return loss.item()

    @torch.no_grad()
    def _average(self, decay: float) -> None:
        for kept, now in zip(self.ema.parameters(), self.network.parameters(), strict=True):
            kept.mul_(decay).add_(now, alpha=1 - decay)


class OneByOne(Dataset):
    """Dataset of windows: (observation history, action chunk) at each index."""

    def __init__(self, windows: Windows):
        self.windows = windows

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        observation, action, _ = self.windows.gather(np.array([index]))
        return torch.from_numpy(observation[FLAT][0]), torch.from_numpy(action[0])


def _endless(loader: DataLoader) -> Iterator[Any]:
    """Batches, epoch after epoch."""
    while True:
        yield from loader
