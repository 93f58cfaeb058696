"""Result of `diffpolicy compare`: rows of results against those of a reference."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from diffpolicy.checked import NOT_EMPTY

from ..compare_config import Across
from .results import Count, Metric, Name, Number, Positive, Rate, Seed, Source

RowVerdict = Literal[
    "better",
    "worse",
    "worse-within-margin",  # worse, and shown to lose less than the margin
    "non-inferior",
    "identical",  # every shared seed has the same outcome; only without a margin
    "not-established",
]


@dataclass(frozen=True, kw_only=True)
class ComparedFile:
    """One of the files; label: a letter. seeds: the first and the last.

    policy: run folders, or module:factory. says_rules: False for files of format version 1, which
    lack the rule of success and the longest episode.
    """

    label: Name
    file: Name
    policy: Name
    checkpoint: Source
    seeds: tuple[Seed, Seed]
    paired: bool
    says_rules: bool
    device: Name
    commit: Name | None


@dataclass(frozen=True, kw_only=True)
class RowDifference:
    """Difference of a row from the row of the reference that it is matched with.

    other: label of its file. reference_episodes, episodes: those that count; the same ones if
    paired. interval: 95 %, None under ten discordant pairs. training_seeds: number of
    pairs of trainings that the interval counts as random; 1 if it has none. p_noninferior:
    against "the row loses the margin or more". p50_ratio, p95_ratio: of the latencies, row /
    reference; None on the paused clock, and p95 where the files do not hold it. disturbed: other
    processes disturbed one of the latencies.
    """

    other: Name
    clock: Name
    reference_source: Name
    source: Name
    reference_budget: Name
    budget: Name
    reference_mean: Number
    mean: Number
    difference: Number
    interval: tuple[Number, Number] | None
    p_mcnemar: Rate | None
    noninferior: bool | None
    p_noninferior: Rate | None
    paired: bool
    reference_episodes: Count
    episodes: Count
    training_seeds: Count = 1
    p50_ratio: Positive | None
    p95_ratio: Positive | None
    disturbed: bool
    verdict: RowVerdict


@dataclass(frozen=True, kw_only=True)
class Unmatched:
    """A row of the file of a label that has no partner; of the reference, in no other file."""

    label: Name
    budget: Name
    clock: Name
    source: Name


@dataclass(frozen=True, kw_only=True)
class CompareResult:
    """Differences of all files from the first, and the rows without a partner."""

    env: Name
    env_kwargs: dict[str, Any] = field(default_factory=dict)
    metric: Metric
    margin: float | None
    across: Across
    files: Annotated[list[ComparedFile], NOT_EMPTY]
    rows: Annotated[list[RowDifference], NOT_EMPTY]
    unmatched: list[Unmatched]

    @property
    def regressions(self) -> Sequence[RowDifference]:
        """The worse rows; with a margin those that are not shown to lose less than it."""
        failed = ("worse",) if self.margin is None else ("worse", "not-established")
        return [row for row in self.rows if row.verdict in failed]


@dataclass(frozen=True, kw_only=True)
class SuiteComparison:
    """Comparisons of the tasks that all suites hold; left_out: tasks that some lack."""

    tasks: Annotated[dict[str, CompareResult], NOT_EMPTY]
    left_out: list[Name]

    @property
    def rows(self) -> Sequence[RowDifference]:
        """The rows of all tasks."""
        return [row for result in self.tasks.values() for row in result.rows]

    @property
    def regressions(self) -> Sequence[RowDifference]:
        """See `CompareResult`."""
        return [row for result in self.tasks.values() for row in result.regressions]


Comparison = CompareResult | SuiteComparison


def by_task(result: Comparison) -> Mapping[str, CompareResult]:
    """Its comparisons by task; of results of one task under an empty name."""
    return result.tasks if isinstance(result, SuiteComparison) else {"": result}
