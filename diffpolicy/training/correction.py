"""`diffpolicy train-correction`: a head that corrects each action of a run's chunks.

A2C2, arXiv 2509.23224. The head learns a_demo(t + i) - a_i of the chunk a for the observation of
tick t, from the observation of tick t + i - 1. Chunks of noise alone may be in another mode than
the demonstration, which makes the target an average of modes. So the chain starts from the
demonstration itself with noise in the middle of the process: enough to forget all but the mode.

Shapes: W windows, B batch, T_o, T_p horizons, D_a action dimensions, C inputs of the head.
"""

import math
from dataclasses import asdict, fields, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from diffpolicy.checked import validate
from diffpolicy.checkpoint import POLICY_FILE, Checkpoint, load_policy
from diffpolicy.config import ModelConfig, Sampling
from diffpolicy.data.windows import Windows
from diffpolicy.errors import DiffpolicyError
from diffpolicy.files import check_writable
from diffpolicy.late import correction as head
from diffpolicy.policy import Policy
from diffpolicy.sampling.chain import WITHOUT_NOISE
from diffpolicy.sampling.noise import make_levels
from diffpolicy.terminal.progress import progress_bar
from diffpolicy.training.config import CorrectionConfig, TrainConfig
from diffpolicy.training.distill import Trained
from diffpolicy.training.distributed import check_alone
from diffpolicy.training.learner import gather
from diffpolicy.training.preparation import Prepared, prepare
from diffpolicy.training.trajectories import BATCH, PICTURE_BATCH, repeated

CHUNKS, VALIDATION_CHUNKS = 20_000, 1024  # least numbers
CHAIN_STEPS = 8
PAIRS, LR = 512, 1e-3  # of an optimiser step


def train_correction(config: CorrectionConfig) -> Path:
    """Train the head of a run and write it beside the policy; return the path of its file.

    Raises DiffpolicyError for bad input, before anything is written. A run that is interrupted
    writes nothing.
    """
    check_alone("train-correction")
    policy = load_policy(config.run)
    assert policy.folder is not None  # it was read from a file
    path = policy.folder / head.FILE
    check_writable(path)
    prepared = _prepared(config, policy)
    seed = prepared.specification.training["config"]["seed"]
    chunks = _with_chunks(repeated(prepared.training, CHUNKS), policy, seed)
    weights = fit(policy, chunks, config.steps, seed)
    errors = _held_out(prepared, policy, weights, seed + 1)
    about = {
        "config": {k: str(v) if isinstance(v, Path) else v for k, v in asdict(config).items()},
        "fingerprint": prepared.specification.training["fingerprint"],
        "chunks": len(chunks),
        "held_out_rms": errors,
    }
    head.save_corrector(path, weights, policy, about)
    if errors:
        print(
            f"rms to the demonstrations on held-out episodes, normalised: {errors[0]:.4f} of "
            f"chunks, {errors[1]:.4f} corrected"
        )
    print(f"saved {path}; use it with --late correct")
    return path


def _prepared(config: CorrectionConfig, policy: Checkpoint) -> Prepared:
    """The policy's data, split and normalised as they were for it."""
    specification = policy.specification
    head.observed_keys(specification)
    if specification.model.prefix_max:
        raise DiffpolicyError(
            f"{config.run} cannot be corrected: it is conditioned on committed actions; expected a "
            "run without --prefix-max"
        )
    if "config" not in specification.training:
        raise DiffpolicyError(
            f"{config.run} cannot be corrected: its header does not say how it was trained; "
            "expected a run of diffpolicy train"
        )
    prepared = prepare(_options(config, policy), policy)
    if prepared.specification.training["fingerprint"] != specification.training.get("fingerprint"):
        raise DiffpolicyError(
            f"{config.data or 'the demonstrations'} are not the demonstrations that {config.run} "
            "was trained on; give these with --data"
        )
    return prepared


def _options(config: CorrectionConfig, policy: Checkpoint) -> TrainConfig:
    """The options of the policy's training, as its header has them."""
    specification = policy.specification
    where = f"the training provenance of {config.run / POLICY_FILE}"
    trained: Trained = validate(Trained, specification.training["config"], where, others=True)
    horizons = {f"{name}_horizon": n for name, n in asdict(specification.horizons).items()}
    model = {f.name: getattr(specification.model, f.name) for f in fields(ModelConfig)}
    options = {**{k: v for k, v in vars(trained).items() if k != "data"}, **model, **horizons}
    return TrainConfig(**options, data=config.data or Path(trained.data), out=config.run)


