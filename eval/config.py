"""Configuration dataclasses of the commands of evaluation: defaults, ranges and help texts."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from diffpolicy.checked import NOT_EMPTY, Checked, Range
from diffpolicy.config import (
    EPISODES,
    LEVEL,
    SEED,
    THREADS,
    Device,
    Place,
    Sampling,
)
from diffpolicy.errors import DiffpolicyError

from .output_config import OutputConfig
from .policy_option import check_policy
from .videos.config import EvalVideos, SweepVideos
from .world_config import EngineName, Precision, WorldConfig

NetName = Literal[
    "unet-large",
    "unet-small",
    "unet-large-image",
    "unet-small-image",
    "edifice",
    "mlp",
    "default",
]
ClockName = Literal["paused", "simulated", "wall"]
MILLISECONDS = Range(0, 1e7)
SECONDS = Range(1e-6, 1e6)
DELAY = Range(0, 10**6)  # control ticks
SOURCES = ("ms_per_step", "latency_ms", "latency_ticks", "latency_from")


@dataclass(frozen=True)
class TaskConfig(WorldConfig):
    """Episodes, and the processes that run them."""

    episodes: Annotated[int, EPISODES] = 100
    """Episodes for each budget and clock; every episode counts."""
    envs: Annotated[int, Range(1, 4096)] = 64
    """Environments in each worker process."""
    workers: Annotated[int | None, Range(1, 1024)] = None
    """Worker processes; by default one for each core (at least 50 episodes each), or one on a GPU.
    Results are identical for any number."""
    batch: Annotated[int, Range(1, 16_384)] = 64
    """Fixed size to which the batch of a policy call is padded, so that results repeat; rounded up
    to a multiple of 16."""
    threads: Annotated[int | None, THREADS] = None
    """CPU threads of PyTorch while latency is measured; by default one for each core. Each worker
    runs its episodes on one thread."""
    cold_start: bool = False
    """Include the latency of the first chunk, instead of computing it before tick 0."""
    on_env_error: Literal["stop", "fail-episode"] = "stop"
    """Reaction to an environment that raises, ends its process or exceeds --step-timeout. stop:
    keep the finished episodes; the same command continues. fail-episode: count the episode as
    failed."""
    step_timeout: Annotated[float | None, SECONDS] = None
    """Time limit in seconds of one reset or step of the environment; by default none."""


@dataclass(frozen=True)
class Latencies(Checked):
    """Latencies of the simulated clock: measured here, unless one of these options is given."""

    ms_per_step: Annotated[float | None, MILLISECONDS] = None
    """Declared latency of each denoising step, in milliseconds."""
    latency_ms: Annotated[float | None, MILLISECONDS] = None
    """Declared latency of each chunk, in milliseconds, for every budget."""
    latency_ticks: Annotated[int | None, DELAY] = None
    """Declared latency of each chunk, in control ticks, for every budget."""
    latency_from: Path | None = None
    """Latency profile to replay: a file of `latency --json`, of `offline`, or of `eval --json` on
    the wall clock, from this or another computer."""
    latency_seconds: Annotated[float, SECONDS] = 5.0
    """Longest time in seconds to measure the latency of each budget."""

    def __post_init__(self):
        super().__post_init__()
        given = [name for name in SOURCES if getattr(self, name) is not None]
        if len(given) > 1:
            options = " and ".join("--" + name.replace("_", "-") for name in given)
            raise DiffpolicyError(f"give one source of latencies, not {options}")


@dataclass(frozen=True)
class EvalConfig(OutputConfig, EvalVideos, Latencies, Sampling, TaskConfig):
    """Evaluate one step budget in closed loop."""

    clock: ClockName = "paused"
    """paused: zero latency. simulated: actions are late by the latency. wall: real time."""
    json: Path | None = None
    """File for the result; - prints it, and nothing else, to the standard output."""


@dataclass(frozen=True)
class LatencyConfig(OutputConfig):
    """Measure the latency of one control step (batch size 1) for each step budget."""

    run: Path | None = None
    """Run folder, or a policy.safetensors in it."""
    net: NetName | None = None
    """Network of a well-known size with fresh weights, instead of a run. -image: with the two
    newest pictures of one 96 × 96 camera, encoded by a ResNet-18 (large) or the cnn (small)."""
    policy: str | None = None
    """module:factory instead of a run: factory(steps) makes a policy of any kind, see
    eval/POLICIES.md; it is given the first observation of --env."""
    env: str | None = None
    """With --policy: Gymnasium id of the environment."""
    env_kwargs: str | None = None
    """With --policy: keyword arguments of the environment, as a JSON object."""
    ddim_steps: Annotated[tuple[int, ...], NOT_EMPTY] = (1, 2, 4, 8, 16, 32, 100)
    """Step budgets."""
    sampler: str = "ddim"
    """Sampling method: ddim, dpm++, unipc, heun or midpoint."""
    grid: str | None = None
    """Named timestep grid; by default that of the run."""
    engine: Annotated[tuple[EngineName, ...], NOT_EMPTY] = ("auto",)
    """Engines to measure, interleaved."""
    precision: Precision = "float32"
    """Precision of the network. tf32: cuda-graph only. bfloat16: eager, compiled and cuda-graph."""
    late: str = "drop"
    """Strategy for late chunks, as in `eval`: the latency is that of a chunk with a plan."""
    baseline: Literal["diffusers"] | None = None
    """Loop to measure as well, with the same weights, and to print ratios to."""
    deadline_ms: Annotated[float | None, Range(1e-6, 1e9)] = None
    """Deadline in milliseconds; the largest budget that meets it is printed. By default the
    control period of the environment."""
    stress: bool = False
    """Keep all other cores busy during the measurement."""
    seconds: Annotated[float, SECONDS] = 5.0
    """Longest time in seconds to measure each budget."""
    device: Device = "auto"
    """Device of the policy; auto uses CUDA if it is available."""
    threads: Annotated[int | None, THREADS] = None
    """CPU threads of PyTorch; by default one for each core."""
    seed: Annotated[int, SEED] = 0
    """Seed of the order of the measurements."""
    json: Path | None = None
    """File for the result with all samples: a latency profile for --latency-from; - prints it, and
    nothing else, to the standard output."""

    def __post_init__(self):
        super().__post_init__()
        if [self.run, self.net, self.policy].count(None) != 2:
            raise DiffpolicyError(
                "expected either --run RUN or --net NAME or --policy module:factory"
            )
        if self.policy is not None:
            check_policy(self)
            if self.late != "drop":
                raise DiffpolicyError("--late is for the network of --run or --net, not --policy")
        elif self.env is not None or self.env_kwargs is not None:
            raise DiffpolicyError("--env belongs to --policy; a run or a net has its observations")


@dataclass(frozen=True)
class Combinations(Checked):
    """Budgets: all combinations of steps and other options of sampling, of one or several runs."""

    runs: tuple[Path, ...] = ()
    """Several run folders of one task, instead of --run; each contributes its own budgets, else
    --ddim-steps, and the name of its folder to their names."""
    ddim_steps: Annotated[tuple[int, ...], NOT_EMPTY] = (1, 2, 4, 8, 16, 32, 100)
    """Step budgets."""
    grid: tuple[str, ...] = ()
    """Timestep grids: trailing, leading, linspace, loop, quadratic, lambda, karras, optimised, or
    lists such as 85,20; by default that of the run."""
    start: Annotated[tuple[int, ...], LEVEL] = ()
    """First timesteps of a named grid; by default T - 1, or 10/11 of it for lambda and karras."""
    end: Annotated[tuple[int, ...], LEVEL, NOT_EMPTY] = (0,)
    """Lowest timesteps of a named grid."""
    eta: Annotated[tuple[float, ...], Range(0, 1), NOT_EMPTY] = (0.0,)
    """Stochasticity η: 0 is DDIM, 1 is ancestral (DDPM) sampling."""
    noise_scale: Annotated[tuple[float, ...], Range(0, 1000), NOT_EMPTY] = (1.0,)
    """Factors on the noise injected if η > 0."""
    start_scale: Annotated[tuple[float, ...], Range(0, 1000), NOT_EMPTY] = (1.0,)
    """Factors κ on the noise that sampling starts from."""
    clip: Annotated[tuple[float, ...], Range(0, 1e6)] = ()
    """Limits ± of the predicted clean actions, in normalised units; by default as in training. 0
    disables clipping."""
    sampler: Annotated[tuple[str, ...], NOT_EMPTY] = ("ddim",)
    """Sampling methods: ddim, dpm++ (2M; its stochastic form if η > 0), unipc, heun, or midpoint
    for flow matching."""
    late: Annotated[tuple[str, ...], NOT_EMPTY] = ("drop",)
    """Strategies for late chunks (see `diffpolicy eval --help`). With --runs, a run that does not
    fit a strategy is left out of it, and told."""


@dataclass(frozen=True)
class SweepConfig(OutputConfig, SweepVideos, Latencies, Combinations, TaskConfig):
    """Evaluate step budgets in closed loop, compare them and recommend one.

    Several runs, budgets, samplers, grids, starts, ends, η, noise scales, κ, clips and strategies
    for late chunks are all combined.
    """

    clocks: Annotated[tuple[ClockName, ...], NOT_EMPTY] = ("paused", "simulated")
    """paused: zero latency. simulated: actions are late by the latency. wall: real time."""
    regression: str = "auto"
    """Run folder of a regression policy (train --objective regression) with the same data and
    network, to compare with. auto: RUN/regression if it exists. none: no comparison. With --runs it
    is one of the runs."""
    ddpm: bool = True
    """Evaluate ancestral (DDPM) sampling with all T steps of --run as well; not with --runs."""
    margin: Annotated[float, Range(1e-6, 1e6)] = 0.05
    """Margin of non-inferiority: loss of success (or score) that is still acceptable."""
    floor: Annotated[float, Range(0, 1e6)] = 0.5
    """Least success (or score) of the best budget for a recommendation."""
    outcome: Literal["auto", "success", "score"] = "auto"
    """Outcome to compare; auto uses the score if every budget succeeds in less than half of the
    episodes."""
    plan: bool = False
    """Only print the number of episodes that the margin needs, by the share of discordant pairs
    (episodes where exactly one of two budgets succeeds)."""
    out: Path | None = None
    """Folder for sweep.json and report.html; by default sweep in the run folder, with --policy or
    --runs in the current one."""
    json: Literal["-"] | None = None
    """Print the result as JSON too, and nothing else, to the standard output."""
    pictures: bool = True
    """Add pictures of episodes to the report."""
    accept_disturbed: bool = False
    """Recommend also from latencies that other processes disturbed."""
    on: Place = "local"
    """local: this computer. ray: the machines of a Ray cluster, in jobs of 50 episodes. Latencies
    are not measured there: give them, or --latency-from a file."""

    def __post_init__(self):
        super().__post_init__()
        if self.on == "ray":
            self._check_ray()
        if self.runs and self.regression not in ("auto", "none"):
            raise DiffpolicyError("--regression belongs to --run; add that run to --runs")

    def _check_ray(self) -> None:
        if "wall" in self.clocks:
            raise DiffpolicyError("--clocks wall needs this computer; expected --on local")
        if all(getattr(self, name) is None for name in SOURCES):
            raise DiffpolicyError(
                "--on ray measures no latencies, because other jobs share its machines; measure "
                "them with diffpolicy latency --json FILE and give --latency-from FILE, or declare "
                "them with --ms-per-step"
            )
