"""CUDA graph of the forward and backward pass of a training step.

A step of a small network is hundreds of kernels of a few microseconds, and each takes as long to
launch. A graph launches them at once, with the results of eager (PyTorch's notes on CUDA graphs,
whole-network capture). Outside of it batches are drawn, and the optimiser takes its step.
"""

from dataclasses import replace

import torch
from torch import Tensor

from diffpolicy.training.learner import Drawn, Learner

GRAPH = "graph"
WARM_UP = 3  # passes before the capture, as PyTorch's notes ask for


class PassGraph:
    """`Learner.gradients` for batches of one shape, without pictures.

    The passes of each precision, compiled or not, are captured at the first call.
    """

    def __init__(self, learner: Learner):
        self.learner = learner
        self.captured: dict[tuple[str, bool], _Captured] = {}

    def __call__(self, drawn: Drawn) -> Tensor:
        """The loss of a batch; its gradients replace those of the parameters."""
        if self._way not in self.captured:
            self.captured[self._way] = _Captured(self.learner, drawn)
        return self.captured[self._way](drawn)

    def release_others(self) -> None:
        """Free the memory of all graphs but that of the learner's present way."""
        self.captured = {way: g for way, g in self.captured.items() if way == self._way}

    @property
    def _way(self) -> tuple[str, bool]:
        return self.learner.precision, self.learner.compiled


class _Captured:
    """The passes in one way; the gradients of all calls are the same tensors."""

    def __init__(self, learner: Learner, drawn: Drawn):
        self.parameters, self.drawn = learner.parameters, _copied(drawn)
        stream, current = torch.cuda.Stream(), torch.cuda.current_stream()
        stream.wait_stream(current)
        with torch.cuda.stream(stream):
            for _ in range(WARM_UP):
                learner.gradients(self.drawn)
        current.wait_stream(stream)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.loss = learner.gradients(self.drawn)
        self.gradients = [parameter.grad for parameter in self.parameters]

    def __call__(self, drawn: Drawn) -> Tensor:
        for kept, new in zip(_tensors(self.drawn), _tensors(drawn), strict=True):
            kept.copy_(new)
        self.graph.replay()
        for parameter, gradient in zip(self.parameters, self.gradients, strict=True):
            parameter.grad = gradient
        return self.loss.clone()


def _copied(drawn: Drawn) -> Drawn:
    x_t, t, observations = drawn.inputs
    seen = {key: x.clone() for key, x in observations.items()}
    counted = drawn.counted and (drawn.counted[0].clone(), drawn.counted[1].clone())
    inputs = x_t.clone(), t.clone(), seen
    return replace(drawn, inputs=inputs, target=drawn.target.clone(), counted=counted)


def _tensors(drawn: Drawn) -> list[Tensor]:
    x_t, t, observations = drawn.inputs
    return [x_t, t, *observations.values(), drawn.target, *(drawn.counted or ())]
