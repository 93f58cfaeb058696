"""Options of the commands that train."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from diffpolicy.checked import Checked, Range
from diffpolicy.config import (
    CAMERA,
    CONTROL_DT,
    EPISODES,
    HORIZON,
    MINUTES,
    SEED,
    STEPS,
    THREADS,
    Device,
    ModelConfig,
    Place,
)

SEED_FOLDER = "seed-"  # of a run of --seeds, before the seed
# Options of runs older than these.
ABSENT = {"beta2": 0.999, "observation_noise": 0.0, "mirror": "off"}


@dataclass(frozen=True)
class TrainConfig(ModelConfig):
    """Train a policy from a store of demonstrations."""

    data: Path = field(kw_only=True)
    """Demonstrations: a store, or a data set in another format."""
    out: Path = field(kw_only=True)
    """Run folder to write."""
    env: str | None = None
    """Gymnasium id (module:Name-v0), or none to train from the store alone; by default the one in
    the store."""
    env_kwargs: str | None = None
    """Keyword arguments of the environment, as a JSON object; by default those in the store."""
    obs: tuple[str, ...] = ()
    """Arrays of the store that are joined to the observation, in this order; by default
    `observation`, or the arrays that the environment maps. With pictures: keys of the environment,
    each encoded by itself; by default all. With --env none: the keys that the policy observes, by
    name; by default all arrays but actions and outcomes."""
    control_dt: Annotated[float | None, CONTROL_DT] = None
    """Control period in seconds, if neither the store nor the environment declares it."""
    position_targets: bool | None = None
    """True if actions are position targets, if neither the store nor the environment declares
    it."""
    observation_horizon: Annotated[int, HORIZON] = 2
    """Number T_o of observations that the policy receives."""
    prediction_horizon: Annotated[int | None, HORIZON] = None
    """Number T_p of predicted actions; by default 16, or 24 from 50 Hz on."""
    action_horizon: Annotated[int | None, HORIZON] = None
    """Number T_a of executed actions; by default 8, or 2 from 50 Hz on."""
    steps: Annotated[int | None, STEPS] = None
    """Optimiser steps; by default 20,000, unless --minutes is given. The learning rate reaches
    zero at the last step, so resuming with another number changes the learning-rate curve."""
    minutes: Annotated[float | None, MINUTES] = None
    """Training time in minutes, instead of a number of steps."""
    batch: Annotated[int | None, Range(1, 10**6)] = None
    """Windows in each optimiser step; by default 256, or 64 with pictures. The processes of
    torchrun share them equally."""
    lr: Annotated[float, Range(1e-12, 100)] = 2e-3
    """Peak learning rate of AdamW, after 500 steps of warm-up; then a cosine to zero."""
    beta2: Annotated[float, Range(0, 0.999999)] = 0.99
    """Decay of AdamW's mean of squared gradients in each step."""
    weight_decay: Annotated[float, Range(0, 100)] = 0.1
    """Weight decay of AdamW."""
    observation_noise: Annotated[float, Range(0, 10)] = 0.0
    """Standard deviation of a displacement of the observed vectors in training, in units of
    normalised data; the same for all observations of a window."""
    mirror: Literal["auto", "off"] = "auto"
    """auto: train on the mirror images of the demonstrations too, where the environment declares a
    symmetry of its task (PushT-v0 does); observations must be without pictures. off: never."""
    validation_fraction: float = 0.05
    """Fraction of the episodes used for the validation loss only."""
    seed: Annotated[int, SEED] = 0
    """Seed of the weights, the validation split and the batches."""
    seeds: Annotated[tuple[int, ...], SEED] = ()
    """Several seeds, instead of --seed: a run OUT/seed-K for each, for sweep --runs OUT."""
    device: Device = "auto"
    """Device to train on; auto uses CUDA if it is available."""
    threads: Annotated[int | None, THREADS] = None
    """CPU threads of PyTorch; by default one for each core. Under torchrun, of each process, and
    with --on ray, of each run: by default one."""
    on: Place = "local"
    """local: this computer. ray: the machines of a Ray cluster, a job for each run."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Precision of the network's products in training; weights and sampling stay float32. auto:
    bfloat16 where a measurement at the start finds it faster, in runs of 1,000 steps or a minute at
    least."""
    compile: Literal["auto", "off"] = "auto"
    """auto: compile the network's call with torch.compile where the rest of the run takes 20
    minutes at least, and use it if a measurement then finds it faster. Compilation takes one to
    some minutes before the training. off: never."""
    log: tuple[Literal["tensorboard", "wandb"], ...] = ()
    """Places for the log beside log.jsonl: tensorboard (RUN/tensorboard), wandb (Weights & Biases;
    WANDB_MODE=offline needs no account)."""
    eval_steps: Annotated[int | None, STEPS] = None
    """Evaluate in closed loop every so many optimiser steps, and at the end, in a process of its
    own beside the training; results go into the log. By default no evaluation."""
    eval_minutes: Annotated[float | None, MINUTES] = None
    """Evaluate in closed loop every so many minutes of training, instead of --eval-steps."""
    eval_episodes: Annotated[int, EPISODES] = 20
    """Episodes of each such evaluation, with seeds from 700,000 that no report uses."""
    eval_ddim_steps: Annotated[int | None, Range(0, 10_000)] = None
    """Denoising steps of such an evaluation; by default as in `eval`."""
    resume: bool = False
    """Continue the run in --out, to its own target unless --steps or --minutes gives another. With
    a new target, the learning rate follows the cosine to that target."""
    action: str = "action"
    """Array of the store that contains the actions."""
    encoder_weights: Path | None = None
    """Pictures: start every resnet18 from the convolutions of this safetensors file, which has
    torchvision's names. Its BatchNorm and fc are ignored: GroupNorm and keypoints replace them."""
    colour_jitter: Annotated[float, Range(0, 1)] = 0.0
    """Pictures: largest relative change of brightness, contrast and saturation in training."""
    camera: Annotated[int | None, CAMERA] = None
    """Add the environment's picture to its observation as `pixels`: its side in px; by default as
    in the store."""
    picture_memory: Annotated[float, Range(0, 1e6)] = 1.0
    """Most memory for pictures in GB; those of a larger store are read from disk in training."""

    @property
    def evaluates(self) -> bool:
        """True if the training is evaluated in closed loop on its way."""
        return self.eval_steps is not None or self.eval_minutes is not None


