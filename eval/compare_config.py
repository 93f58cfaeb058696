"""Options of `diffpolicy compare`."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional

from diffpolicy.checked import Checked, Range
from diffpolicy.errors import DiffpolicyError
from diffpolicy.terminal.output import STDOUT

LABELS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"  # of the files in tables
Across = Literal["budgets", "best", "strategies"]


@dataclass(frozen=True)
class CompareConfig(Checked):
    """Compare results of one task, or suites, with a reference, and find regressions.

    Differences are paired by the seeds that two files share, and unpaired where they share none.
    """

    files: Positional[tuple[Path, ...]]
    """Results of eval, sweep, delays or suite (JSON), run folders with a sweep/sweep.json, or
    folders of suites. The first is the reference."""
    across: Across = field(default="budgets", kw_only=True)
    """budgets: each budget with that of the same name. best: the budget that a file recommends,
    else its best. strategies: each strategy for late chunks with the reference's drop, else with
    its only strategy."""
    outcome: Literal["auto", "success", "score"] = field(default="auto", kw_only=True)
    """Outcome to compare; auto uses the score if every budget succeeds in less than half of the
    episodes."""
    margin: Annotated[float | None, Range(1e-6, 1e6)] = field(default=None, kw_only=True)
    """Loss of success (or score) that is still acceptable; tests non-inferiority at 5 %."""
    fail_on_regression: bool = field(default=False, kw_only=True)
    """Exit with status 1 if any row is worse: if its 95 % interval lies below 0, or without an
    interval (fewer than ten discordant pairs) if McNemar's p is at most 0.05. With --margin
    instead if any row is not shown to lose less than the margin. Intervals are not adjusted for
    the number of rows."""
    json: Path | None = field(default=None, kw_only=True)
    """File for the result; - prints it, and nothing else, to the standard output."""
    page: Path | None = field(default=None, kw_only=True)
    """HTML page to write."""

    def __post_init__(self):
        super().__post_init__()
        if not 2 <= len(self.files) <= len(LABELS):
            raise DiffpolicyError(
                f"compare needs 2 to {len(LABELS)} files, the reference first; "
                f"got {len(self.files)}"
            )
        self._check_paths()

    def _check_paths(self) -> None:
        """Refuse a file that is given twice, and outputs that are no two files."""
        given = [path.resolve() for path in self.files]
        if twice := [path for path in self.files if given.count(path.resolve()) > 1]:
            raise DiffpolicyError(f"{twice[0]} is given twice; expected different files")
        if self.page == STDOUT:
            raise DiffpolicyError("--page - is not a file; expected one; try --page compare.html")
        if self.json and self.page and self.json.resolve() == self.page.resolve():
            raise DiffpolicyError("--json and --page name the same file; expected two files")
