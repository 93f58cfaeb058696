"""torch.compile of the whole unrolled loop; on CUDA of one evaluation, in a captured loop.

Building takes minutes for many steps on the CPU, and half a minute for a UNet on CUDA.
"""

import torch
from torch import Tensor

from diffpolicy.device import float32_products
from diffpolicy.engines import Engine
from diffpolicy.engines.chain_loop import ChainLoop
from diffpolicy.engines.cuda_graph import CudaGraphEngine
from diffpolicy.engines.job import Job


def compiled_engine(job: Job) -> Engine:
    """The engine for the denoiser's device."""
    on_gpu = job.denoiser.device.type == "cuda"
    with torch._dynamo.config.patch(recompile_limit=10_000):  # each budget is a graph of its own
        return CompiledGraphEngine(job) if on_gpu else CompiledEngine(job)


class CompiledEngine:
    """The loop compiled for one batch, on the denoiser's device."""

    name = "compiled"

    def __init__(self, job: Job):
        self.device = job.denoiser.device
        self.loop = ChainLoop(job.denoiser, job.chain, job.dtype)
        self.compiled = torch.compile(self.loop, fullgraph=True, dynamic=False)
        self(torch.zeros(job.observation_shape), torch.zeros(job.noise_shape))

    @torch.inference_mode()
    def __call__(self, observation: Tensor, noise: Tensor) -> Tensor:
        """See `Engine`."""
        with float32_products(self.device):
            return self.compiled(observation.to(self.device), noise.to(self.device)).cpu()


class CompiledGraphEngine(CudaGraphEngine):
    """A captured loop whose network is compiled."""

    name = "compiled"

    def __init__(self, job: Job):
        loop = ChainLoop(job.denoiser, job.chain, job.dtype)
        loop.denoise = torch.compile(loop.denoise, fullgraph=True, dynamic=False)
        super().__init__(job, loop)