@dataclass(frozen=True)
class DistillConfig(Checked):
    """Train a student that makes in one or two evaluations the chunks of a run's whole chain."""

    run: Path
    """Run folder of the teacher: a diffusion policy. The student has its network and its data."""
    out: Path
    """Run folder to write."""
    teacher_steps: Annotated[int, Range(2, 10_000)] = 16
    """Steps of the teacher's chain, which injects no noise."""
    sampler: str = "ddim"
    """Sampling method of the teacher: ddim or dpm++."""
    data: Path | None = None
    """Demonstrations that the teacher was trained on; by default where they were then."""
    steps: Annotated[int | None, STEPS] = None
    """Optimiser steps; by default as many as the teacher had, unless --minutes is given."""
    minutes: Annotated[float | None, MINUTES] = None
    """Training time in minutes, without that of the pairs, instead of a number of steps."""
    device: Device = "auto"
    """Device to train on; auto uses CUDA if it is available."""
    threads: Annotated[int | None, THREADS] = None
    """CPU threads of PyTorch; by default one for each core."""
    resume: bool = False
    """Continue the run in --out, to its own target unless --steps or --minutes gives another."""


@dataclass(frozen=True)
class CorrectionConfig(Checked):
    """Train a head that corrects every action of a run's chunks by a newer observation."""

    run: Path
    """Run folder; the head is written into it, for --late correct."""
    data: Path | None = None
    """Demonstrations that the run was trained on; by default where they were then."""
    steps: Annotated[int, STEPS] = 5000
    """Optimiser steps."""
