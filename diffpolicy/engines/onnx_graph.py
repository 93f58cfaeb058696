"""The whole chain as one ONNX graph, run by ONNX Runtime (the extra `onnx`).

PyTorch exports the network's two parts; the loop around them is written here, node by node, so that
exporting takes the same time for every budget. Weights are shared by all K copies of the network.
"""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, reduce
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from diffpolicy.checkpoint import weights_fingerprint
from diffpolicy.denoisers import Denoiser
from diffpolicy.engines.job import Job
from diffpolicy.errors import EngineUnavailable
from diffpolicy.sampling.chain import Chain

TYPES = {"i": np.int64, "b": np.bool_}  # of constants, by kind; others are float32


class _Part(nn.Module):
    """One method of a denoiser as a module for the exporter."""

    def __init__(self, denoiser: Denoiser, method: str):
        super().__init__()
        self.denoiser, self.method = denoiser, method

    def forward(self, *inputs: Tensor) -> Tensor:
        return getattr(self.denoiser, self.method)(*inputs)


class Graph:
    """An ONNX graph under construction."""

    def __init__(self):
        from onnx import helper, numpy_helper

        self.helper, self.numpy_helper = helper, numpy_helper
        self.nodes: list[Any] = []
        self.constants: dict[str, Any] = {}
        self.count = 0
        self.versions: dict[str, Any] = {}  # of the operators, as the inserted graphs have them

    def node(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """Append one operation; the name of its result."""
        self.count += 1
        name = f"{kind.lower()}_{self.count}"
        self.nodes.append(self.helper.make_node(kind, inputs, [name], **attributes))
        return name

    def constant(self, values: Any) -> str:
        """A float32, int64 or bool tensor; equal scalars are kept once."""
        array = np.asarray(values)
        array = array.astype(TYPES.get(array.dtype.kind, np.float32))
        name = f"c_{array.tolist()!r}" if array.size == 1 else f"table_{len(self.constants)}"
        self.constants[name] = self.numpy_helper.from_array(array, name)
        return name

    def insert(self, model: Any, **inputs: str) -> str:
        """Append another graph's nodes with bound inputs; the name of their result."""
        self.count += 1
        self.versions = {"opset_imports": model.opset_import, "ir_version": model.ir_version}
        prefix = f"part_{self.count}/"
        for initializer in model.graph.initializer:
            self.constants[initializer.name] = initializer
        kept = {i.name for i in model.graph.initializer} | {""}

        def renamed(name: str) -> str:
            return inputs.get(name) or (name if name in kept else prefix + name)

        for original in model.graph.node:
            node = type(original)()
            node.CopyFrom(original)
            node.name = prefix + original.name
            node.input[:] = [renamed(name) for name in original.input]
            node.output[:] = [renamed(name) for name in original.output]
            self.nodes.append(node)
        return renamed(model.graph.output[0].name)

    def model(
        self, inputs: Mapping[str, tuple[Any, Sequence[int]]], name: str, result: str, shape: Any
    ) -> Any:
        """The checked ONNX model; inputs: {name: (dtype, shape)}; its float32 output by name."""
        from onnx import checker

        def value(name: str, dtype: Any, shape: Sequence[int]) -> Any:
            kind = self.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
            return self.helper.make_tensor_value_info(name, kind, list(shape))

        self.nodes.append(self.helper.make_node("Identity", [result], [name]))
        given = [value(name, *facts) for name, facts in inputs.items()]
        outputs, constants = [value(name, np.float32, shape)], list(self.constants.values())
        graph = self.helper.make_graph(self.nodes, name, given, outputs, constants)
        model = self.helper.make_model(graph, **self.versions)
        checker.check_model(model)
        return model


def whole_chain(denoiser: Denoiser, chain: Chain, observation: Tensor, noise: Tensor) -> Any:
    """The ONNX model: observation [B, C], noise [noise_count, B, T_p, D_a] -> chunk."""
    g = Graph()
    chunk = add_chain(g, denoiser, chain, observation, noise)
    inputs = {"observation": (np.float32, observation.shape), "noise": (np.float32, noise.shape)}
    return g.model(inputs, "chunk", chunk, noise.shape[1:])


def add_chain(
    g: Graph,
    denoiser: Denoiser,
    chain: Chain,
    observation: Tensor,
    noise: Tensor,
    names: tuple[str, str] = ("observation", "noise"),
) -> str:
    """Append the chain to a graph; the name of the chunk [B, T_p, D_a].

    observation [B, C], noise [noise_count, B, T_p, D_a]: examples; names: of theirs in the graph.
    """
    with torch.inference_mode():
        film = denoiser.observation_film(observation)
        films = denoiser.time_film(torch.tensor([row.t for row in chain.rows]))
    network = f"{denoiser} {weights_fingerprint(denoiser.state_dict())}"
    shapes = observation.shape, noise[0].shape
    observe, denoise = _exported(_Examples(network, shapes, denoiser, observation, noise[0], film))
    given = g.insert(observe, observation=names[0])
    x = previous = earlier = g.node("Gather", names[1], g.constant(0), axis=0)
    for k, row in enumerate(chain.rows):
        y = g.insert(denoise, x=x, film=g.node("Add", given, g.constant(films[k : k + 1].numpy())))
        x0 = _sum(g, (row.read_x, x), (row.read_y, y))
        x0 = g.node("Div", x0, g.constant(row.read_divisor))
        x0 = g.node("Clip", x0, g.constant(-row.clip), g.constant(row.clip))
        z = g.node("Gather", names[1], g.constant(k + 1 if row.z else 0), axis=0)
        before = (row.previous, previous), (row.earlier, earlier)
        x = _sum(g, (row.x, x), (row.y, y), (row.x0, x0), *before, (row.z, z))
        previous, earlier = x0, previous
    return x


@dataclass(frozen=True)
class _Examples:
    """A network with examples of its inputs; those of one network and equal shapes are equal."""

    network: str  # a digest of layers and weights
    shapes: tuple[torch.Size, torch.Size]
    denoiser: Denoiser = field(compare=False)
    observation: Tensor = field(compare=False)
    x: Tensor = field(compare=False)
    film: Tensor = field(compare=False)


@lru_cache(maxsize=2)
def _exported(of: _Examples) -> tuple[Any, Any]:
    """The observation's FiLM and the denoiser; kept, as all budgets of a run have the same."""
    observe = export(
        _Part(of.denoiser, "observation_film"), (of.observation,), ["observation"], "observed"
    )
    denoise = export(_Part(of.denoiser, "denoise"), (of.x, of.film), ["x", "film"], "output")
    rename_constants(observe, "observe/")
    rename_constants(denoise, "denoise/")
    return observe, denoise


def _sum(g: Graph, *terms: tuple[float, str]) -> str:
    """Σ c v as nodes, without the terms that are zero."""
    return reduce(
        lambda a, b: g.node("Add", a, b), [g.node("Mul", g.constant(c), v) for c, v in terms if c]
    )


def export(module: nn.Module, arguments: tuple, names: list[str], output: str) -> Any:
    """The ONNX model of a module, by PyTorch's exporter."""
    with _quiet():
        found = torch.onnx.export(
            module.eval(),
            arguments,
            dynamo=True,
            input_names=names,
            output_names=[output],
            verbose=False,
        )
    assert found is not None
    return found.model_proto


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporter's progress and its notes on torchvision; errors are still raised."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def rename_constants(model: Any, prefix: str) -> None:
    """Prefix the constants of a graph, so that two graphs do not share names."""
    names = {i.name: prefix + i.name for i in model.graph.initializer}
    for initializer in model.graph.initializer:
        initializer.name = names[initializer.name]
    for node in model.graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]


