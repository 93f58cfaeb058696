"""`diffpolicy compare`: results of one task, or suites, against a reference, row by row."""

from collections.abc import Sequence

from diffpolicy.checkpoint import policy_path
from diffpolicy.errors import DiffpolicyError
from diffpolicy.files import check_writable, write_text
from diffpolicy.terminal.output import STDOUT, say, wrapped

from .compare_config import LABELS, CompareConfig
from .measure.comparable import (
    Comparable,
    check_together,
    file_of,
    read_together,
    says_rules,
    shared_seeds,
)
from .measure.comparison_results import (
    ComparedFile,
    CompareResult,
    Comparison,
    SuiteComparison,
    Unmatched,
)
from .measure.matching import Matched, described, match
from .measure.result_files import EvalProvenance, write_result
from .measure.row_differences import row_difference
from .report.compare_page import compare_page
from .report.compare_table import print_comparison, regression_line
from .report.page import link_to
from .report.products import print_json
from .sweep import metric_of


def compare(config: CompareConfig) -> None:
    """Print the table; write JSON and a page on request. Raises SystemExit(1) on a regression.

    Raises DiffpolicyError for files that do not belong together, before anything is written.
    """
    _check_kept(config)
    result = comparison(config)
    written = [path for path in (config.json, config.page) if path and path != STDOUT]
    for path in written:
        check_writable(path)
    print_comparison(result)
    if config.json == STDOUT:
        print_json(result)
    elif config.json:
        write_result(config.json, result)
    if config.page:
        links = [link_to(path, config.page.parent) for path in written if path == config.json]
        write_text(config.page, compare_page(result, links))
    for path in written:
        say(f"wrote {path}")
    if config.fail_on_regression:
        print(wrapped(regression_line(result)))
        if result.regressions:
            raise SystemExit(1)


def _check_kept(config: CompareConfig) -> None:
    """Refuse an output that would overwrite one of the compared files."""
    read = [file_of(path).resolve() for path in config.files]
    for path in (config.json, config.page):
        if path and path != STDOUT and path.resolve() in read:
            raise DiffpolicyError(f"{path} would be overwritten; try another --json or --page")


def comparison(config: CompareConfig) -> Comparison:
    """The differences of all files from the first, of suites by task."""
    together, left_out = read_together(config.files)
    found = {task: _of_task(config, results) for task, results in together.items()}
    return found.get("") or SuiteComparison(tasks=found, left_out=left_out)


def _of_task(config: CompareConfig, results: Sequence[Comparable]) -> CompareResult:
    check_together(config.files, results)
    metric = metric_of(config.outcome, [row for result in results for row in result.rows])
    reference, *others = results
    names = list(map(str, config.files))
    matched = [
        match(reference, other, config.across, metric, (names[0], name))
        for other, name in zip(others, names[1:], strict=True)
    ]
    for found, name in zip(matched, names[1:], strict=True):
        _check_matched(found, name, names[0], config)
    rows = [
        row_difference(
            (reference, other),
            pair,
            shared_seeds(reference.provenance, other.provenance),
            metric,
            config.margin,
            label,
        )
        for other, found, label in zip(others, matched, LABELS[1:], strict=False)
        for pair in found.pairs
    ]
    return CompareResult(
        env=reference.provenance.env,
        env_kwargs=reference.provenance.env_kwargs,
        metric=metric,
        margin=config.margin,
        across=config.across,
        files=[_about(*about) for about in zip(LABELS, names, results, strict=False)],
        rows=rows,
        unmatched=_unmatched(matched),
    )


def _check_matched(found: Matched, name: str, reference: str, config: CompareConfig) -> None:
    """Refuse a file none of whose rows has a partner."""
    if not found.pairs:
        ours, theirs = (
            "; ".join(map(described, rows[:3])) for rows in (found.other_only, found.reference_only)
        )
        hint = "" if config.across == "best" else "; try --across best"
        raise DiffpolicyError(
            f"no row of {name} has a partner in {reference}: it has {ours}, the reference "
            f"{theirs}; expected the same budgets and clocks{hint}"
        )


def _unmatched(matched: Sequence[Matched]) -> list[Unmatched]:
    """The rows without a partner; of the reference those without any."""
    first, *more = (found.reference_only for found in matched)
    reference = [row for row in first if all(row in rows for rows in more)]
    of_files = [reference, *(found.other_only for found in matched)]
    return [
        Unmatched(label=label, budget=row.name, clock=row.clock, source=row.latency_source)
        for label, rows in zip(LABELS, of_files, strict=False)
        for row in rows
    ]


def _about(label: str, name: str, result: Comparable) -> ComparedFile:
    about = result.provenance
    return ComparedFile(
        label=label,
        file=_printable(name),
        policy=_printable(_policy(about)),
        checkpoint=about.checkpoint,
        seeds=about.seeds,
        paired=about.paired and about.seeds_repeat,
        says_rules=says_rules(about),
        device=_printable(about.device),
        commit=about.commit and _printable(about.commit),
    )


def _printable(text: str) -> str:
    """A text of a file, which may hold anything, for the terminal."""
    return "".join(letter if letter.isprintable() else " " for letter in text)


def _policy(about: EvalProvenance) -> str:
    """The runs as the command was given them, or module:factory."""
    if about.policy:
        return about.policy
    runs = about.runs or ([about.run] if about.run else [])
    return ", ".join(policy_path(run).parent.as_posix() for run in runs) or "unknown"
