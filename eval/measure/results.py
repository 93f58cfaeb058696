"""Results of evaluation as frozen dataclasses; `result_files` writes and reads them.

Defaults are for files of format version 1, which lack these fields. Shapes: E episodes, S samples.
"""

from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Annotated, Literal

from diffpolicy.checked import NOT_EMPTY, PRINTABLE, Range, shown
from diffpolicy.errors import DiffpolicyError

from ..config import DELAY, MILLISECONDS

RATE, COUNT = Range(0, 1), Range(0, 1e15)
Name = Annotated[str, PRINTABLE]  # shown on the terminal
Rate = Annotated[float, RATE]
Positive = Annotated[float, Range(0, 1e15)]
Number = Annotated[float, Range(-1e15, 1e15)]
Count = Annotated[int, COUNT]
Seed = Annotated[int, Range(0, 2**63 - 1)]
Cameras = dict[Name, list[Count]]  # [H, W, C] of each picture of an observation
Metric = Literal["success", "score"]
COMPARATORS = ("DDPM", "regression")  # variants that are never recommended


def check_inside(name: str) -> None:
    """Raise DiffpolicyError unless `name` is a path inside the folder of the result."""
    path = PurePath(name)
    if path.is_absolute() or ".." in path.parts or not path.parts or not name.isprintable():
        raise DiffpolicyError(f"expected a path inside the folder of the result; got {shown(name)}")


@dataclass(frozen=True, kw_only=True)
class Training:
    """Optimiser steps, seconds and seed of training."""

    step: Annotated[int | None, COUNT] = None
    elapsed_s: float | None = None
    training_seed: int | None = None


@dataclass(frozen=True, kw_only=True)
class Source:
    """Fingerprint of the demonstrations, optimiser steps, and number of demonstrations."""

    fingerprint: str | None = None
    step: Annotated[int | None, COUNT] = None
    episodes: Annotated[int | None, COUNT] = None


@dataclass(frozen=True, kw_only=True)
class Percentiles:
    """Latency in ms; None for what the number of samples does not support."""

    p50: Positive
    p90: Positive | None
    p99: Positive | None
    p99_9: Positive | None = None
    max: Positive
    jitter: Positive | None = None
    samples: Count


@dataclass(frozen=True, kw_only=True)
class Audit:
    """Timesteps of the evaluations and coefficients that a budget really uses."""

    solver_steps: int | None = None
    timesteps: list[int]
    network_evals: int
    sqrt_alpha_bar_start: float
    duplicates: int
    noise_injected: int
    start_scale: float = 1.0


@dataclass(frozen=True, kw_only=True)
class FarObservation:
    """Dimension of the observation that left the range of training, and in what share."""

    dimension: int
    share: Rate
    seen: tuple[float, float]
    training: tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Outcomes:
    """Success, score and tick of the first success of each episode [E], in order of the seeds.

    Of several training seeds [S · E]: the episodes of the first one, then those of the next.
    """

    success: Annotated[list[int], RATE, NOT_EMPTY]
    score: Annotated[list[Number], NOT_EMPTY]
    success_tick: list[int | None] | None = None

    def __post_init__(self):
        counts = {len(found) for found in (self.success, self.score, self.success_tick) if found}
        if len(counts) > 1:
            raise DiffpolicyError(f"expected as many successes as scores and ticks; got {counts}")


