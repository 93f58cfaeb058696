"""Learners of several seeds on one device, whose steps are taken at once.

Their weights are stacked, and one batched product takes the place of a small one for each seed
(torch.func.vmap). Batches, loss, AdamW and EMA of each are those of its own training, which it
equals but for float noise. Shapes: S seeds, B batch.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from diffpolicy.data.windows import Windows
from diffpolicy.training.learner import ADAM, Drawn, Learner, ema_decay, learning_rate
from diffpolicy.training.precision import BFLOAT16

OPTIONS = ("lr", "betas", "eps", "weight_decay", "fused")


class Together:
    """Learners at one step, with one network but for its weights, and without pictures.

    The weights, EMA and moments of every learner become views of the stacked ones, so that it is
    saved and validated as ever; its own `learn` is not to be used any more.
    """

    def __init__(self, learners: Sequence[Learner]):
        self.learners, first = learners, learners[0]
        self.step = first.step
        parameters = zip(*(learner.parameters for learner in learners), strict=True)
        self.weights = [nn.Parameter(_stacked(each)) for each in parameters]
        self.ema = [
            _stacked(each) for each in zip(*(x.ema.values() for x in learners), strict=True)
        ]
        self.optimizer = torch.optim.AdamW(
            self.weights, **{name: first.optimizer.defaults[name] for name in OPTIONS}
        )
        self._take_moments()
        for number, learner in enumerate(learners):
            for parameter, stacked in zip(learner.parameters, self.weights, strict=True):
                parameter.data = stacked.data[number]
            learner.ema = {name: e[number] for name, e in zip(learner.names, self.ema, strict=True)}
        if self.optimizer.state:
            self._give_moments()

    def learn(self, windows: Sequence[Windows], batch: int, progress: float) -> Tensor:
        """One step of every learner on a batch of its own windows; the losses [S]."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.learners[0].peak_lr, self.step, progress)
        losses = self.backward(windows, batch)
        self.optimizer.step()
        weights = [p.detach() for p in self.weights]
        torch._foreach_lerp_(self.ema, weights, 1 - ema_decay(self.step))  # pyright: ignore[reportPrivateImportUsage]
        self.step += 1
        for learner in self.learners:
            learner.step = self.step
        if not self.learners[0].optimizer.state:
            self._give_moments()
        return losses

    def backward(self, windows: Sequence[Windows], batch: int) -> Tensor:
        """The losses [S] of this step's batches; their gradients replace those of the weights."""
        self.optimizer.zero_grad(set_to_none=True)
        first = self.learners[0]
        autocast = torch.autocast(
            first.device.type, torch.bfloat16, enabled=first.precision == BFLOAT16
        )
        with autocast:
            losses = self._losses(
                [
                    learner.drawn(mine, batch, learner.generator(self.step), augmented=True)
                    for learner, mine in zip(self.learners, windows, strict=True)
                ]
            )
        losses.sum().backward()
        return losses.detach()

    def _losses(self, drawn: Sequence[Drawn]) -> Tensor:
        names, network = self.learners[0].names, self.learners[0].network

        def loss(weights: Sequence[Tensor], inputs: Any, target: Tensor, *counted: Any) -> Tensor:
            state = dict(zip(names, weights, strict=True))
            return Drawn(inputs, target, *counted).loss(functional_call(network, state, inputs))

        x_t, t, observations = zip(*(each.inputs for each in drawn), strict=True)
        seen = {key: _stacked([each[key] for each in observations]) for key in observations[0]}
        parts: list[Any] = [(_stacked(x_t), _stacked(t), seen), _stacked([d.target for d in drawn])]
        counted = [each.counted for each in drawn if each.counted]
        if counted:
            parts.append(tuple(map(_stacked, zip(*counted, strict=True))))
        return vmap(loss)(self.weights, *parts)

    def _take_moments(self) -> None:
        """Stack the moments of Adam that resumed learners come with."""
        for number, stacked in enumerate(self.weights):
            found = [x.optimizer.state.get(x.parameters[number], {}) for x in self.learners]
            if all(found):
                moments = {kind: _stacked([each[kind] for each in found]) for kind in ADAM[1:]}
                self.optimizer.state[stacked] = {"step": found[0]["step"].clone(), **moments}

    def _give_moments(self) -> None:
        """Make the moments of Adam of every learner views of the stacked ones, once they exist."""
        for number, stacked in enumerate(self.weights):
            moments = self.optimizer.state[stacked]
            for seed, learner in enumerate(self.learners):
                mine = {kind: moments[kind][seed] for kind in ADAM[1:]}
                state = {"step": moments["step"], **mine}
                learner.optimizer.state[learner.parameters[number]] = state


def _stacked(tensors: Sequence[Any]) -> Tensor:
    return torch.stack([tensor.detach() for tensor in tensors])
