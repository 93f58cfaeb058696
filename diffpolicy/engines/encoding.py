"""Encoder stage of the engines: {key: [B, T_o, …]} on the CPU to the encoded observation [B, C].

Vectors are normalised float32, pictures uint8, which is how they reach the denoiser's device; the
result is float32 and stays there, where the loop of the same engine takes it.
"""

import copy
import threading
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from diffpolicy.device import float32_products
from diffpolicy.engines.cuda_graph import capture, replay_ms
from diffpolicy.engines.job import Job
from diffpolicy.engines.onnx_graph import check_installed, export, open_session

Histories = Mapping[str, Tensor]


class Positional(nn.Module):
    """The encoder with one argument for each key, in the order of the job, and its precision."""

    def __init__(self, job: Job):
        super().__init__()
        encoder = job.denoiser.encoder
        same = job.denoiser.dtype == job.dtype
        self.encoder = encoder if same else copy.deepcopy(encoder).to(job.dtype)
        self.keys, self.dtype = tuple(job.no_observation()), job.result_dtype

    def forward(self, *histories: Tensor) -> Tensor:
        """[B, T_o, …] for each key -> [B, C]."""
        return self.encoder(dict(zip(self.keys, histories, strict=True))).to(self.dtype)


class Join:
    """Vectors one after the other, on the CPU: without pictures the encoder has no weights."""

    name, portable = None, True

    def __init__(self, job: Job):
        self.encoder = job.denoiser.encoder

    def __call__(self, observation: Histories) -> Tensor:
        """See `Encode`."""
        return self.encoder(observation)


class EagerEncoder:
    """PyTorch, for any batch; the reference."""

    name = "eager"

    def __init__(self, job: Job):
        self.encoder, self.device = Positional(job), job.denoiser.device

    @torch.inference_mode()
    def __call__(self, observation: Histories) -> Tensor:
        """See `Encode`."""
        with float32_products(self.device):
            histories = (observation[key].to(self.device) for key in self.encoder.keys)
            return self.encoder(*histories)


class CompiledEncoder:
    """The encoder under torch.compile."""

    name = "compiled"

    def __init__(self, job: Job):
        self.keys, self.device = tuple(job.no_observation()), job.denoiser.device
        self.compiled = torch.compile(Positional(job), fullgraph=True, dynamic=False)
        with torch._dynamo.config.patch(recompile_limit=10_000):
            self(job.no_observation())

    @torch.inference_mode()
    def __call__(self, observation: Histories) -> Tensor:
        """See `Encode`."""
        with float32_products(self.device):
            return self.compiled(*(observation[key].to(self.device) for key in self.keys))


def exported_encoder(job: Job) -> tuple[Any, dict[str, str]]:
    """The ONNX model of the encoder, with the output `encoded`, and its input's name by key."""
    histories = job.no_observation()
    names = [f"observation_{i}" for i in range(len(histories))]
    with torch.inference_mode():
        model = export(Positional(job), (*histories.values(),), names, "encoded")
    return model, dict(zip(histories, names, strict=True))


class OnnxEncoder:
    """The encoder in ONNX Runtime, with uint8 inputs."""

    name = "onnx"
    portable = True  # to another process

    def __init__(self, job: Job):
        check_installed()
        model, names = exported_encoder(job)
        self.__setstate__(
            {"model": model.SerializeToString(), "threads": job.threads, "names": names}
        )

    def __getstate__(self) -> dict[str, Any]:
        """The exported model, so that another process does not export again."""
        return self._state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._state, self._names = state, state["names"]
        self._session = open_session(state["model"], state["threads"])

    def __call__(self, observation: Histories) -> Tensor:
        """See `Encode`."""
        inputs = {name: observation[key].numpy() for key, name in self._names.items()}
        [encoded] = self._session.run(["encoded"], inputs)
        return torch.from_numpy(encoded)


class CudaGraphEncoder:
    """The encoder captured once as a CUDA graph, the copy of pinned inputs included.

    The result is on the device and not waited for.
    """

    name = "cuda-graph"

    def __init__(self, job: Job):
        encoder = Positional(job)
        self.inputs = {key: zeros.pin_memory() for key, zeros in job.no_observation().items()}
        on_device = {key: pinned.cuda() for key, pinned in self.inputs.items()}
        self.encoded = torch.zeros(job.observation_shape, device="cuda")
        self._kept = encoder, on_device  # the graph refers to them by address only
        self._lock = threading.Lock()

        def whole() -> None:
            for key, pinned in self.inputs.items():
                on_device[key].copy_(pinned, non_blocking=True)
            self.encoded.copy_(encoder(*on_device.values()))

        with float32_products(job.denoiser.device, tf32=job.precision == "tf32"):
            self.graph = capture(whole)
        self.done = torch.cuda.Event()

    @torch.inference_mode()
    def __call__(self, observation: Histories) -> Tensor:
        """See `Encode`."""
        with self._lock:  # one set of inputs, one output
            self.done.synchronize()  # with the last call, which may still read the inputs
            for key, pinned in self.inputs.items():
                pinned.copy_(observation[key])
            self.graph.replay()
            self.done.record()
            return self.encoded.clone()

    def gpu_ms(self) -> float:
        """Median time of the GPU alone for an observation, copies included, in ms."""
        return replay_ms(self.graph)
