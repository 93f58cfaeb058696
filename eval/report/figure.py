"""Figures as PNG, and PNG inside a page."""

import base64
import io

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.figure import Figure


def png(figure: Figure, dpi: int = 110) -> bytes:
    """Render a figure and close it."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi)
    plt.close(figure)
    return buffer.getvalue()


def data_uri(picture: bytes) -> str:
    """A picture inside the page, so that the page needs no other file."""
    return "data:image/png;base64," + base64.b64encode(picture).decode()
