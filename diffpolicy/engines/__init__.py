"""Engines: the whole K-step loop, observation to action chunk, made fast for one denoiser.

Every engine is built from a Job, is called alike, and gives what the eager one gives.
"""

from importlib import import_module
from typing import Protocol

from torch import Tensor

from diffpolicy.engines.job import Job
from diffpolicy.errors import DiffpolicyError

HOMES = {
    "eager": "eager:EagerEngine",
    "compiled": "compiled:CompiledEngine",
    "native": "native:NativeEngine",
    "onnx": "onnx_graph:OnnxEngine",
    "cuda-graph": "cuda_graph:CudaGraphEngine",
}


class Engine(Protocol):
    """See Job for the shapes."""

    name: str

    def __call__(self, observation: Tensor, noise: Tensor) -> Tensor: ...


def build_engine(name: str, job: Job) -> Engine:
    """The engine of that name; DiffpolicyError says why it cannot be built here."""
    if name not in HOMES:
        raise DiffpolicyError(
            f"there is no engine {name!r}; choose one of: auto, {', '.join(HOMES)}"
        )
    module, _, attribute = HOMES[name].partition(":")
    try:
        return getattr(import_module(f"{__name__}.{module}"), attribute)(job)
    except DiffpolicyError:
        raise
    except Exception as error:  # compilers, exporters and drivers fail in many ways
        reason = (str(error).strip().splitlines() or [""])[0]
        raise DiffpolicyError(
            f"the {name} engine cannot be built here: {type(error).__name__}: {reason}"
        ) from error
