"""The reference engine: plain PyTorch, with everything that can be hoisted done once."""

import torch
from torch import Tensor

from diffpolicy.chain import Chain
from diffpolicy.denoisers import Denoiser
from diffpolicy.sampler import Denoise, ddim_sample, ddim_states


class EagerEngine:
    """observation [B, T_o, D_o], noise [1 + K·(η>0), B, T_p, D_a] -> chunk [B, T_p, D_a].

    All normalised, on the denoiser's device. The timesteps' FiLM is computed here, once a budget.
    """

    name = "eager"

    def __init__(self, denoiser: Denoiser, chain: Chain):
        self.denoiser, self.chain = denoiser, chain
        device = next(denoiser.parameters()).device
        with torch.inference_mode():
            times = torch.tensor([step.t for step in chain.steps], device=device)
            self.time_films = denoiser.time_film(times)

    @torch.inference_mode()
    def __call__(self, observation: Tensor, noise: Tensor) -> Tensor:
        return ddim_sample(self._given(observation), noise, self.chain.steps, self.chain.reading)

    @torch.inference_mode()
    def states(self, observation: Tensor, noise: Tensor) -> list[tuple[Tensor, Tensor]]:
        """(x_s, x̂0) after every step, each [B, T_p, D_a]."""
        denoise = self._given(observation)
        return list(ddim_states(denoise, noise, self.chain.steps, self.chain.reading))

    def _given(self, observation: Tensor) -> Denoise:
        film = self.denoiser.observation_film(observation)
        return lambda x, k: self.denoiser.denoise(x, film + self.time_films[k])
