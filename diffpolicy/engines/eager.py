"""The reference engine: plain PyTorch."""

import torch
from torch import Tensor

from diffpolicy.device import float32_products
from diffpolicy.engines.chain_loop import ChainLoop
from diffpolicy.engines.job import Job


class EagerEngine:
    """The loop in PyTorch, for any batch, on the denoiser's device."""

    name = "eager"

    def __init__(self, job: Job):
        self.loop = ChainLoop(job.denoiser, job.chain, job.dtype)
        self.device = job.denoiser.device

    @torch.inference_mode()
    def __call__(self, observation: Tensor, noise: Tensor) -> Tensor:
        """See `Engine`."""
        with float32_products(self.device):
            return self.loop(observation.to(self.device), noise.to(self.device)).cpu()

    @torch.inference_mode()
    def states(self, observation: Tensor, noise: Tensor) -> list[tuple[Tensor, Tensor]]:
        """(x, x̂0) after every row of the table, each [B, T_p, D_a] on the CPU."""
        with float32_products(self.device):
            states = self.loop.states(observation.to(self.device), noise.to(self.device))
        return [(x.cpu(), x0.cpu()) for x, x0 in states]
