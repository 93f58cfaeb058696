"""The defaults of evaluation, with one line of help each: one dataclass for each command."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional

from diffpolicy.checked import NOT_EMPTY, Checked, Range
from diffpolicy.config import CONTROL_DT, EPISODES, LEVEL, MINUTES, SEED, THREADS, TICKS, Sampling
from diffpolicy.errors import DiffpolicyError

EngineName = Literal["auto", "eager", "compiled", "native", "onnx", "cuda-graph"]
Precision = Literal["float32", "tf32", "bfloat16"]
ClockName = Literal["paused", "simulated", "wall"]
MILLISECONDS = Range(0, 1e7)
SECONDS = Range(1e-6, 1e6)
DELAY = Range(0, 10**6)  # control ticks
SOURCES = ("ms_per_step", "latency_ms", "latency_ticks", "latency_from")


@dataclass(frozen=True)
class TaskConfig(Checked):
    """How a trained run meets its environment."""

    run: Path
    """Run folder (or a policy.safetensors in it)."""
    env: str | None = None
    """Gymnasium id; by default the one it was trained for."""
    env_kwargs: str | None = None
    """JSON object of keyword arguments for the environment; by default those of training."""
    success_from: str | None = None
    """Key of `info` that says success (a bool, 0 or 1; a list stands for its length), or a
    condition such as key>0.5; by default success, is_success, task_completions, or that no
    tasks_to_complete are left. Where the key is absent, success has not come yet."""
    control_dt: Annotated[float | None, CONTROL_DT] = None
    """Seconds between two actions; by default those of training."""
    neutral: str | None = None
    """What a starved tick applies: hold, zero or a vector like 0,0.5; by default what the
    environment declares, else hold."""
    max_steps: Annotated[int | None, TICKS] = None
    """Ticks an episode; by default the environment's own limit."""
    episodes: Annotated[int, EPISODES] = 100
    """Episodes for each budget and clock, every one counted."""
    seed: Annotated[int, SEED] = 100_000
    """Seed of the first episode; the next ones count up."""
    envs: Annotated[int, Range(1, 4096)] = 64
    """Environments that run side by side, in each worker."""
    workers: Annotated[int | None, Range(1, 1024)] = None
    """Processes that run episodes; by default one for each core, from 50 episodes each on, and one
    beside a GPU. Results are the same with any number."""
    batch: Annotated[int, Range(1, 16_384)] = 64
    """Fixed, padded batch of a policy call, part of what makes results repeat; rounded up to a
    multiple of 16, where a row's result does not depend on its place."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the policy runs."""
    engine: EngineName = "auto"
    """What runs the denoising loop; auto takes the fastest that works here, and says which."""
    precision: Precision = "float32"
    """The network's: tf32 is for cuda-graph, bfloat16 for eager, compiled and cuda-graph."""
    threads: Annotated[int | None, THREADS] = None
    """CPU threads for torch where latency is measured; by default all cores. Episodes run on one in
    each worker."""
    cold_start: bool = False
    """Charge the first chunk's latency too, instead of computing it before tick 0."""
    success: str = "at-any-tick"
    """When an episode succeeds: at-any-tick, at-end, or held:N ticks in a row."""
    score_from: str | None = None
    """Key of `info` whose last value is the score of an episode, or return, the sum of its rewards;
    by default what the environment declares, else success as 0 or 1. Such a score need not lie
    in [0, 1]: --margin and --floor are in its units."""
    on_env_error: Literal["stop", "fail-episode"] = "stop"
    """An environment that raises, ends its process or hangs: stop, keeping finished episodes for
    the same command to go on with; or count that episode as a failure and make the environment
    anew."""
    step_timeout: Annotated[float | None, SECONDS] = None
    """Seconds that one reset or step of the environment may take; by default any time."""


