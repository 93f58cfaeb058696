"""Policy: observation history → action chunk, numpy in and numpy out."""

import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import torch
from torch import Tensor

from diffpolicy.checkpoint import Checkpoint, load_policy
from diffpolicy.config import Sampling
from diffpolicy.denoisers import Denoiser, build
from diffpolicy.device import check_memory, choose_device
from diffpolicy.engines import Engine, build_engine
from diffpolicy.engines.auto import choose
from diffpolicy.engines.eager import EagerEngine
from diffpolicy.engines.job import Job
from diffpolicy.errors import DiffpolicyError
from diffpolicy.sampling.chain import make_chain
from diffpolicy.sampling.steps import noise_count

DEFAULT = Sampling()
LOGGER = logging.getLogger("diffpolicy")


class Policy:
    """A trained denoiser with one step budget.

    Shapes: B batch, T_o observation horizon, T_p prediction horizon, D_o and D_a dimensions.
    By default every budget starts at t = T - 1 and ends at ᾱ = 1 (trailing grid).
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        sampling: Sampling = DEFAULT,
        device: str = "cpu",
        seed: int = 0,
        engine: str = "eager",
        precision: str = "float32",
    ):
        self.specification = spec = checkpoint.specification
        self.horizons, self.task, self.sampling = spec.horizons, spec.task, sampling
        self.chain = make_chain(spec.model, spec.clip_range, sampling)
        self._draws = noise_count(self.chain.rows)  # once: it looks at every step
        self.device = choose_device(device)
        self.observation_normalizer = checkpoint.observation_normalizer
        self.action_normalizer = checkpoint.action_normalizer
        self._normalize = checkpoint.observation_normalizer.normalize
        self._unnormalize = checkpoint.action_normalizer.unnormalize
        self._denoiser = self._network(checkpoint.weights)
        self._engine, self._folder = engine, checkpoint.folder
        self.precision = precision
        self.name = uuid4().hex  # identity across worker processes (cache key)
        self._engines: dict[tuple[int, int], Engine] = {}
        self._rng = np.random.default_rng(seed)

    @classmethod
    def load(
        cls,
        run: str | Path,
        *,
        device: str = "cpu",
        seed: int = 0,
        engine: str = "eager",
        precision: str = "float32",
        **sampling,
    ) -> "Policy":
        """Load a run folder or its policy.safetensors; no code from the file is run.

        engine: eager, compiled, native, onnx, cuda-graph or auto, built at the first call for each
        batch size. precision: float32, tf32 (cuda-graph only) or bfloat16. sampling: ddim_steps,
        grid, start, end, eta, noise_scale, clip (see config.Sampling). Raises DiffpolicyError if
        the folder is not usable or the budget does not fit the model.
        """
        return cls(load_policy(run), Sampling(**sampling), device, seed, engine, precision)

    def engine(self, batch: int = 1) -> Engine:
        """The engine for calls of this batch size, built at the first call.

        Cached per (batch, number of torch threads). The reason of `auto` for its choice goes to the
        logger "diffpolicy" at INFO. Raises EngineUnavailable if it cannot be built here.
        """
        key = batch, torch.get_num_threads()
        if key not in self._engines:
            job = self.job(batch)
            if self._engine == "auto":
                self._engines[key], why = choose(job, self._folder)
                LOGGER.info("%s: engine %s", self.chain.name, why)
            else:
                self._engines[key] = build_engine(self._engine, job)
        return self._engines[key]

    def with_engine(self, name: str) -> "Policy":
        """The same policy on another engine."""
        other = type(self).__new__(type(self))
        kept = {key: engine for key, engine in self._engines.items() if engine.name == name}
        vars(other).update(vars(self), _engine=name, _engines=kept, name=f"{self.name} {name}")
        return other

    def _network(self, weights: Mapping[str, Tensor]) -> Denoiser:
        spec = self.specification
        denoiser = build(spec.model, spec.horizons, spec.task.observation_dim, spec.task.action_dim)
        denoiser.load_state_dict(weights)
        return denoiser.to(self.device).eval().requires_grad_(False)

    def __getstate__(self) -> dict[str, Any]:
        """State for another process: weights as arrays, as torch would share memory."""
        weights = {name: w.cpu().numpy() for name, w in self._denoiser.state_dict().items()}
        engines = {k: e for k, e in self._engines.items() if getattr(e, "portable", False)}
        return {**vars(self), "_denoiser": weights, "_engines": engines}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._denoiser = self._network({n: torch.tensor(w) for n, w in state["_denoiser"].items()})

    def job(self, batch: int = 1) -> Job:
        """The job of an engine for this batch size; DiffpolicyError if it exceeds the memory."""
        widest = max(len(weight) for weight in self._denoiser.parameters())
        observed = self.horizons.observation * self.task.observation_dim
        numbers = math.prod(self.noise_shape(batch)) + batch * (observed + widest)
        check_memory(4 * numbers, self.device, f"a batch of {batch} for {self.ddim_steps} steps")
        return Job(
            denoiser=self._denoiser,
            chain=self.chain,
            horizons=self.horizons,
            observation_dim=self.task.observation_dim,
            action_dim=self.task.action_dim,
            batch=batch,
            threads=torch.get_num_threads(),
            precision=self.precision,
        )

    @property
    def ddim_steps(self) -> int:
        """K, the steps of the solver; 0 for a regression policy."""
        return self.chain.steps

    @property
    def regression(self) -> bool:
        """True if the network was trained without diffusion, to predict the mean chunk."""
        return self.chain.regression

    @property
    def network_evals(self) -> int:
        """Network evaluations a chunk (NFE)."""
        return len(self.chain.rows)

    @property
    def parameters(self) -> int:
        """Number of weights of the network."""
        return sum(p.numel() for p in self._denoiser.parameters())

    def noise_shape(self, batch: int) -> tuple[int, int, int, int]:
        """[1, B, T_p, D_a], or [1 + K, B, T_p, D_a] if the sampler injects noise."""
        return self._draws, batch, self.horizons.prediction, self.task.action_dim

    def __call__(self, observation_history: np.ndarray, noise: np.ndarray | None = None):
        """observation_history [B, T_o, D_o] -> actions [B, T_p - T_o + 1, D_a] float32.

        The first action belongs to the newest observation; a controller executes T_a of them.
        Standard normal noise of `noise_shape(B)` makes the result repeatable; by default the
        policy draws it from its own seed. Raises DiffpolicyError on other shapes.
        """
        observation, drawn = self._inputs(observation_history, noise)
        return self._actions(self.engine(len(observation))(observation, drawn))

    def states(
        self, observation_history: np.ndarray, noise: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """All x_t [K + 1, B, T_p - T_o + 1, D_a], noise first, and all x̂0 [K, …], as actions."""
        observation, drawn = self._inputs(observation_history, noise)
        states = EagerEngine(self.job(len(observation))).states(observation, drawn)
        xs = [drawn[0], *(x for x, _ in states)]
        found = xs, [x0 for _, x0 in states]
        x_t, x0 = (np.stack([self._actions(x) for x in chunks]) for chunks in found)
        return x_t, x0

    def _inputs(
        self, observation_history: np.ndarray, noise: np.ndarray | None
    ) -> tuple[Tensor, Tensor]:
        """Observations, normalised, and noise, both checked, as tensors."""
        history = np.asarray(observation_history, np.float32)
        expected = (self.horizons.observation, self.task.observation_dim)
        if history.ndim != 3 or history.shape[1:] != expected:
            raise DiffpolicyError(
                f"observation_history must be [B, T_o, D_o] = [B, {expected[0]}, {expected[1]}]; "
                f"got {list(history.shape)}"
            )
        shape = self.noise_shape(len(history))
        if noise is None:
            noise = self._rng.standard_normal(shape, np.float32)
        noise = np.asarray(noise, np.float32)
        if noise.shape != shape:
            raise DiffpolicyError(f"noise must be {list(shape)}; got {list(noise.shape)}")
        if self.regression:
            noise = np.zeros_like(noise)  # a regression network was trained with zero input
        given = self._normalize(history), np.ascontiguousarray(noise)
        return torch.from_numpy(given[0]), torch.from_numpy(given[1])

    def _actions(self, chunk: Tensor) -> np.ndarray:
        """The usable part of a normalised chunk [B, T_p, D_a]."""
        return self._unnormalize(chunk[:, self.horizons.observation - 1 :].numpy())
