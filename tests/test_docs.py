"""The notebook of the quickstart runs, in small, and holds no results."""

from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat", reason="nbformat is not installed")
nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed")

NOTEBOOK = Path(__file__).parents[1] / "eval" / "docs" / "quickstart.ipynb"
IN_SMALL = """
from functools import partial
from diffpolicy.eval import config, quickstart

minutes, demonstrations, episodes, ddim_steps, latency_seconds = 0.001, 1, 2, (1, 2), 0.05
small = {"engine": "eager", "max_steps": 12, "workers": 1, "pictures": False, "ddpm": False}
quickstart.SweepConfig = partial(config.SweepConfig, **small)
"""


def code_cells(book) -> list:
    return [cell for cell in book.cells if cell.cell_type == "code"]


def test_the_notebook_holds_no_results():
    cells = code_cells(nbformat.read(NOTEBOOK, as_version=4))
    assert all(not cell.outputs and cell.execution_count is None for cell in cells)


def test_the_notebook_runs(tmp_path):
    book = nbformat.read(NOTEBOOK, as_version=4)
    cells = code_cells(book)
    cells[0].source += IN_SMALL
    options = {"resources": {"metadata": {"path": str(tmp_path)}}, "kernel_name": "python3"}
    nbclient.NotebookClient(book, timeout=600, **options).execute()
    printed = [output.text for cell in cells for output in cell.outputs if "text" in output]
    assert any("paused" in text and "1 step" in text for text in printed)
    assert (tmp_path / "quickstart" / "report.html").exists()