@dataclass(frozen=True)
class Latencies(Checked):
    """What inference costs on the simulated clock: measured here, unless one of these is given."""

    ms_per_step: Annotated[float | None, MILLISECONDS] = None
    """Declare a robot with this many milliseconds a step."""
    latency_ms: Annotated[float | None, MILLISECONDS] = None
    """Every chunk takes this many milliseconds, whatever the budget."""
    latency_ticks: Annotated[int | None, DELAY] = None
    """Every chunk takes this many control ticks, whatever the budget."""
    latency_from: Path | None = None
    """Replay what `diffpolicy latency --json` (or eval --json on the wall clock) wrote, here or on
    another machine."""
    latency_seconds: Annotated[float, SECONDS] = 5.0
    """At most this long measuring the latency of each budget."""

    def __post_init__(self):
        super().__post_init__()
        given = [name for name in SOURCES if getattr(self, name) is not None]
        if len(given) > 1:
            options = " and ".join("--" + name.replace("_", "-") for name in given)
            raise DiffpolicyError(f"give one source of latencies, not {options}")


@dataclass(frozen=True)
class EvalConfig(Latencies, Sampling, TaskConfig):
    """Success of one step budget in closed loop."""

    clock: ClockName = "paused"
    """paused: the world waits. simulated: the latency ages the actions. wall: real time."""
    json: Path | None = None
    """Write the result here."""


@dataclass(frozen=True)
class LatencyConfig(Checked):
    """Latency of one control step for each budget, as a robot pays it (batch 1)."""

    run: Path | None = None
    """Run folder (or a policy.safetensors in it)."""
    net: Literal["unet-large", "unet-small", "edifice", "mlp", "default"] | None = None
    """Instead of a run: a network of a well-known size, with fresh weights."""
    ddim_steps: Annotated[tuple[int, ...], NOT_EMPTY] = (1, 2, 4, 8, 16, 32, 100)
    """Step budgets."""
    engine: Annotated[tuple[EngineName, ...], NOT_EMPTY] = ("auto",)
    """Engines to measure, interleaved."""
    precision: Precision = "float32"
    """The network's: tf32 is for cuda-graph, bfloat16 for eager, compiled and cuda-graph."""
    baseline: Literal["diffusers"] | None = None
    """Measure this loop too, on the same weights, and print the ratios to it."""
    deadline_ms: Annotated[float | None, Range(1e-6, 1e9)] = None
    """Name the largest budget that meets this; by default the environment's control tick."""
    stress: bool = False
    """Keep all other cores busy meanwhile."""
    seconds: Annotated[float, SECONDS] = 5.0
    """At most this long for each budget."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the policy runs."""
    threads: Annotated[int | None, THREADS] = None
    """CPU threads for torch; by default all cores."""
    seed: Annotated[int, SEED] = 0
    """Seed of the order of measurement."""
    json: Path | None = None
    """Write the result here, every sample included: a profile that `--latency-from` replays."""


@dataclass(frozen=True)
class DelaysConfig(Sampling, TaskConfig):
    """Success at constant delays of a chunk: what being late costs in this task."""

    ticks: Annotated[tuple[int, ...], DELAY, NOT_EMPTY] = (0, 1, 2, 3, 4)
    """Delays, in control ticks."""
    out: Path | None = None
    """Folder for delays.json and delays.png; by default delays/ in the run folder."""


@dataclass(frozen=True)
class DenoiseConfig(Checked):
    """Draw how an action chunk takes shape over the denoising steps."""

    run: Path
    """Run folder (or a policy.safetensors in it)."""
    out: Path = Path("denoise.gif")
    """GIF to write; a PNG strip of the same name is written beside it."""
    ddim_steps: Annotated[tuple[int, ...], NOT_EMPTY] = (2, 10)
    """Step budgets to set side by side."""
    grid: str = "trailing"
    """Which timesteps: trailing, leading, linspace, loop, quadratic, or a list like 85,20."""
    chunks: Annotated[int, Range(1, 1000)] = 16
    """Chunks drawn from different noise, for the same observation."""
    seed: Annotated[int, SEED] = 100_000
    """Seed of the observation (the first of its episode) and of the noise."""


