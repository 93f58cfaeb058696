"""The reference engine: plain PyTorch, with everything that can be hoisted done once."""

from collections.abc import Sequence

import torch
from torch import Tensor

from diffpolicy.denoisers import Denoiser
from diffpolicy.sampler import Step, ddim_sample


class EagerEngine:
    """observation [B, T_o, D_o], noise [1 + K·(η>0), B, T_p, D_a] -> chunk [B, T_p, D_a].

    All normalised, on the denoiser's device. The timesteps' FiLM is computed here, once a budget.
    """

    name = "eager"

    def __init__(
        self, denoiser: Denoiser, steps: Sequence[Step], prediction: str, clip: float | None
    ):
        self.denoiser, self.steps, self.prediction, self.clip = denoiser, steps, prediction, clip
        device = next(denoiser.parameters()).device
        with torch.inference_mode():
            times = torch.tensor([step.t for step in steps], device=device)
            self.time_films = denoiser.time_film(times)

    @torch.inference_mode()
    def __call__(self, observation: Tensor, noise: Tensor) -> Tensor:
        film = self.denoiser.observation_film(observation)
        return ddim_sample(
            lambda x, k: self.denoiser.denoise(x, film + self.time_films[k]),
            noise,
            self.steps,
            self.prediction,
            self.clip,
        )
