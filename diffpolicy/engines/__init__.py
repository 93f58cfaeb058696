"""Engines: the whole K-step loop, observation to action chunk, made fast for one denoiser.

Every engine is built from a Job, runs the same step table, and gives the actions of the eager one
(float32: within 1e-4). Pictures are encoded before, in a stage of their own (`encoding.py`). Tables
express linear samplers; `sampling/wrappers.py` holds the changes that are not linear, which PyTorch
loops alone can make, so no engine offers them.

To add an engine, write a class like EagerEngine in a new file here, add a line to ENGINES, and add
its name to `EngineName` in eval/world_config.py. Importing this module does not import torch.
"""

from collections.abc import Mapping
from importlib import import_module
from math import inf
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from diffpolicy.errors import DiffpolicyError, EngineUnavailable

if TYPE_CHECKING:
    from torch import Tensor

    from diffpolicy.engines.job import Job


class Home(NamedTuple):
    """The classes of an engine ("module:class" in this package), and how `auto` tries it.

    loop, encoder: its two stages. devices, precisions: those that it supports. threads,
    encoder_threads: the numbers of threads to try, None for all. largest_batch: `auto` does not try
    it for larger ones, for the reason `untried`.
    """

    loop: str
    devices: tuple[str, ...] = ("cpu", "cuda")
    precisions: tuple[str, ...] = ("float32", "bfloat16", "float64")
    threads: tuple[int | None, ...] = (None,)
    encoder: str = "encoding:EagerEncoder"
    encoder_threads: tuple[int | None, ...] = (None,)
    largest_batch: float = inf
    untried: str = ""


ENGINES = {
    "eager": Home("eager:EagerEngine"),
    "compiled": Home(
        "compiled:compiled_engine",
        encoder="encoding:CompiledEncoder",
        largest_batch=0,
        untried="minutes to build",
    ),
    "native": Home(
        "native:NativeEngine",
        ("cpu",),
        ("float32",),
        (1, None),
        largest_batch=4,
        untried="for batches up to 4",
    ),
    "onnx": Home(
        "onnx_graph:OnnxEngine",
        ("cpu",),
        ("float32",),
        (1,),
        encoder="encoding:OnnxEncoder",
        encoder_threads=(1, None),
    ),
    "cuda-graph": Home(
        "cuda_graph:CudaGraphEngine",
        ("cuda",),
        ("float32", "tf32", "bfloat16"),
        encoder="encoding:CudaGraphEncoder",
    ),
}


VECTORS = "encoding:Join"


class Engine(Protocol):
    """A callable for one batch size; Job has the shapes."""

    name: str

    def __call__(self, observation: "Tensor", noise: "Tensor") -> "Tensor":
        """observation [B, C], noise [noise_count, B, T_p, D_a] -> chunk [B, T_p, D_a]."""
        ...


class Encode(Protocol):
    """The stage before an engine, for the same batch; name: None if it has no weights."""

    name: str | None

    def __call__(self, observation: Mapping[str, "Tensor"]) -> "Tensor":
        """{key: [B, T_o, …]} -> observation [B, C], on the CPU or the denoiser's device."""
        ...


def build_engine(name: str, job: "Job") -> Engine:
    """The engine of that name.

    Raises DiffpolicyError for an unknown name, EngineUnavailable if it cannot be built here.
    """
    return _build(name, job, _home(name).loop)


def build_encoder(name: str, job: "Job") -> Encode:
    """The encoder of that engine, or of vectors alone. Errors as in `build_engine`."""
    return _build(name, job, _home(name).encoder if job.pictures else VECTORS)


def _home(name: str) -> Home:
    if name not in ENGINES:
        raise DiffpolicyError(
            f"{name!r} is not an engine; expected one of: auto, {', '.join(ENGINES)}"
        )
    return ENGINES[name]


def _build(name: str, job: "Job", reference: str) -> Any:
    """The instance of a class, built for the job."""
    home, device = ENGINES[name], job.denoiser.device.type
    if device not in home.devices or job.precision not in home.precisions:
        raise EngineUnavailable(
            f"the {name} engine computes in {', '.join(home.precisions)} on "
            f"{' and '.join(home.devices)}; got {job.precision} on {device}"
        )
    module, _, attribute = reference.partition(":")
    try:
        return getattr(import_module(f"{__name__}.{module}"), attribute)(job)
    except DiffpolicyError:
        raise
    except Exception as error:  # compilers, exporters and drivers fail in many ways
        reason = (str(error).strip().splitlines() or [""])[0]
        raise EngineUnavailable(
            f"the {name} engine cannot be built here: {type(error).__name__}: {reason}"
        ) from error
