"""Rows of two results that are compared with each other."""

from collections.abc import Sequence
from dataclasses import dataclass

from diffpolicy.errors import DiffpolicyError

from ..compare_config import Across
from .comparable import Comparable
from .result_files import SweepResult
from .results import BudgetResult, Metric

Pair = tuple[BudgetResult, BudgetResult]  # of the reference, of the other
Key = tuple[str, str, str]  # clock, source of the latencies, budget
DROP = "drop"


@dataclass(frozen=True)
class Matched:
    """Pairs in the order of the other result, and the rows of both without a partner."""

    pairs: list[Pair]
    reference_only: list[BudgetResult]
    other_only: list[BudgetResult]


def match(
    reference: Comparable,
    other: Comparable,
    across: Across,
    metric: Metric,
    names: tuple[str, str] = ("the reference", "the other file"),
) -> Matched:
    """Match the rows of two results, called `names` in messages.

    The source of the latencies belongs to the key only if a file has several on a clock, as
    `delays` has: else results of two machines are compared. Raises DiffpolicyError if a file has
    two rows of one key.
    """
    theirs, ours = (_chosen(result, across, metric) for result in (reference, other))
    keys = _Keys(theirs, ours, across)
    candidates = keys.one_strategy(theirs)
    keys.check_unique(candidates, names[0])
    if across != "strategies":
        keys.check_unique(ours, names[1])
    partners = {keys.of(row): row for row in candidates}
    pairs = [(partners[keys.of(row)], row) for row in ours if keys.of(row) in partners]
    used = {id(row) for pair in pairs for row in pair}
    left, right = ([row for row in rows if id(row) not in used] for rows in (theirs, ours))
    return Matched(pairs, left, right)


class _Keys:
    """Keys of the rows of two results."""

    def __init__(
        self, theirs: Sequence[BudgetResult], ours: Sequence[BudgetResult], across: Across
    ):
        both = [theirs, ours]
        self.across = across
        self.unlabelled = all(len({row.run for row in rows}) == 1 for rows in both)
        self.one_source = {
            clock
            for clock in {row.clock for rows in both for row in rows}
            if all(len(_sources(rows, clock)) <= 1 for rows in both)
        }

    def of(self, row: BudgetResult) -> Key:
        """Clock, source and budget, each only as far as it tells rows apart."""
        source = "" if row.clock in self.one_source else row.latency_source
        name = row.name.removeprefix(f"{row.run}: ") if self.unlabelled else row.name
        if self.across == "strategies" and row.late != DROP:
            name = name.removesuffix(f", {row.late}")
        return row.clock, source, "" if self.across == "best" else name

    def one_strategy(self, rows: Sequence[BudgetResult]) -> Sequence[BudgetResult]:
        """All rows; across strategies those of drop, and the others whose budget has no drop."""
        if self.across != "strategies":
            return rows
        dropped = {self.of(row) for row in rows if row.late == DROP}
        return [row for row in rows if row.late == DROP or self.of(row) not in dropped]

    def check_unique(self, rows: Sequence[BudgetResult], name: str) -> None:
        """Refuse two rows of one key."""
        keys = [self.of(row) for row in rows]
        if twice := [row for row, key in zip(rows, keys, strict=True) if keys.count(key) > 1]:
            raise DiffpolicyError(
                f"{name} has several rows of {described(twice[0])}; expected one of each budget, "
                "clock and latency"
            )


def described(row: BudgetResult) -> str:
    """A row in messages: its budget and clock, with the latency that the clock uses."""
    source = "" if row.clock == "paused" else f" ({row.latency_source})"
    return f"{row.name}, {row.clock}{source}"


def _sources(rows: Sequence[BudgetResult], clock: str) -> set[str]:
    return {row.latency_source for row in rows if row.clock == clock}


def _chosen(result: Comparable, across: Across, metric: Metric) -> list[BudgetResult]:
    """All rows, or for each clock and latency the recommended, else the best budget."""
    if across != "best":
        return list(result.rows)
    places = dict.fromkeys((row.clock, row.latency_source) for row in result.rows)
    return [_best(result, clock, source, metric) for clock, source in places]


def _best(result: Comparable, clock: str, source: str, metric: Metric) -> BudgetResult:
    rows = [row for row in result.rows if (row.clock, row.latency_source) == (clock, source)]
    advice = result.recommendations if isinstance(result, SweepResult) else []
    names = [found.name for found in advice if found.clock == clock]
    recommended = [row for row in rows if row.name in names]
    usual = [row for row in rows if not row.comparator_only]
    mean = "success_rate" if metric == "success" else "score_mean"
    return max(recommended or usual or rows, key=lambda row: getattr(row, mean))
