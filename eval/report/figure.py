"""Figures as PNG, and pictures inside a page."""

import base64
import io
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

PNG, WEBP = b"\x89PNG\r\n\x1a\n", b"RIFF"  # their first bytes


def plain(text: str) -> str:
    """A text for a figure, without mathematics."""
    return text.replace("$", r"\$")


def png(figure: Figure, dpi: int = 110) -> bytes:
    """Render a figure and close it."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi)
    plt.close(figure)
    return buffer.getvalue()


def picture_in(folder: Path, name: str) -> bytes | None:
    """The PNG or WebP of a name in a folder; None for what is absent, outside it or neither."""
    path = (folder / name).resolve()
    if not path.is_relative_to(folder.resolve()) or not path.is_file():
        return None
    with path.open("rb") as file:
        start = file.read(12)
        known = start.startswith(PNG) or (start.startswith(WEBP) and start.endswith(b"WEBP"))
        return start + file.read() if known else None


def data_uri(picture: bytes) -> str:
    """A PNG or WebP inside the page, so that the page needs no other file."""
    kind = "webp" if picture.startswith(WEBP) else "png"
    return f"data:image/{kind};base64," + base64.b64encode(picture).decode()