@dataclass(frozen=True, kw_only=True)
class BudgetResult:
    """Result of one budget on one clock.

    run: name of the run's folder, where a result has several. policy: module:factory of a policy of
    others, whose network_evals, gradient_evals, audit and eta are unknown. late: strategy for late
    chunks. latency_source: in `delays` also the pattern of the delays.
    encoder_ms: median of the part of the latency before the denoising loop, for pictures.
    training_seeds: of the runs that the row is of, where there are several; episodes and sums
    count those of all. delay_error: mean of the expected delay less the true one, in ticks.
    prefix_miss_share: of chunks, those that came later than expected. ticks: the constant delay, in
    `delays` only. tick_late_ms and the fields after it: on the wall clock only. evaluations_mean:
    really made, where a deadline cuts. parameters: weights of the network.
    """

    name: Name
    run: Name | None = None
    policy: Name | None = None
    ddim_steps: Count  # 0 for regression
    network_evals: Count | None
    gradient_evals: Count | None = None
    late: Name = "drop"
    parameters: Annotated[int | None, COUNT] = None
    trained: Training = field(default_factory=Training)
    variant: Name = ""
    audit: Audit | None
    eta: float | None
    clock: Name
    latency_source: Name
    engine: Name
    latency_engine: Name | None = None
    load: Name | None = None  # quiet, disturbed or unknown
    episodes: Count
    successes: Count
    success_rate: Rate
    success_ci: tuple[Rate, Rate]
    score_mean: Number
    score_ci: tuple[Number, Number]
    latency_ms: Percentiles
    encoder_ms: Positive | None = None
    delay_ticks: Positive
    delay_error: Number | None = None
    prefix_miss_share: Rate | None = None
    deadline_misses: int | None = None
    starved_ticks: Count
    action_age_ms_p50: Positive | None
    replans: Count
    seam_jump: float | None = None
    seam_jerk: float | None = None
    failures: list[str]
    far_observations: list[FarObservation] = field(default_factory=list)
    outcomes: Outcomes
    training_seeds: list[int | None] | None = None
    ticks: Annotated[int | None, DELAY] = None
    tick_late_ms: dict[str, float] | None = None
    missed_ticks: int | None = None
    evaluations_mean: Positive | None = None
    precision: Name | None = None
    cameras: Cameras | None = None
    crop: Rate | None = None
    samples_ms: Annotated[list[float] | None, MILLISECONDS] = None

    @property
    def comparator_only(self) -> bool:
        """True if it is never recommended; regression may be, as one of several runs."""
        return self.variant in (COMPARATORS if self.run is None else COMPARATORS[:1])


@dataclass(frozen=True, kw_only=True)
class LatencyResult:
    """Latency of one budget on one engine.

    gpu_ms: of the GPU alone, for CUDA graphs. encoder_ms: median of the part before the denoising
    loop, for pictures; head_ms: of the head of `--late correct`, which runs at every tick. All
    budgets of an engine share them, and `load` is that of all. cameras, crop: the pictures, and the
    share of each side that is encoded. policy: module:factory of a policy of others, of whose
    network nothing is known; its precision is "unknown".
    """

    net: Name | None = None
    policy: Name | None = None
    ddim_steps: Count
    network_evals: Count | None
    gradient_evals: Count | None = None
    parameters: Count | None = None
    engine: Name
    threads: int | None = None
    load: Name | None = None  # quiet, disturbed or unknown
    p50_ms: Positive
    p99_ms: Positive | None
    ratio_to_baseline: Positive | None
    max_abs_diff: Positive | None
    gpu_ms: Positive | None
    precision: Name = "float32"
    latency_ms: Percentiles
    encoder_ms: Positive | None = None
    head_ms: Positive | None = None
    cameras: Cameras | None = None
    crop: Rate | None = None
    samples_ms: Annotated[list[float], MILLISECONDS] = field(default_factory=list)


@dataclass(frozen=True)
class Profile:
    """Latencies [S] in ms of a budget, measured or declared."""

    name: Name
    source: Name
    samples_ms: Annotated[list[float], MILLISECONDS]


@dataclass(frozen=True)
class Picture:
    """Picture of one episode; file: relative to the result, None where drawing failed."""

    title: Name
    caption: str
    file: str | None

    def __post_init__(self):
        if self.file is not None:
            check_inside(self.file)


@dataclass(frozen=True)
class Video(Picture):
    """Video of one seed at several budgets; seed: None in files of before."""

    seed: Seed | None = None
    budgets: list[Name] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class TrainingCurve:
    """A quantity of a run's log over the optimiser steps [P]; run: the name of its folder."""

    run: Name
    quantity: Name
    steps: Annotated[list[Count], NOT_EMPTY]
    values: Annotated[list[Number], NOT_EMPTY]

    def __post_init__(self):
        if len(self.steps) != len(self.values):
            raise DiffpolicyError(
                f"expected as many values as steps; got {len(self.values)} for {len(self.steps)}"
            )
