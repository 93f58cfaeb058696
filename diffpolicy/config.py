"""Configuration dataclasses of the library, with their defaults, ranges and help texts.

The help text of a field is the string below it. The options of evaluation are in eval/config.py.
This module does not import torch.
"""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional

from diffpolicy.checked import NOT_EMPTY, Checked, Range
from diffpolicy.errors import DiffpolicyError

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
CAMERA = Range(8, 4096)  # px
BATCH, PICTURE_BATCH = 256, 64  # windows of a training step
Device = Literal["auto", "cpu", "cuda"]
Place = Literal["local", "ray"]  # of jobs
Objective = Literal["denoising", "regression", "mip", "distilled"]
Normalization = Literal["limits", "gaussian"]


@dataclass(frozen=True)
class ModelConfig(Checked):
    """Network and diffusion process; stored in every checkpoint."""

    denoiser: Literal["mlp", "unet", "concat", "plain"] = "mlp"
    """Network: mlp (residual, FiLM), unet (1D, of Diffusion Policy), concat (Edifice's MLP),
    plain."""
    hidden: Annotated[int, WIDTH] = 256
    """MLPs: width of the residual stream."""
    blocks: Annotated[int, Range(1, 1000)] = 4
    """MLPs: number of residual blocks."""
    condition: Annotated[int, WIDTH] = 128
    """Width of the time embedding, and of the observation embedding of the MLPs."""
    unet_channels: Annotated[tuple[int, ...], WIDTH, NOT_EMPTY] = (64, 128, 256)
    """UNet: channels of each level. 256 512 1024 with --condition 256 are the paper's 65 M."""
    unet_kernel: Annotated[int, Range(1, 1000)] = 5
    """UNet: kernel size in control ticks."""
    unet_groups: Annotated[int, WIDTH] = 8
    """UNet: number of groups of GroupNorm."""
    train_timesteps: Annotated[int, Range(1, 10_000)] = 100
    """Number T of timesteps of the diffusion process."""
    schedule: Literal["squaredcos", "linear", "scaled_linear", "flow"] = "squaredcos"
    """Noise schedule; flow is that of flow matching, x = (1 - u) x0 + u ε."""
    prediction: Literal["epsilon", "x0", "v", "velocity"] = "v"
    """Prediction target: the noise ε, the clean actions x0, v (a mixture of the two that serves few
    steps and many), or the velocity ε - x0 of flow matching."""
    clip: bool = True
    """Clip the predicted clean actions to the range of the training data."""
    objective: Objective = "denoising"
    """Objective of training. denoising: diffusion, or flow matching. regression: the same network
    without diffusion predicts the mean chunk in one evaluation. mip: two evaluations without noise
    (arXiv 2512.01809). distilled: made by `distill` alone."""
    mip_timestep: Annotated[int, LEVEL] = 5
    """MIP: timestep of the second evaluation."""
    time_sampling: Literal["uniform", "logit-normal", "beta"] = "uniform"
    """Timesteps that training draws: uniform, logit-normal(0, 1) (arXiv 2403.03206), or
    Beta(1.5, 1), with more noise."""
    prefix_max: Annotated[int, Range(0, 100)] = 0
    """Condition on up to so many committed actions, those that will be executed before a late chunk
    arrives (--late prefix). 0: none."""
    normalizer: Normalization = "limits"
    """limits: scale the data to [-1, 1]. gaussian: to mean 0 and standard deviation 1."""
    encoder: Literal["cnn", "resnet18", "resnet18-folded"] = "cnn"
    """Pictures: network that encodes them; cnn is small and trains on a CPU. resnet18-folded has no
    norms and is for imported policies."""
    keypoints: Annotated[int, Range(0, 4096)] = 32
    """Pictures: keypoints of the spatial softmax, each with x and y; 0 is the average over all
    places instead."""
    share_encoder: bool = False
    """Pictures: one encoder for all cameras; by default one for each."""
    crop: Annotated[float, Range(0.1, 1)] = 0.875
    """Pictures: share of each side that is kept, at random in training, the centre in control."""

    @property
    def regression(self) -> bool:
        """True for a network that was trained without diffusion to predict the mean chunk."""
        return self.objective == "regression"

    def __post_init__(self):
        super().__post_init__()
        noisy = self.objective in ("denoising", "distilled")
        if self.schedule == "flow" and self.prediction == "v" and noisy:
            raise DiffpolicyError(
                "--prediction v is for schedules with a² + b² = 1, unlike flow; try --prediction "
                "velocity"
            )