def check_installed() -> None:
    """EngineUnavailable without ONNX Runtime."""
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
    except ImportError as error:
        absent = error.name or error
        raise EngineUnavailable(
            f"ONNX graphs need {absent}; install it with pip install 'diffpolicy[onnx]'"
        ) from error


def open_session(model: bytes, threads: int) -> Any:
    """A session of ONNX Runtime.

    Waiting threads do not spin, because spinning slows down other processes.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


class OnnxEngine:
    """The graph in ONNX Runtime, for one batch."""

    name = "onnx"
    portable = True  # to another process

    def __init__(self, job: Job):
        check_installed()
        model = whole_chain(
            job.denoiser,
            job.chain,
            torch.zeros(job.observation_shape),
            torch.zeros(job.noise_shape),
        )
        self.__setstate__({"model": model.SerializeToString(), "threads": job.threads})

    def __getstate__(self) -> dict[str, Any]:
        """The exported model, so that another process does not export again."""
        return {"model": self._model, "threads": self._threads}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._model, self._threads = state["model"], state["threads"]
        self._session = open_session(self._model, self._threads)

    def __call__(self, observation: Tensor, noise: Tensor) -> Tensor:
        """Encoded observation [B, C] and noise -> chunk [B, T_p, D_a]."""
        inputs = {"observation": observation.numpy(), "noise": noise.numpy()}
        [chunk] = self._session.run(["chunk"], inputs)
        return torch.from_numpy(chunk)
