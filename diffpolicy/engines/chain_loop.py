"""The whole K-step loop as one PyTorch module, which engines run, compile or capture."""

import copy
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn

from diffpolicy.denoisers import Denoiser
from diffpolicy.denoisers.convolution import lay_out
from diffpolicy.device import float32_products
from diffpolicy.engines.job import Job
from diffpolicy.sampling.chain import Chain
from diffpolicy.sampling.steps import Denoise, Row, sample, states


class ChainLoop(nn.Module):
    """observation [B, C], noise [noise_count, B, T_p, D_a] -> chunk [B, T_p, D_a].

    The timesteps' FiLM is computed here, the observation's once a loop, the coefficients with the
    chain. `dtype` is the network's; the sample and its moves stay in the noise's. `denoise` is the
    network's call at each step.
    """

    time_films: Tensor

    def __init__(self, denoiser: Denoiser, chain: Chain, dtype: torch.dtype = torch.float32):
        super().__init__()
        self.rows, self.dtype = chain.rows, dtype
        whole = denoiser.dtype == dtype
        without = {id(getattr(denoiser, "encoder", None)): None}  # the encoder is not copied
        self.denoiser = denoiser if whole else copy.deepcopy(denoiser, without).to(dtype)
        if denoiser.device.type == "cuda":
            lay_out(self.denoiser)
        self.denoise = self.denoiser.denoise
        widest = self.denoiser if dtype == torch.float64 else denoiser
        with torch.no_grad(), float32_products(denoiser.device):
            films = widest.time_film(torch.tensor([r.t for r in self.rows], device=denoiser.device))
        self.register_buffer("time_films", films.to(dtype), persistent=False)

    def forward(self, observation: Tensor, noise: Tensor) -> Tensor:
        """The chunk [B, T_p, D_a], normalised."""
        return sample(self.given(observation), noise, self.rows)

    def states(self, observation: Tensor, noise: Tensor) -> list[tuple[Tensor, Tensor]]:
        """(x, x̂0) after every step, each [B, T_p, D_a]."""
        return list(states(self.given(observation), noise, self.rows))

    def given(self, observation: Tensor) -> Denoise:
        """The denoiser of one observation, its FiLM computed."""
        film = self.denoiser.observation_film(observation.to(self.dtype))

        def denoise(x: Tensor, k: int) -> Tensor:
            output = self.denoise(x.to(self.dtype), film + self.time_films[k])
            return output.to(x.dtype)

        return denoise


def timed_denoiser(job: Job) -> Callable[[Tensor], Denoise]:
    """observation [B, C] -> the denoiser (x, t) -> y at any timestep t, on the job's device."""
    rows = [Row(t, 0.0, 0.0) for t in range(job.chain.grid[0][0] + 1)]  # cuts lead down only
    loop = ChainLoop(job.denoiser, replace(job.chain, rows=rows), job.dtype)
    device = job.denoiser.device
    return lambda observation: loop.given(observation.to(device))