@dataclass(frozen=True)
class Sampling(Checked):
    """Sampling of an action chunk: step budget, timestep grid, η and clipping."""

    ddim_steps: int | None = None
    """Denoising steps for each chunk; by default 10, 0 for a regression policy, 2 for MIP and for a
    distilled policy."""
    grid: str | None = None
    """Timestep grid: trailing, leading, linspace, loop, quadratic, lambda, karras, optimised, or a
    list such as 85,20; by default that of the run: trailing, unless imported or distilled."""
    start: Annotated[int | None, LEVEL] = None
    """First timestep of a named grid; by default T - 1, or 10/11 of it for lambda and karras."""
    end: Annotated[int, LEVEL] = 0
    """Lowest timestep of a named grid."""
    eta: Annotated[float, Range(0, 1)] = 0.0
    """Stochasticity η: 0 is DDIM, 1 is ancestral (DDPM) sampling."""
    noise_scale: Annotated[float, Range(0, 1000)] = 1.0
    """Factor on the noise injected if η > 0."""
    clip: Annotated[float | None, Range(0, 1e6)] = None
    """Clip the predicted clean actions to ± this value, in normalised units; by default as in
    training. 0 disables clipping."""
    sampler: str = "ddim"
    """Sampling method: ddim, dpm++ (2M; its stochastic form if η > 0), unipc, heun, or midpoint for
    flow matching."""
    start_scale: Annotated[float, Range(0, 1000)] = 1.0
    """Factor κ on the noise that sampling starts from."""
    late: str = "drop"
    """Strategy for late chunks. drop: leave out their stale head. ensemble: a chunk at every tick,
    and the mean of all. warm:T:K: start from the planned actions with the noise of timestep T, and
    take K steps. prefix: condition on the committed actions (train --prefix-max). guided,
    guided:prior: draw the chunk to the plan with gradients. prefix and guided take :oracle after
    them, to know the true delay. correct: a head corrects every action (train-correction). cut:MS:
    on the wall clock, go on over fewer steps where a chain would last longer than MS."""


def sampling_of(config: Sampling) -> Sampling:
    """Sampling options of a command's configuration."""
    return Sampling(**{f.name: getattr(config, f.name) for f in fields(Sampling)})


@dataclass(frozen=True)
class RecordConfig(Checked):
    """Record the successful episodes of an expert, or a person, in a store of demonstrations."""

    env: str
    """Gymnasium id (module:Name-v0)."""
    episodes: Annotated[int, EPISODES]
    """Number of successful episodes to record."""
    out: Path
    """Store to write, or to continue."""
    env_kwargs: str | None = None
    """Keyword arguments of the environment, as a JSON object."""
    policy: str | None = None
    """module:function, a function observation -> action; by default the expert of the
    environment."""
    success_from: str | None = None
    """Key of `info` that is true on success (a bool, 0 or 1; a list counts as its length), or a
    condition such as key>0.5, or return>100 of the rewards so far; by default success, is_success,
    task_completions or an empty tasks_to_complete. An absent key is no success."""
    control_dt: Annotated[float | None, CONTROL_DT] = None
    """Control period in seconds, if the environment does not declare it."""
    max_steps: Annotated[int | None, TICKS] = None
    """Longest episode in control ticks; by default the limit of the environment."""
    seed: Annotated[int, SEED] = 0
    """Seed of the first episode; each further episode adds 1."""
    success: str = "at-any-tick"
    """Rule of success: at-any-tick, at-end, or held:N for N ticks in a row."""
    camera: Annotated[int | None, CAMERA] = None
    """Add the environment's picture to its observation as `pixels`: its side in px."""
    teleop: bool = False
    """Record a person: a window shows the environment, and mouse or arrow keys move the cursor that
    it follows. SPACE starts and pauses, S saves the episode here or one without success, U takes
    the last one back, D discards the running one, Q quits. Episodes with success are kept by
    themselves, others only by S. The last one is written when the next starts, or at the end, also
    by Ctrl-C."""


@dataclass(frozen=True)
class InfoConfig(Checked):
    """Print the contents of demonstrations or of a run folder."""

    path: Positional[Path]
    """Store, data set in another format, or run folder."""
    plot: Path | None = None
    """Demonstrations: draw a picture of them to this file, PNG, PDF or SVG by its suffix."""
    env: str | None = None
    """Demonstrations: Gymnasium id of the environment whose action space is drawn; by default that
    of the data, if it is one of diffpolicy's or Gymnasium's own."""
    json: Path | None = None
    """Run: file for its whole specification; - prints it, and nothing else, to the standard
    output."""
