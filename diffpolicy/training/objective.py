"""Objectives: the inputs x_t and t of a training step, and the target of the network.

`sampling/parameterisation.py` holds how the sampler reads the network's output. To add an
objective, write its `pair` here and its reading there.

Shapes: B windows, T_p rows and D_a dimensions of a chunk, T timesteps, K steps of a teacher.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from diffpolicy.config import ModelConfig
from diffpolicy.errors import DiffpolicyError
from diffpolicy.sampling.noise import make_levels
from diffpolicy.sampling.parameterisation import add_noise, output_for, target

BETA_SHAPE = 1.5  # of Beta(1.5, 1), whose quantile function is u^(1/1.5)


class Objective(Protocol):
    """A rule for training pairs."""

    def pair(self, x0: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """x_t [B, T_p, D_a], t [B] and the target [B, T_p, D_a] for the chunks x0."""
        ...


@dataclass(frozen=True)
class Denoising:
    """Predict ε, x0, v or velocity of x_t at a random timestep; signal and noise [T] float32."""

    prediction: str
    signal: Tensor
    noise: Tensor
    time_sampling: str = "uniform"

    def pair(self, x0: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """x_t [B, T_p, D_a], t [B] and the target [B, T_p, D_a] for the chunks x0."""
        t = draw_timesteps(self.time_sampling, len(self.signal), len(x0), generator)
        ε = torch.randn(x0.shape, generator=generator, device=x0.device)
        level = self.signal[t][:, None, None], self.noise[t][:, None, None]
        return add_noise(x0, ε, *level), t, target(x0, ε, *level, self.prediction)


@dataclass(frozen=True)
class Regression:
    """Predict x0 from the observation alone: x_t is zero and t the last timestep."""

    timesteps: int

    def pair(self, x0: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Zeros [B, T_p, D_a], t = T - 1 [B] and the target x0."""
        last = torch.full(x0.shape[:1], self.timesteps - 1, device=x0.device)
        return torch.zeros_like(x0), last, x0


@dataclass(frozen=True)
class MIP:
    """Predict x0 from zero at T - 1, and from x_t at one small t* (arXiv 2512.01809, eq. 4.4, 4.5).

    Both terms have weight 1. signal and noise [T] float32.
    """

    timestep: int
    signal: Tensor
    noise: Tensor

    def pair(self, x0: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Every second chunk as in regression, the others noised at t*; the target is x0."""
        second = torch.arange(len(x0), device=x0.device) % 2 == 1
        t = torch.where(second, self.timestep, len(self.signal) - 1)
        z = torch.randn(x0.shape, generator=generator, device=x0.device)
        x_t = add_noise(x0, z, self.signal[t][:, None, None], self.noise[t][:, None, None])
        return x_t * second[:, None, None], t, x0


@dataclass(frozen=True)
class Distillation:
    """Predict the end of a teacher's trajectory from its states (Luhman, arXiv 2101.02388).

    The end is the same from every state, and the state at T - 1, its noise, is half of the batch.
    times [K]: timesteps of the states; signal, noise [T] float32; prediction: the student's.
    """

    times: Tensor
    prediction: str
    signal: Tensor
    noise: Tensor

    def pair(self, x0: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """x^(k), its timestep and the output that is read as the end of the trajectory.

        x0: trajectories [B, k + 1, T_p, D_a] with k ≤ K.
        """
        batch, states = len(x0), x0.shape[1] - 1
        drawn = {"generator": generator, "device": x0.device}
        k = torch.randint(min(1, states - 1), states, (batch,), **drawn)
        k = torch.where(torch.rand(batch, **drawn) < 0.5, 0, k)
        x, t = x0[torch.arange(batch, device=x0.device), k].float(), self.times[k]
        level = self.signal[t][:, None, None], self.noise[t][:, None, None]
        return x, t, output_for(x0[:, -1].float(), x, *level, self.prediction)


def draw_timesteps(rule: str, timesteps: int, count: int, generator: torch.Generator) -> Tensor:
    """Timesteps ⌊u T⌋ [count] with u in [0, 1] uniform, logit-normal(0, 1) or of Beta(1.5, 1).

    logit-normal: arXiv 2403.03206, sec. 3.1. Beta(1.5, 1) prefers noise (arXiv 2410.24164, app. B).
    """
    drawn = {"generator": generator, "device": generator.device}
    if rule == "uniform":
        return torch.randint(timesteps, (count,), **drawn)
    if rule == "logit-normal":
        u = torch.randn(count, **drawn).sigmoid()
    else:
        u = torch.rand(count, **drawn) ** (1 / BETA_SHAPE)
    return (u * timesteps).long().clamp_(max=timesteps - 1)


def make_objective(
    model: ModelConfig, device: torch.device, teacher_times: Sequence[int] = ()
) -> Objective:
    """The objective that a configuration names; teacher_times [K]: of distillation."""
    if model.objective == "regression":
        return Regression(model.train_timesteps)
    levels = torch.tensor(make_levels(model.schedule, model.train_timesteps), device=device)
    signal, noise = levels.float().T
    if model.objective == "distilled":
        times = torch.tensor(teacher_times, device=device)
        return Distillation(times, model.prediction, signal, noise)
    if model.objective == "mip":
        return MIP(model.mip_timestep, signal, noise)
    return Denoising(model.prediction, signal, noise, model.time_sampling)


def check_objective(model: ModelConfig) -> None:
    """Raise DiffpolicyError for an objective of another command, or options it does not use."""
    if model.objective == "distilled":
        raise DiffpolicyError(
            "--objective distilled needs a teacher; try diffpolicy distill --run RUN --out OUT"
        )
    if model.objective != "denoising" and model.time_sampling != "uniform":
        raise DiffpolicyError(
            f"--time-sampling {model.time_sampling} is for --objective denoising; "
            f"--objective {model.objective} has timesteps of its own"
        )
    last = model.train_timesteps - 1
    if model.objective == "mip" and model.mip_timestep >= last:
        raise DiffpolicyError(
            f"--mip-timestep must lie below the first one, {last}; got {model.mip_timestep}"
        )
    if model.objective != "mip" and model.mip_timestep != ModelConfig.mip_timestep:
        raise DiffpolicyError(
            f"--mip-timestep is for --objective mip; got --objective {model.objective}"
        )
