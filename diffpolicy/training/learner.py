"""Learner: a denoiser, its EMA and its optimiser, one training step at a time.

Every draw of step n depends on (seed, n) alone, so a resumed run repeats an uninterrupted one
without the state of a generator in the checkpoint.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diffpolicy.data.normalizer import Normalizer
from diffpolicy.data.windows import Windows
from diffpolicy.denoisers import build_network
from diffpolicy.denoisers.committed import COMMITTED, committed, draw_counts, given_rows
from diffpolicy.denoisers.encoders import layer_outputs
from diffpolicy.denoisers.pretrained import Convolutions, load_convolutions
from diffpolicy.specification import Specification
from diffpolicy.training.augment import augment, displace
from diffpolicy.training.distributed import ALONE, Ranks
from diffpolicy.training.objective import make_objective
from diffpolicy.training.precision import BFLOAT16, FLOAT32

WARMUP_STEPS, BETA1 = 500, 0.9
EMA_POWER, EMA_LIMIT = 0.75, 0.9999
VALIDATION_WINDOWS, AT_A_TIME = 1024, 64  # at a time: windows with pictures
DRAWS = 4  # noisy chunks of each window with pictures: encoding costs more than denoising
ADAM = ("step", "exp_avg", "exp_avg_sq")


@dataclass(frozen=True)
class Drawn:
    """A batch: inputs x_t [B, T_p, D_a], t [B] and observations of the network; its target.

    counted: weights of the errors, if some do not count, and their sum over all processes, at least
    1. parts: number of these.
    """

    inputs: tuple[Tensor, Tensor, Any]
    target: Tensor
    counted: tuple[Tensor, Tensor] | None = None
    parts: int = 1

    def loss(self, predicted: Tensor) -> Tensor:
        """The mean squared error; of several processes the part of this one."""
        error = (predicted - self.target).square()
        if self.counted is None:
            return error.mean() / self.parts
        weight, whole = self.counted
        return (error * weight).sum() / whole


class Learner:
    """State: network, ema {name: tensor}, optimizer (AdamW), step.

    weights: first weights of the whole network. teacher_times: timesteps of a teacher's states.
    precision: of the network's products in `learn`, see precision.py. forward: the network's call
    there, see compilation.py. graph: `gradients` as a CUDA graph, see graph.py. ranks: processes
    that share its batches.
    """

    precision, ranks = FLOAT32, ALONE
    graph: Callable[[Drawn], Tensor] | None = None

    def __init__(
        self,
        specification: Specification,
        device: torch.device,
        lr: float = 2e-3,
        beta2: float = 0.99,
        weight_decay: float = 0.1,
        seed: int = 0,
        normalizers: Mapping[str, Normalizer] | None = None,
        colour_jitter: float = 0.0,
        observation_noise: float = 0.0,
        encoder_weights: Convolutions | None = None,
        weights: Mapping[str, Tensor] | None = None,
        teacher_times: Sequence[int] = (),
    ):
        model, task = specification.model, specification.task
        torch.manual_seed(seed)
        network = build_network(specification, normalizers)
        if encoder_weights:
            load_convolutions(network.encoder, encoder_weights)
        if weights:
            network.load_state_dict(weights)
        self.network = network.to(device)
        self.forward: Callable[..., Tensor] = self.network
        self.names = [name for name, _ in network.named_parameters()]
        self.parameters = list(network.parameters())
        self.ema = {n: p.detach().clone() for n, p in network.named_parameters()}
        self.optimizer = torch.optim.AdamW(
            self.parameters, lr=lr, betas=(BETA1, beta2), weight_decay=weight_decay, fused=True
        )
        self.peak_lr, self.seed, self.device = lr, seed, device
        self.objective = make_objective(model, device, teacher_times)
        self.masked = not task.position_targets
        self.prefix_max, self.ahead = model.prefix_max, specification.horizons.observation - 1
        self.crops, self.colour_jitter = network.encoder.crops, colour_jitter
        self.observation_noise = observation_noise
        self.draws = 1 if model.regression else DRAWS
        self.step = 0

    @property
    def compiled(self) -> bool:
        """True if `learn` calls the compiled network."""
        return self.forward is not self.network

    def learn(self, windows: Windows, batch: int, progress: float) -> Tensor:
        """One step of AdamW and of the EMA on a random batch; the loss. progress is in [0, 1)."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.peak_lr, self.step, progress)
        loss = self.ranks.add_up(self.parameters, self.backward(windows, batch))
        self.optimizer.step()
        weights = [p.detach() for p in self.parameters]
        decay = ema_decay(self.step)
        torch._foreach_lerp_(list(self.ema.values()), weights, 1 - decay)  # pyright: ignore[reportPrivateImportUsage]
        self.step += 1
        return loss

    def backward(self, windows: Windows, batch: int) -> Tensor:
        """This process's part of the loss of this step's random batch.

        Its gradients replace those of the parameters.
        """
        drawn = self.batch(windows, batch)
        return self.graph(drawn) if self.graph else self.gradients(drawn)

    def batch(self, windows: Windows, batch: int) -> Drawn:
        """This process's rows of this step's random batch."""
        with self._autocast():
            generator = self.generator(self.step)
            return self.drawn(windows, batch, generator, self.ranks, augmented=True)

    def gradients(self, drawn: Drawn) -> Tensor:
        """The loss of a batch; its gradients replace those of the parameters."""
        self.optimizer.zero_grad(set_to_none=True)
        with self._autocast():
            loss = drawn.loss(self.forward(*drawn.inputs))
        loss.backward()
        return loss.detach()

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == BFLOAT16)

    @torch.no_grad()
    def validation_loss(self, windows: Windows) -> float:
        """The loss of the EMA weights on held-out episodes, with the same draws every time."""

        def network(*inputs: Tensor) -> Tensor:
            return torch.func.functional_call(self.network, self.ema, inputs)

        most = AT_A_TIME if self.crops else VALIDATION_WINDOWS
        batch, generator = min(most, len(windows)), self.generator(0)
        rounds = range(VALIDATION_WINDOWS // most)
        return sum(float(self.loss(network, windows, batch, generator)) for _ in rounds) / len(
            rounds
        )

    def tensors(self) -> dict[str, Tensor]:
        """Tensors that resuming needs, by name."""
        found = {f"network.{n}": p for n, p in zip(self.names, self.parameters, strict=True)}
        found |= {f"ema.{n}": p for n, p in self.ema.items()}
        for number, moments in self.optimizer.state_dict()["state"].items():
            found |= {f"adam.{kind}.{self.names[number]}": m for kind, m in moments.items()}
        return found

    def restorable(self, step: int) -> dict[str, Tensor]:
        """Names, shapes and types of the tensors that `restore` takes after so many steps."""
        kinds = ["network", "ema", *(f"adam.{kind}" for kind in ADAM if step)]
        return {
            f"{kind}.{name}": torch.empty(() if kind == "adam.step" else p.shape, device="meta")
            for kind in kinds
            for name, p in zip(self.names, self.parameters, strict=True)
        }

    def restore(self, tensors: dict[str, Tensor], step: int) -> None:
        """Inverse of `tensors`, for a learner of the same specification."""
        self.network.load_state_dict({n: tensors[f"network.{n}"] for n in self.names})
        for name, value in self.ema.items():
            value.copy_(tensors[f"ema.{name}"])
        state = self.optimizer.state_dict()
        state["state"] = {
            i: {kind: tensors[f"adam.{kind}.{n}"] for kind in ADAM}
            for i, n in enumerate(self.names)
            if f"adam.step.{n}" in tensors
        }
        self.optimizer.load_state_dict(state)
        self.step = step

    def generator(self, step: int) -> torch.Generator:
        """The generator of all draws of a step."""
        key = np.random.SeedSequence([self.seed, step]).generate_state(1, np.uint64)[0]
        return torch.Generator(self.device).manual_seed(int(key >> np.uint64(1)))

    def loss(
        self,
        network: Callable[..., Tensor],
        windows: Windows,
        batch: int,
        generator: torch.Generator,
        ranks: Ranks = ALONE,
        augmented: bool = False,
    ) -> Tensor:
        """The mean of ‖target - network‖² over a random batch (arXiv 2006.11239, eq. 14)."""
        drawn = self.drawn(windows, batch, generator, ranks, augmented)
        return drawn.loss(network(*drawn.inputs))

    def drawn(
        self,
        windows: Windows,
        batch: int,
        generator: torch.Generator,
        ranks: Ranks = ALONE,
        augmented: bool = False,
    ) -> Drawn:
        """A random batch of noisy chunks.

        Unless actions are position targets, those beyond the episode's ends do not count; committed
        actions, which the network is given, never do.
        ranks: the part of this process; the parts add up to the mean.
        augmented: vectors are displaced; pictures are cropped at random, with colour jitter, and
        encoded once for `draws` noisy chunks (repeated_diffusion_steps in CogACT); otherwise they
        are cropped at the centre.
        """
        index = torch.randint(len(windows), (batch,), generator=generator, device=self.device)
        rows = ranks.rows(batch)
        observations, action, real = gather(windows, index, rows)
        if augmented and self.observation_noise:
            observations = displace(observations, self.observation_noise, generator, ranks)
        counted = real if self.masked else torch.ones_like(real)
        if self.prefix_max:
            count = draw_counts(batch, self.prefix_max, generator)
            given = committed(action, count, self.ahead, self.prefix_max)
            observations[COMMITTED] = given[rows]
            counted = counted & ~given_rows(count, self.ahead, action.shape[1])
        if augmented and self.crops:
            pictures = augment(observations, self.crops, self.colour_jitter, generator, ranks)
            observations = self.network.encoder(pictures).repeat_interleave(self.draws, 0)
            action, counted = (x.repeat_interleave(self.draws, 0) for x in (action, counted))
        x_t, t, target = self.objective.pair(action, generator)
        rows = ranks.rows(len(x_t))
        inputs = x_t[rows], t[rows], observations
        if not (self.masked or self.prefix_max):
            return Drawn(inputs, target[rows], parts=ranks.count)
        weight = counted[..., None].expand_as(target)
        whole = weight.sum().clamp_(min=1)  # of a small batch no number may count
        return Drawn(inputs, target[rows], (weight[rows], whole))


def bytes_needed(specification: Specification, batch: int) -> int:
    """Least memory of a training step.

    Weights, gradients, EMA and Adam's two moments; windows and the output of each layer.
    """
    task, horizons, model = specification.task, specification.horizons, specification.model
    pictures = sum(s.size for s in task.observations.values() if s.is_picture)
    vectors = task.observation_dim - pictures
    with torch.device("meta"):
        network = build_network(specification)
    weights = list(network.parameters())
    window = horizons.observation * vectors + horizons.prediction * task.action_dim
    outputs = sum(len(w) for w in weights if w.ndim > 1)
    noisy = DRAWS if pictures and not model.regression else 1
    numbers = 5 * sum(w.numel() for w in weights) + batch * (window + noisy * outputs)
    seen = pictures + 4 * sum(layer_outputs(model, task.observations))
    return 4 * numbers + batch * horizons.observation * seen


def gather(
    windows: Windows, index: Tensor, rows: slice = slice(None)
) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    """Windows.gather as tensors on the device of the index.

    Arrays are gathered by NumPy, faster than torch's own indexing on the CPU; pictures on disk are
    always arrays.
    """
    if isinstance(windows.newest, Tensor):
        return windows.gather(index, rows)
    observations, action, real = windows.gather(index.cpu().numpy(), rows)

    def tensor(values: np.ndarray) -> Tensor:
        return torch.from_numpy(values).to(index.device)

    return {key: tensor(x) for key, x in observations.items()}, tensor(action), tensor(real)


def learning_rate(peak: float, step: int, progress: float) -> float:
    """Linear warm-up, times a cosine to zero over the whole run."""
    return peak * min(1.0, (step + 1) / WARMUP_STEPS) * (1 + math.cos(math.pi * progress)) / 2


def ema_decay(step: int) -> float:
    """1 - (1 + n)^-¾, up to 0.9999: early weights are forgotten quickly."""
    return min(1 - (1 + step) ** -EMA_POWER, EMA_LIMIT)
