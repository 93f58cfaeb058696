"""The whole K-step loop as one PyTorch module: what the engines run, compile or capture."""

import copy

import torch
from torch import Tensor, nn

from diffpolicy.denoisers import Denoiser
from diffpolicy.device import float32_products
from diffpolicy.sampling.chain import Chain
from diffpolicy.sampling.ddim import Denoise, ddim_sample, ddim_states


class ChainLoop(nn.Module):
    """observation [B, T_o, D_o], noise [1 + K·(η>0), B, T_p, D_a] -> chunk [B, T_p, D_a].

    What does not depend on the sample is done once: the timesteps' FiLM here, the observation's at
    the start of the loop, the coefficients in the chain. `dtype` is the network's; the sample and
    eq. 12 stay in the noise's.
    """

    time_films: Tensor

    def __init__(self, denoiser: Denoiser, chain: Chain, dtype: torch.dtype = torch.float32):
        super().__init__()
        self.chain, self.dtype = chain, dtype
        whole = denoiser.dtype == dtype
        self.denoiser = denoiser if whole else copy.deepcopy(denoiser).to(dtype)
        widest = self.denoiser if dtype == torch.float64 else denoiser
        with torch.no_grad(), float32_products(denoiser.device):
            times = torch.tensor([step.t for step in chain.steps], device=denoiser.device)
            films = widest.time_film(times)
        self.register_buffer("time_films", films.to(dtype), persistent=False)

    def forward(self, observation: Tensor, noise: Tensor) -> Tensor:
        return ddim_sample(self.given(observation), noise, self.chain.steps, self.chain.reading)

    def states(self, observation: Tensor, noise: Tensor) -> list[tuple[Tensor, Tensor]]:
        """(x_s, x̂0) after every step, each [B, T_p, D_a]."""
        denoise = self.given(observation)
        return list(ddim_states(denoise, noise, self.chain.steps, self.chain.reading))

    def given(self, observation: Tensor) -> Denoise:
        """The denoiser of one observation, its FiLM computed."""
        film = self.denoiser.observation_film(observation.to(self.dtype))

        def denoise(x: Tensor, k: int) -> Tensor:
            output = self.denoiser.denoise(x.to(self.dtype), film + self.time_films[k])
            return output.to(x.dtype)

        return denoise