def _with_chunks(windows: Windows, policy: Checkpoint, seed: int) -> Windows:
    """The windows with a chunk of the policy each, [W, 1, T_p, D_a], in place of trajectories."""
    model = policy.specification.model
    sampler, start = _sampler(policy)
    pictures = any(spec.is_picture for spec in sampler.observations.values())
    batch = min(PICTURE_BATCH if pictures else BATCH, len(windows))
    stages, generator = sampler.engine(batch), torch.Generator().manual_seed(seed)
    signal, noise = make_levels(model.schedule, model.train_timesteps)[start]
    if model.objective in WITHOUT_NOISE:
        signal = noise = 0.0
    found = torch.empty(len(windows), 1, *sampler.noise_shape(1)[2:])
    with progress_bar(total=len(windows), desc="chunks", unit="chunk") as bar:
        for index in torch.arange(len(windows)).split(batch):
            observations, actions, _ = gather(windows, index)
            z = torch.randn(actions.shape, generator=generator)
            x = signal * actions.float() + noise * z
            found[index, 0] = stages(stages.encode(observations), x[None])
            bar.update(len(index))
    return replace(windows, trajectories=found.numpy())


def _sampler(policy: Checkpoint) -> tuple[Policy, int]:
    """The chain that makes chunks, and the timestep that it starts from.

    From the middle of the process. A distilled student starts at its second timestep, and a policy
    without noise has its own chain.
    """
    specification = policy.specification
    model, middle = specification.model, specification.model.train_timesteps // 2
    if model.objective in WITHOUT_NOISE:
        return Policy(policy), middle
    if model.objective == "distilled":
        start = max(specification.schedules, key=len)[-1]
        return Policy(policy, Sampling(grid=str(start))), start
    steps = min(CHAIN_STEPS, middle + 1)
    return Policy(policy, Sampling(steps, grid="trailing", start=middle)), middle


def fit(policy: Checkpoint, windows: Windows, steps: int, seed: int) -> dict[str, Tensor]:
    """Weights of a head after so many steps of Adam on windows with chunks, a cosine to zero."""
    generator = torch.Generator().manual_seed(seed)
    weights = head.new_weights(policy.specification, generator)
    for weight in weights.values():
        weight.requires_grad_()
    optimiser = torch.optim.Adam(weights.values(), lr=LR)
    seen = _vectors(windows, policy)
    with progress_bar(total=steps, desc="correction", unit="step") as bar:
        for step in range(steps):
            optimiser.param_groups[0]["lr"] = LR * (1 + math.cos(math.pi * step / steps)) / 2
            index = torch.randint(len(seen), (PAIRS,), generator=generator)
            given, wanted = pairs(seen, index, generator)
            loss = (head.evaluate(weights, given) - wanted).square().mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            bar.update()
    return {name: weight.detach() for name, weight in weights.items()}


def pairs(windows: Windows, index: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Inputs [B, C] of the head and the changes [B, D_a] that it is to make, normalised.

    windows: of vectors, as tensors, with chunks. The row i in a chunk is uniform over those within
    the episode. The observation is that of the tick before the action's.
    """
    newest, first, last = (x[index] for x in (windows.newest, windows.first, windows.last))
    usable = windows.horizons.usable
    count = (last - newest + 1).clamp(max=usable)
    row = (torch.rand(len(index), generator=generator) * count).long().minimum(count - 1)
    seen = (newest + row - 1)[:, None] + windows.history
    seen = seen.clamp(first[:, None], last[:, None])
    histories = [x[seen] for x in windows.observations.values()]
    action = windows.trajectories[index, 0, windows.horizons.observation - 1 + row]
    given = head.inputs(histories, action, row, usable)
    return given, windows.actions[newest + row] - action


def _vectors(windows: Windows, policy: Checkpoint) -> Windows:
    """The windows as tensors, without pictures."""
    keys = head.observed_keys(policy.specification)
    observations = {k: np.asarray(windows.observations[k], np.float32) for k in keys}
    actions = np.asarray(windows.actions, np.float32)
    return replace(windows, observations=observations, actions=actions).to("cpu")


def _held_out(
    prepared: Prepared, policy: Checkpoint, weights: dict[str, Tensor], seed: int
) -> tuple[float, float] | None:
    """Root mean squared distance of actions to those of held-out episodes: chunks', corrected."""
    if prepared.validation is None:
        return None
    windows = _with_chunks(repeated(prepared.validation, VALIDATION_CHUNKS), policy, seed)
    generator = torch.Generator().manual_seed(seed)
    given, wanted = pairs(_vectors(windows, policy), torch.arange(len(windows)), generator)
    errors = wanted, head.evaluate(weights, given) - wanted
    before, after = (float(error.square().mean().sqrt()) for error in errors)
    return before, after