@dataclass(frozen=True)
class SweepConfig(Latencies, TaskConfig):
    """Success and latency for each step budget, and the budget to use.

    Several grids, starts and so on are all combined with each other and with every budget.
    """

    ddim_steps: Annotated[tuple[int, ...], NOT_EMPTY] = (1, 2, 4, 8, 16, 32, 100)
    """Step budgets."""
    grid: Annotated[tuple[str, ...], NOT_EMPTY] = ("trailing",)
    """Which timesteps: trailing, leading, linspace, loop, quadratic, or lists like 85,20."""
    start: Annotated[tuple[int, ...], LEVEL] = ()
    """Timesteps that a named grid starts from; by default the chain's last, T - 1."""
    end: Annotated[tuple[int, ...], LEVEL, NOT_EMPTY] = (0,)
    """The lowest timesteps that a named grid may use."""
    eta: Annotated[tuple[float, ...], Range(0, 1), NOT_EMPTY] = (0.0,)
    """0 is DDIM, 1 ancestral sampling."""
    noise_scale: Annotated[tuple[float, ...], Range(0, 1000), NOT_EMPTY] = (1.0,)
    """Multiplies the noise that η > 0 injects."""
    clip: Annotated[tuple[float, ...], Range(0, 1e6)] = ()
    """Ranges of the predicted clean actions (normalised); by default as trained, 0 for none."""
    clocks: Annotated[tuple[ClockName, ...], NOT_EMPTY] = ("paused", "simulated")
    """paused: the world waits. simulated: the latency ages the actions. wall: real time."""
    regression: str = "auto"
    """Run of a regression policy (train --regression) with the same data and network: one row more,
    which every budget has to earn its cost against. auto: RUN/regression where it exists. none."""
    ddpm: bool = True
    """One row more: ancestral sampling over all T steps."""
    margin: Annotated[float, Range(1e-6, 1e6)] = 0.05
    """Loss of success (or score) that would still be accepted."""
    floor: Annotated[float, Range(0, 1e6)] = 0.5
    """No recommendation where the best budget stays below this."""
    outcome: Literal["auto", "success", "score"] = "auto"
    """What is compared; auto takes the score where no budget succeeds half of the time."""
    plan: bool = False
    """Only say how many episodes the margin needs."""
    out: Path | None = None
    """Folder for sweep.json and report.html; by default sweep/ in the run folder."""
    pictures: bool = True
    """Draw rollouts into the report."""
    accept_disturbed: bool = False
    """Recommend also from latencies that were measured while other processes were in the way."""


@dataclass(frozen=True)
class SuiteConfig(Checked):
    """One protocol over all of our tasks: demonstrations, training, all budgets, one report."""

    budget: Literal["quick", "full"] = "quick"
    """quick: two hours of two CPU cores. full: for a GPU, UNet and 500 episodes."""
    out: Path = Path("suite")
    """Folder to write; a second call goes on where the first one stopped."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where policies are trained and run."""
    threads: Annotated[int | None, THREADS] = None
    """CPU threads for torch; by default all cores."""


@dataclass(frozen=True)
class QuickstartConfig(Checked):
    """Record, train, sweep and report on Balance-v0, from nothing, in minutes."""

    out: Path = Path("quickstart")
    """Folder to write."""
    minutes: Annotated[float, MINUTES] = 2.0
    """Training time of the diffusion policy, and of the regression one."""
    demonstrations: Annotated[int, EPISODES] = 200
    """Expert episodes to record."""
    episodes: Annotated[int, EPISODES] = 100
    """Evaluation episodes for each budget and clock."""
    ddim_steps: Annotated[tuple[int, ...], Range(1, 100), NOT_EMPTY] = (1, 2, 4, 8, 16, 32, 100)
    """Step budgets."""
    ms_per_step: Annotated[float, MILLISECONDS] = 2.0
    """The declared robot: milliseconds a denoising step."""
    margin: Annotated[float, Range(1e-6, 1e6)] = 0.1
    """Loss of success that would still be accepted; 100 episodes cannot show less."""
    latency_seconds: Annotated[float, SECONDS] = 5.0
    """At most this long measuring the latency of each budget."""
    seed: Annotated[int, Range(0, 2**61)] = 0
    """Seed of demonstrations and training; evaluation takes 100,000 more."""


@dataclass(frozen=True)
class ReportConfig(Checked):
    """Draw tables, plots, pages and CSV files again from result files."""

    files: Positional[Annotated[tuple[Path, ...], NOT_EMPTY]]
    """Results of eval, latency, delays, sweep or suite (JSON)."""
    out: Path | None = None
    """Folder to write; by default beside each file."""
