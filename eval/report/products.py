"""Products of a result, drawn from it alone: tables, plots, pages, CSV files."""

import json
from pathlib import Path

from diffpolicy.files import check_writable, write_bytes, write_text
from diffpolicy.terminal.output import STDOUT, print_alone, say, wrapped

from ..measure.comparison_results import CompareResult, Comparison, SuiteComparison
from ..measure.offline_results import OfflineResult
from ..measure.replay_results import ReplayResult
from ..measure.result_files import (
    DelaysResult,
    LatencyFile,
    Result,
    SuiteResult,
    SweepResult,
    document_of,
    write_result,
)
from ..measure.simulated import Simulation
from .compare_page import compare_page
from .compare_table import print_comparison
from .delays_page import delays_page
from .figure import png
from .flat import csv_paths, write_csv
from .offline_page import offline_page, offline_plot, print_offline
from .page import link_to
from .plots import success_against_delay, success_against_latency
from .replays import print_replay
from .sentences import clock_label, verdict
from .suite_page import Tables, print_suite, suite_page, suite_plot, tables_of
from .sweep_page import sweep_page
from .table import print_comparisons, print_latencies, print_rows, print_simulation

COMPARED = (CompareResult, SuiteComparison)
WITH_PAGE = (DelaysResult, SweepResult, SuiteResult, OfflineResult)


def product_paths(kind: type[Result], file: Path) -> list[Path]:
    """The files that are drawn beside a result file."""
    plot, page = file.with_suffix(".png"), file.with_suffix(".html")
    if (kind, file.stem) in ((SweepResult, "sweep"), (OfflineResult, "offline")):
        page = file.with_name("report.html")
    drawn = [plot, page] if kind in WITH_PAGE else []
    tables = {LatencyFile: csv_paths(file)[1:], Simulation: csv_paths(file)[1:]}
    tables |= {ReplayResult: csv_paths(file)[:1]}
    tables |= {compared: [page, csv_paths(file)[1]] for compared in COMPARED}
    return [*drawn, *tables.get(kind, csv_paths(file))]


def links_of(kind: type[Result], file: Path, folder: Path) -> list[tuple[str, str]]:
    """Links to the data of a page beside `file`: the result in `folder`, and its CSV files."""
    tables = [path for path in product_paths(kind, file) if path.suffix == ".csv"]
    shown = [folder / file.name, *(tables if kind not in COMPARED else [])]
    return [link_to(path, file.parent) for path in shown]


def check_outputs(kind: type[Result], file: Path) -> None:
    """Fail now if a result file or its products could not be written after the measurement."""
    for path in (file, *product_paths(kind, file)) if file != STDOUT else ():
        check_writable(path)


def save(result: Result, file: Path | None) -> None:
    """Print a result; write its products, and its file last: that one marks a complete result."""
    if file is None or file == STDOUT:
        draw(result, None, Path())
        return print_json(result) if file else None
    draw(result, file, file.parent)
    write_result(file, result)
    names = ", ".join(path.name for path in (file, *product_paths(type(result), file)))
    say(f"wrote {names} to {file.parent}")


def print_json(result: Result) -> None:
    """Print a result to the standard output as JSON, as its file would hold it."""
    print_alone(json.dumps(document_of(result), indent=1))


def draw(result: Result, file: Path | None, pictures: Path) -> None:
    """Print a result and, under the name of `file`, write its plot, page and CSV files.

    pictures: folder of the result, and of the pictures that it names.
    """
    tables = tables_of(result) if isinstance(result, SuiteResult) else {}
    _print(result, tables)
    if file:
        _write(result, tables, file, pictures)


def _write(result: Result, tables: Tables, file: Path, pictures: Path) -> None:
    paths, links = product_paths(type(result), file), links_of(type(result), file, pictures)
    if isinstance(result, DelaysResult):
        plot = png(success_against_delay(result))
        write_bytes(paths[0], plot)
        write_text(paths[1], delays_page(result, plot, links))
    if isinstance(result, SweepResult):
        plot = png(success_against_latency(result))
        write_bytes(paths[0], plot)
        write_text(paths[1], sweep_page(result, pictures, links))
    if isinstance(result, SuiteResult):
        plot = png(suite_plot(result, tables))
        write_bytes(paths[0], plot)
        write_text(paths[1], suite_page(result, tables, plot, pictures, links))
    if isinstance(result, OfflineResult):
        plot = png(offline_plot(result))
        write_bytes(paths[0], plot)
        write_text(paths[1], offline_page(result, plot, links))
    if isinstance(result, Comparison):
        write_text(paths[0], compare_page(result, links))
    write_csv(file, result)


def _print(result: Result, tables: Tables) -> None:
    if isinstance(result, SuiteResult):
        print_suite(result, tables)
    elif isinstance(result, LatencyFile):
        print_latencies(result)
    elif isinstance(result, Simulation):
        print_simulation(result)
    elif isinstance(result, ReplayResult):
        print_replay(result)
    elif isinstance(result, OfflineResult):
        print_offline(result)
    elif isinstance(result, Comparison):
        print_comparison(result)
    else:
        print_rows(result.rows)
    if isinstance(result, DelaysResult) and result.comparisons:
        print_comparisons(result.comparisons)
    for advice in result.recommendations if isinstance(result, SweepResult) else ():
        print(wrapped(f"{clock_label(advice)}: {verdict(advice)}"))
