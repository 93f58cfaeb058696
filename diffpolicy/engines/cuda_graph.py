"""The whole loop captured once as a CUDA graph: one launch for all K steps, copies included."""

import threading

import numpy as np
import torch
from torch import Tensor

from diffpolicy.device import float32_products
from diffpolicy.engines.chain_loop import ChainLoop
from diffpolicy.engines.job import Job

WARMUP, TIMED = 3, 100


class CudaGraphEngine:
    """A captured loop with pinned inputs and output at fixed addresses, for one batch.

    Under the precision "tf32" matrix products use TensorFloat-32 while the graph is captured.
    """

    name = "cuda-graph"

    def __init__(self, job: Job, loop: ChainLoop | None = None):
        loop = loop or ChainLoop(job.denoiser, job.chain, job.dtype)
        self.observation = torch.zeros(job.observation_shape)  # encoded pictures are on the device
        self.observation = (
            self.observation.cuda() if job.pictures else self.observation.pin_memory()
        )
        self.noise = torch.zeros(job.noise_shape, pin_memory=True)
        self.chunk = torch.zeros(job.noise_shape[1:], pin_memory=True)
        observation, noise = (x.cuda() for x in (self.observation, self.noise))
        self._kept = loop, observation, noise  # the graph refers to them by address only
        self._lock = threading.Lock()

        def whole() -> None:
            observation.copy_(self.observation, non_blocking=True)
            noise.copy_(self.noise, non_blocking=True)
            self.chunk.copy_(loop(observation, noise), non_blocking=True)

        with float32_products(job.denoiser.device, tf32=job.precision == "tf32"):
            self.graph = capture(whole)
        self.done = torch.cuda.Event()

    @torch.inference_mode()
    def __call__(self, observation: Tensor, noise: Tensor) -> Tensor:
        """See `Engine`."""
        with self._lock:  # one set of inputs, one output
            self.observation.copy_(observation, non_blocking=self.observation.is_cuda)
            self.noise.copy_(noise)
            self.graph.replay()
            self.done.record()
            self.done.synchronize()
            return self.chunk.clone()

    def gpu_ms(self) -> float:
        """Median time of the GPU alone for a chunk, copies included, in ms."""
        return replay_ms(self.graph)


@torch.inference_mode()
def capture(whole) -> torch.cuda.CUDAGraph:
    """Warm up on a side stream, as capturing requires, then capture."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(WARMUP):
            whole()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        whole()
    return graph


def replay_ms(graph: torch.cuda.CUDAGraph) -> float:
    """Median time of the GPU alone for a replay, in ms."""
    samples = []
    for _ in range(TIMED):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        graph.replay()
        end.record()
        end.synchronize()
        samples.append(begin.elapsed_time(end))
    return float(np.median(samples))
