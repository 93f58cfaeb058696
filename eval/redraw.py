"""`diffpolicy report`: tables, plots, pages and CSV files, drawn again from result files."""

from collections import Counter
from pathlib import Path

from diffpolicy.errors import DiffpolicyError

from .measure.result_files import Result, SweepResult, read_result
from .report.products import check_outputs, draw, product_paths
from .report_config import ReportConfig


def redraw(config: ReportConfig) -> None:
    """Print each result and write its products beside it, or to --out."""
    results = [(file, read_result(file)) for file in config.files]
    targets = [(config.out or file.parent) / file.name for file in config.files]
    _check_targets(config, [result for _, result in results], targets)
    for (file, result), target in zip(results, targets, strict=True):
        print(f"{file}:")
        draw(result, target, file.parent)
        names = ", ".join(path.name for path in product_paths(type(result), target))
        print(f"wrote {names} to {target.parent}")


def _check_targets(config: ReportConfig, results: list[Result], targets: list[Path]) -> None:
    """Refuse to overwrite an input, a product of another input, or a page with pictures."""
    inputs = {file.resolve() for file in config.files}
    products = [
        product_paths(type(result), target) for result, target in zip(results, targets, strict=True)
    ]
    counts = Counter(path.resolve() for paths in products for path in paths)
    for result, target, paths in zip(results, targets, products, strict=True):
        for path in paths:
            if path.resolve() in inputs:
                raise DiffpolicyError(
                    f"{path} is a result file and would be overwritten; rename it, or give --out"
                )
            if counts[path.resolve()] > 1:
                raise DiffpolicyError(
                    f"{path} would be written twice; report one file at a time, each to another "
                    "--out"
                )
            if _loses_pictures(result, path) and not config.out:
                raise DiffpolicyError(
                    f"{path} exists and may hold pictures that the result lacks; give --out FOLDER"
                )
        check_outputs(type(result), target)


def _loses_pictures(result: Result, path: Path) -> bool:
    """True for the existing page of a sweep without pictures."""
    without = isinstance(result, SweepResult) and not (result.pictures or result.videos)
    return without and path.suffix == ".html" and path.exists()
