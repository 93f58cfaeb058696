"""The defaults of a policy's making: network, sampling, training, recording. No torch here.

Each field's help stands under it. The options of evaluation are in eval/config.py.
"""

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional

from diffpolicy.checked import NOT_EMPTY, Checked, Range

WIDTH = Range(1, 65_536)
DIMENSIONS = Range(1, 10**7)  # of an observation or an action
LEVEL = Range(0, 9_999)  # a timestep of the longest chain
HORIZON = Range(1, 10_000)  # control ticks
CONTROL_DT = Range(1e-6, 1e6)  # seconds
STEPS = Range(1, 10**9)
MINUTES = Range(1e-6, 1e6)
EPISODES = Range(1, 10**6)
TICKS = Range(1, 10**7)
SEED = Range(0, 2**62)  # seeds count up, and stay in 64 bits
THREADS = Range(1, 1024)


@dataclass(frozen=True)
class ModelConfig(Checked):
    """The network and the diffusion it was trained for; stored in every checkpoint."""

    denoiser: Literal["mlp", "unet", "concat", "plain"] = "mlp"
    """Residual FiLM MLP, the 1D UNet of Diffusion Policy, Edifice's MLP, or a plain one."""
    hidden: Annotated[int, WIDTH] = 256
    """MLPs: width of the residual stream."""
    blocks: Annotated[int, Range(1, 1000)] = 4
    """MLPs: number of residual blocks."""
    condition: Annotated[int, WIDTH] = 128
    """Width of the time embedding (and of the MLP's observation embedding)."""
    unet_channels: Annotated[tuple[int, ...], WIDTH, NOT_EMPTY] = (64, 128, 256)
    """UNet: channels of each level; 256 512 1024 with --condition 256 is the paper's 65 M."""
    unet_kernel: Annotated[int, Range(1, 1000)] = 5
    """UNet: kernel size in ticks."""
    unet_groups: Annotated[int, WIDTH] = 8
    """UNet: groups of its GroupNorm."""
    train_timesteps: Annotated[int, Range(1, 10_000)] = 100
    """T, the length of the diffusion chain."""
    schedule: Literal["squaredcos", "linear", "scaled_linear"] = "squaredcos"
    """How noise grows with the timestep."""
    prediction: Literal["epsilon", "x0", "v"] = "epsilon"
    """What the network predicts."""
    clip: bool = True
    """Clip the predicted clean actions to the range seen in training."""
    regression: bool = False
    """No diffusion: the same network, asked once for the mean chunk. The zero-step baseline."""
    normalizer: Literal["limits", "gaussian"] = "limits"
    """Map data to [-1, 1] by its extremes, or to mean 0 and deviation 1."""


@dataclass(frozen=True)
class Sampling(Checked):
    """How an action chunk is sampled; a policy has one."""

    ddim_steps: int | None = None
    """Denoising steps a chunk; by default 10, and 0 for a regression policy, which has none."""
    grid: str = "trailing"
    """Which timesteps: trailing, leading, linspace, loop, quadratic, or a list like 85,20."""
    start: Annotated[int | None, LEVEL] = None
    """The timestep that a named grid starts from; by default the chain's last, T - 1."""
    end: Annotated[int, LEVEL] = 0
    """The lowest timestep that a named grid may use."""
    eta: Annotated[float, Range(0, 1)] = 0.0
    """0 is DDIM, 1 ancestral sampling."""
    noise_scale: Annotated[float, Range(0, 1000)] = 1.0
    """Multiplies the noise that η > 0 injects."""
    clip: Annotated[float | None, Range(0, 1e6)] = None
    """Keep the predicted clean actions in ± this (normalised); by default as trained, 0 for no."""


def sampling_of(config: Sampling) -> Sampling:
    """The part of a command's configuration that says how to sample."""
    return Sampling(**{f.name: getattr(config, f.name) for f in fields(Sampling)})


@dataclass(frozen=True)
class TrainConfig(ModelConfig):
    """Train a policy from a store of demonstrations."""

    data: Path = field(kw_only=True)
    """Store of demonstrations (zarr)."""
    out: Path = field(kw_only=True)
    """Run folder to write."""
    env: str | None = None
    """Gymnasium id (module:Name-v0); by default the one that the store names."""
    env_kwargs: str | None = None
    """JSON object of keyword arguments for the environment; by default the store's."""
    obs: tuple[str, ...] = ()
    """Arrays of the store that make the observation, in this order; by default its `observation`,
    else what the environment maps."""
    control_dt: Annotated[float | None, CONTROL_DT] = None
    """Seconds between two actions, where neither store nor environment says."""
    position_targets: bool | None = None
    """Whether actions are position targets, where the environment does not say."""
    observation_horizon: Annotated[int, HORIZON] = 2
    """T_o."""
    prediction_horizon: Annotated[int | None, HORIZON] = None
    """T_p; by default 16, and 24 at 50 Hz and faster."""
    action_horizon: Annotated[int | None, HORIZON] = None
    """T_a; by default 8, and 2 at 50 Hz and faster."""
    steps: Annotated[int | None, STEPS] = None
    """Optimiser steps; 20,000 unless --minutes is given. The learning rate falls to zero over them,
    so a run that is resumed to another number follows another curve than one that began with it."""
    minutes: Annotated[float | None, MINUTES] = None
    """Train for this long instead of a number of steps."""
    batch: Annotated[int, Range(1, 10**6)] = 256
    """Windows a step."""
    lr: Annotated[float, Range(1e-12, 100)] = 1e-3
    """Peak learning rate of AdamW: 500 steps of warm-up, then a cosine to zero."""
    weight_decay: Annotated[float, Range(0, 100)] = 1e-6
    """AdamW's weight decay."""
    validation_fraction: float = 0.05
    """Share of the episodes held out for the validation loss."""
    seed: Annotated[int, SEED] = 0
    """Seed of weights, split and every draw of training."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to train; auto takes CUDA where there is some."""
    threads: Annotated[int | None, THREADS] = None
    """CPU threads for torch; by default all cores."""
    resume: bool = False
    """Go on with the run in --out, to its own target unless --steps or --minutes gives another; the
    learning rate then follows the cosine to the new target from here on."""
    action: str = "action"
    """Array of the store that holds the actions."""


@dataclass(frozen=True)
class RecordConfig(Checked):
    """Record demonstrations: run an expert, keep the successes."""

    env: str
    """Gymnasium id (module:Name-v0)."""
    episodes: Annotated[int, EPISODES]
    """How many successful episodes the store shall hold."""
    out: Path
    """Store to write, or to go on with."""
    env_kwargs: str | None = None
    """JSON object of keyword arguments for the environment."""
    policy: str | None = None
    """module:function with function(observation) -> action; by default the environment's expert."""
    success_from: str | None = None
    """Key of `info` that says success (a bool, 0 or 1; a list stands for its length), or a
    condition such as key>0.5; by default success, is_success, task_completions, or that no
    tasks_to_complete are left. Where the key is absent, success has not come yet."""
    control_dt: Annotated[float | None, CONTROL_DT] = None
    """Seconds between two actions, where the environment does not say."""
    max_steps: Annotated[int | None, TICKS] = None
    """Ticks an episode; by default the environment's own limit."""
    seed: Annotated[int, SEED] = 0
    """Seed of the first episode; the next ones count up."""
    success: str = "at-any-tick"
    """When an episode succeeds: at-any-tick, at-end, or held:N ticks in a row."""


@dataclass(frozen=True)
class InfoConfig(Checked):
    """Say what a store of demonstrations or a run folder holds."""

    path: Positional[Path]
    """Store or run folder."""
