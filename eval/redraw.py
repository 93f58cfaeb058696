"""`diffpolicy report`: tables, plots, pages and CSV files, drawn again from result files."""

from .config import ReportConfig
from .measure.result_files import read_result
from .report.products import check_outputs, draw, product_paths


def redraw(config: ReportConfig) -> None:
    """Print each result and write its products beside it, or to --out."""
    results = [(file, read_result(file)) for file in config.files]
    for file, result in results:
        target = (config.out or file.parent) / file.name
        check_outputs(type(result), target)
        print(f"{file}:")
        draw(result, target, file.parent)
        names = ", ".join(path.name for path in product_paths(type(result), target))
        print(f"wrote {names} to {target.parent}")
