"""torch.compile over the whole unrolled loop. Building takes minutes where there are many steps."""

import torch
from torch import Tensor

from diffpolicy.device import float32_products
from diffpolicy.engines.chain_loop import ChainLoop
from diffpolicy.engines.job import Job
from diffpolicy.errors import EngineUnavailable


class CompiledEngine:
    """The loop compiled for one batch, on the denoiser's device."""

    name = "compiled"

    def __init__(self, job: Job):
        if job.precision == "tf32":
            raise EngineUnavailable("tf32 is for the cuda-graph engine")
        self.device = job.denoiser.device
        self.loop = ChainLoop(job.denoiser, job.chain, job.dtype)
        self.compiled = torch.compile(self.loop, fullgraph=True, dynamic=False)
        try:
            # Every budget is a graph of its own over the same code.
            with torch._dynamo.config.patch(recompile_limit=10_000):
                self(torch.zeros(job.observation_shape), torch.zeros(job.noise_shape))
        except Exception as error:  # the compiler fails in many ways; the reason is its message
            reason = str(error).strip().splitlines() or [type(error).__name__]
            raise EngineUnavailable(f"torch.compile does not work here: {reason[0]}") from error

    @torch.inference_mode()
    def __call__(self, observation: Tensor, noise: Tensor) -> Tensor:
        with float32_products(self.device):
            return self.compiled(observation.to(self.device), noise.to(self.device)).cpu()
