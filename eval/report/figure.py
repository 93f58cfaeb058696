"""Figures as PNG, and PNG inside a page."""

import base64
import io
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

PNG = b"\x89PNG\r\n\x1a\n"  # its first bytes


def plain(text: str) -> str:
    """A text for a figure, without mathematics."""
    return text.replace("$", r"\$")


def png(figure: Figure, dpi: int = 110) -> bytes:
    """Render a figure and close it."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi)
    plt.close(figure)
    return buffer.getvalue()


def png_in(folder: Path, name: str) -> bytes | None:
    """The PNG of a name in a folder; None for what is absent, outside the folder or no PNG."""
    path = (folder / name).resolve()
    if not path.is_relative_to(folder.resolve()) or not path.is_file():
        return None
    with path.open("rb") as file:
        start = file.read(len(PNG))
        return start + file.read() if start == PNG else None


def data_uri(picture: bytes) -> str:
    """A picture inside the page, so that the page needs no other file."""
    return "data:image/png;base64," + base64.b64encode(picture).decode()
