"""Tables on the terminal."""

from collections.abc import Sequence
from typing import Any


def print_table(titles: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Right-aligned columns under their titles; None is shown as a dash."""
    cells = [list(titles), *[[_text(cell) for cell in row] for row in rows]]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for row in cells:
        print("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)))


def _text(cell: Any) -> str:
    if cell is None:
        return "-"
    return f"{cell:.3g}" if isinstance(cell, float) else str(cell)
