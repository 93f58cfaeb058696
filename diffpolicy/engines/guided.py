"""The loop with guidance, on the eager engine alone: it needs gradients through the network."""

import torch
from torch import Tensor

from diffpolicy.device import float32_products
from diffpolicy.engines.chain_loop import ChainLoop
from diffpolicy.engines.job import Job
from diffpolicy.sampling.guidance import guided
from diffpolicy.sampling.steps import sample


class GuidedEngine:
    """The loop in PyTorch, each evaluation guided; weights [K, D_a] as in `guidance.guided`."""

    name = "eager"

    def __init__(self, job: Job, weights: Tensor):
        self.loop = ChainLoop(job.denoiser, job.chain, job.dtype)
        self.device = job.denoiser.device
        self.weights = weights.to(self.device)

    def __call__(self, observation: Tensor, noise: Tensor, mask: Tensor, planned: Tensor) -> Tensor:
        """The chunk [B, T_p, D_a], drawn to planned [B, T_p, D_a] with the mask [B, T_p]."""
        inputs = (t.to(self.device).clone() for t in (observation, noise, mask, planned))
        observation, noise, mask, planned = inputs  # clones: inference tensors have no gradient
        with torch.no_grad(), float32_products(self.device):
            network = self.loop.given(observation)
            rows = self.loop.rows
            return sample(guided(network, rows, self.weights, mask, planned), noise, rows).cpu()
