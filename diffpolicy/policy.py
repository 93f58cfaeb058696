"""Policy: observation history → action chunk, numpy in and numpy out."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import torch
from torch import Tensor

from diffpolicy.checkpoint import Checkpoint, load_policy
from diffpolicy.config import Sampling
from diffpolicy.denoisers import Denoiser, build_network
from diffpolicy.denoisers.committed import COMMITTED
from diffpolicy.device import check_memory, choose_device
from diffpolicy.engines import Encode, build_encoder
from diffpolicy.engines.auto import choose_stages
from diffpolicy.engines.eager import EagerEngine
from diffpolicy.engines.job import Job
from diffpolicy.engines.stages import Stages, build_stages, portable
from diffpolicy.errors import DiffpolicyError
from diffpolicy.late import parse_late
from diffpolicy.late.drop import Sampled
from diffpolicy.late.plan import Plan, gather_plans
from diffpolicy.sampling.chain import make_chain
from diffpolicy.sampling.steps import noise_count

DEFAULT = Sampling()
LOGGER = logging.getLogger("diffpolicy")

Observation = Mapping[str, np.ndarray] | np.ndarray


class Policy:
    """A trained denoiser with one step budget.

    Shapes: B batch, T_o observation horizon, T_p prediction horizon, D_o and D_a dimensions.
    By default every budget has the timestep grid of the run. On the trailing one, of the runs that
    were trained here, it starts at t = T - 1 and ends at ᾱ = 1.
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
        self.horizons, self.task = spec.horizons, spec.task
        chain = make_chain(
            spec.model, spec.clip_range, sampling, spec.grid, spec.rederive, spec.schedules
        )
        self.chain, self.sampling = chain, chain.sampling
        self.late = parse_late(sampling.late)
        self.late.check(spec)
        self.late.check_chain(chain, spec.model.prediction)
        self.correct = self.late.corrector(checkpoint)  # of single actions, or None
        self._draws = noise_count(self.chain.rows)  # once: it looks at every step
        self.device = choose_device(device)
        self.observations = spec.task.observations
        self.observation_normalizers = checkpoint.observation_normalizers
        self.action_normalizer = checkpoint.action_normalizer
        self._denoiser = self._network(checkpoint.weights)
        self._engine, self._folder = self.late.engine(engine), checkpoint.folder
        self.precision = precision
        self.name = uuid4().hex  # identity across worker processes (cache key)
        self.label = ""  # name of the run in reports, where there are several
        self._engines: dict[tuple[int, int], Stages] = {}
        self._sampled: dict[tuple[int, int], Sampled] = {}  # with plans; not pickled
        self._encoders: dict[tuple[int, int], Encode] = {}  # from another process
        self._rng = np.random.default_rng(seed)
        self.evaluations_made: list[int] = []  # of each chunk that a deadline could cut

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

    def engine(self, batch: int = 1) -> Stages:
        """The engine for calls of this batch size with its encoder, built at the first call.

        Cached per (batch, number of torch threads). The reason of `auto` for its choice goes to the
        logger "diffpolicy" at DEBUG. Raises EngineUnavailable if it cannot be built here.
        """
        key = batch, torch.get_num_threads()
        if key not in self._engines:
            job = self.job(batch)
            if self._engine == "auto":
                self._engines[key], why = choose_stages(job, self._folder)
                LOGGER.debug("%s: engine %s", self.chain.name, why)
            else:
                self._engines[key] = build_stages(self._engine, job, self._encoders.get(key))
        return self._engines[key]

    def prepare(self, batch: int = 1) -> str:
        """Build all that calls of this batch size need; the name of the engine."""
        key = batch, torch.get_num_threads()
        if self.late.plans and key not in self._sampled:
            self._sampled[key] = self.late.sampled(self, batch)
        return self.engine(batch).name

    def with_engine(self, name: str) -> "Policy":
        """The same policy on another engine."""
        name = self.late.engine(name)
        other = type(self).__new__(type(self))
        kept = {key: engine for key, engine in self._engines.items() if engine.name == name}
        new = {"_engine": name, "_engines": kept, "_sampled": {}, "evaluations_made": []}
        vars(other).update(vars(self), **new, name=f"{self.name} {name}")
        return other

    def _network(self, weights: Mapping[str, Tensor]) -> Denoiser:
        denoiser = build_network(self.specification, self.observation_normalizers)
        denoiser.load_state_dict(weights)
        return denoiser.to(self.device).eval().requires_grad_(False)

    def __getstate__(self) -> dict[str, Any]:
        """State for another process: weights as arrays, as torch would share memory."""
        weights = {name: w.cpu().numpy() for name, w in self._denoiser.state_dict().items()}
        engines = {k: e for k, e in self._engines.items() if e.portable}
        encoders = {k: e.encode for k, e in self._engines.items() if portable(e.encode)}
        new = {"_denoiser": weights, "_engines": engines, "_encoders": encoders, "_sampled": {}}
        return {**vars(self), **new}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._denoiser = self._network({n: torch.tensor(w) for n, w in state["_denoiser"].items()})

    def job(self, batch: int = 1) -> Job:
        """The job of an engine for this batch size; DiffpolicyError if it exceeds the memory."""
        job = Job(
            denoiser=self._denoiser,
            chain=self.chain,
            horizons=self.horizons,
            observations=self.observations,
            action_dim=self.task.action_dim,
            batch=batch,
            threads=torch.get_num_threads(),
            precision=self.precision,
        )
        what = f"a batch of {batch} for {self.ddim_steps} steps"
        check_memory(job.bytes_needed(self.specification.model), self.device, what)
        return job

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
        return self.late.evaluations(len(self.chain.rows))[0]

    @property
    def gradient_evals(self) -> int:
        """Gradients through the network a chunk."""
        return self.late.evaluations(len(self.chain.rows))[1]

    @property
    def parameters(self) -> int:
        """Number of weights of the network."""
        return sum(p.numel() for p in self._denoiser.parameters())

    def noise_shape(self, batch: int) -> tuple[int, int, int, int]:
        """[1, B, T_p, D_a], or [1 + K, B, T_p, D_a] if the sampler injects noise."""
        return self._draws, batch, self.horizons.prediction, self.task.action_dim

    def __call__(
        self,
        observation: Observation,
        noise: np.ndarray | None = None,
        plans: Sequence[Plan | None] | None = None,
    ) -> np.ndarray:
        """Observation histories {key: [B, T_o, …]} -> actions [B, T_p - T_o + 1, D_a] float32.

        One array [B, T_o, D_o] serves for a single key. The first action belongs to the newest
        observation; a controller executes T_a of them. Standard normal noise of `noise_shape(B)`
        makes the result repeatable; by default the policy draws it from its own seed. plans: of
        each row, for a strategy of `late` that depends on them; by default none. Raises
        DiffpolicyError on other shapes.
        """
        histories, drawn = self._inputs(observation, noise)
        if self.late.plans:
            given = plans or [None] * drawn.shape[1]
            return self._actions(self._with_plans(histories, drawn, given))
        engine = self.engine(drawn.shape[1])
        return self._actions(engine(engine.encode(histories), drawn))

    def _with_plans(
        self, histories: dict[str, Tensor], noise: Tensor, plans: Sequence[Plan | None]
    ) -> Tensor:
        """The normalised chunk [B, T_p, D_a] of the strategy for late chunks."""
        self.prepare(len(plans))
        sampled = self._sampled[len(plans), torch.get_num_threads()]
        about = self.horizons, self.action_normalizer, self.task.action_dim
        return sampled(histories, noise, gather_plans(plans, *about))

    def encode(self, observation: Observation) -> Tensor:
        """The encoded observation [B, C] of a call, on the device of its encoder."""
        histories = self._normalised(observation)
        return self.engine(len(next(iter(histories.values())))).encode(histories)

    def states(
        self, observation: Observation, noise: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """All x_t [K + 1, B, T_p - T_o + 1, D_a], noise first, and all x̂0 [K, …], as actions."""
        histories, drawn = self._inputs(observation, noise)
        job = self.job(drawn.shape[1])
        encoded = build_encoder("eager", job)(histories)
        states = EagerEngine(job).states(encoded, drawn)
        xs = [drawn[0], *(x for x, _ in states)]
        found = xs, [x0 for _, x0 in states]
        x_t, x0 = (np.stack([self._actions(x) for x in chunks]) for chunks in found)
        return x_t, x0

    def _inputs(
        self, observation: Observation, noise: np.ndarray | None
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Normalised histories and the noise, both checked."""
        histories = self._normalised(observation)
        shape = self.noise_shape(len(next(iter(histories.values()))))
        if noise is None:
            noise = self._rng.standard_normal(shape, np.float32)
        noise = np.asarray(noise, np.float32)
        if noise.shape != shape:
            raise DiffpolicyError(f"noise must be {list(shape)}; got {list(noise.shape)}")
        drawn = torch.tensor(noise)
        drawn[0] *= self.chain.start_scale
        return histories, drawn

    def _normalised(self, observation: Observation) -> dict[str, Tensor]:
        """Histories {key: [B, T_o, …]}, checked and normalised; none of the actions committed."""
        keys = list(self.observations)
        if not isinstance(observation, Mapping):
            observation = {keys[0] if len(keys) == 1 else "one array": observation}
        if observation.keys() != set(keys):
            raise DiffpolicyError(
                f"observation must hold {', '.join(keys)}; got {', '.join(map(str, observation))}"
            )
        found = {key: self._history(key, observation[key]) for key in keys}
        if len({len(history) for history in found.values()}) > 1:
            sizes = {key: len(history) for key, history in found.items()}
            raise DiffpolicyError(f"every key of observation must have the same B; got {sizes}")
        if most := self.specification.model.prefix_max:
            batch = len(next(iter(found.values())))
            found[COMMITTED] = torch.zeros(batch, most, self.task.action_dim + 1)
        return found

    def _history(self, key: str, values: np.ndarray) -> Tensor:
        spec = self.observations[key]
        history = np.asarray(values, np.float32 if spec.dtype == "float32" else None)
        expected = (self.horizons.observation, *spec.shape)
        if history.shape[1:] != expected or not history.ndim or history.dtype != spec.dtype:
            raise DiffpolicyError(
                f"{key} must be {spec.dtype} [B, T_o, …] = [B, {', '.join(map(str, expected))}]; "
                f"got {history.dtype} {list(history.shape)}"
                f"{spec.advice(history.shape[2:], history.dtype)}"
            )
        if spec.is_picture:
            return torch.from_numpy(np.ascontiguousarray(history))
        normalizer = self.observation_normalizers.get(key)
        return torch.from_numpy(history if normalizer is None else normalizer.normalize(history))

    def _actions(self, chunk: Tensor) -> np.ndarray:
        """The usable part of a normalised chunk [B, T_p, D_a]."""
        return self.action_normalizer.unnormalize(chunk[:, self.horizons.observation - 1 :].numpy())
