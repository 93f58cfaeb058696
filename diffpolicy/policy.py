"""Policy: observation history → action chunk, numpy in and numpy out."""

from pathlib import Path

import numpy as np
import torch

from diffpolicy import checkpoint as checkpoints
from diffpolicy import noise as levels
from diffpolicy import sampler
from diffpolicy.checkpoint import Checkpoint
from diffpolicy.denoisers import build
from diffpolicy.device import choose_device
from diffpolicy.engines.eager import EagerEngine
from diffpolicy.errors import DiffpolicyError


class Policy:
    """A trained denoiser with one step budget.

    Shapes: B batch, T_o observation horizon, T_p prediction horizon, D_o and D_a dimensions.
    Every budget starts at t = T - 1 and ends at ᾱ = 1 (trailing grid).
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        ddim_steps: int = 10,
        eta: float = 0.0,
        device: str = "cpu",
        seed: int = 0,
    ):
        if not 0 <= eta <= 1:
            raise DiffpolicyError(f"eta must lie between 0 (DDIM) and 1 (ancestral); got {eta}")
        self.specification = spec = checkpoint.specification
        self.horizons, self.task = spec.horizons, spec.task
        self.ddim_steps, self.eta = ddim_steps, eta
        self.device = choose_device(device)
        self._normalize = checkpoint.observation_normalizer.normalize
        self._unnormalize = checkpoint.action_normalizer.unnormalize
        table = levels.alpha_bar_table(spec.model.schedule, spec.model.train_timesteps)
        grid = levels.trailing_grid(spec.model.train_timesteps, ddim_steps)
        self.steps = sampler.make_steps(table, grid, eta)
        denoiser = build(spec.model, spec.horizons, spec.task.observation_dim, spec.task.action_dim)
        try:
            denoiser.load_state_dict(checkpoint.weights)
        except RuntimeError as error:
            raise DiffpolicyError(f"the weights do not fit the network: {error}") from error
        denoiser.to(self.device).eval().requires_grad_(False)
        self.engine = EagerEngine(denoiser, self.steps, spec.model.prediction, spec.clip_range)
        self._rng = np.random.default_rng(seed)

    @classmethod
    def load(cls, run: str | Path, **options) -> "Policy":
        """From a run folder or its policy.safetensors; runs no code from the file.

        options: ddim_steps, eta, device, seed. Raises DiffpolicyError where the folder is not
        usable or the budget does not fit the chain.
        """
        return cls(checkpoints.load_policy(run), **options)

    @property
    def network_evals(self) -> int:
        """Network evaluations a chunk (NFE)."""
        return len(self.steps)

    def noise_shape(self, batch: int) -> tuple[int, int, int, int]:
        """[1 + K·(η>0), B, T_p, D_a]."""
        count = sampler.noise_count(len(self.steps), self.eta)
        return count, batch, self.horizons.prediction, self.task.action_dim

    def __call__(self, observation_history: np.ndarray, noise: np.ndarray | None = None):
        """observation_history [B, T_o, D_o] -> actions [B, T_p - T_o + 1, D_a] float32.

        The first action belongs to the newest observation; a controller executes T_a of them.
        noise [1 + K·(η>0), B, T_p, D_a] standard normal makes the result repeatable; without it
        the policy draws from its own seed.
        """
        history = np.asarray(observation_history, np.float32)
        expected = (self.horizons.observation, self.task.observation_dim)
        if history.ndim != 3 or history.shape[1:] != expected:
            raise DiffpolicyError(
                f"observation_history must be [B, T_o, D_o] = [B, {expected[0]}, {expected[1]}]; "
                f"got {list(history.shape)}"
            )
        shape = self.noise_shape(len(history))
        if noise is None:
            noise = self._rng.standard_normal(shape, np.float32)
        noise = np.asarray(noise, np.float32)
        if noise.shape != shape:
            raise DiffpolicyError(f"noise must be {list(shape)}; got {list(noise.shape)}")
        normalized = torch.from_numpy(self._normalize(history)).to(self.device)
        chunk = self.engine(normalized, torch.from_numpy(noise).to(self.device))
        usable = chunk[:, self.horizons.observation - 1 :]
        return self._unnormalize(usable.cpu().numpy())
