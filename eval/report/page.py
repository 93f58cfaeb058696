"""Parts of a self-contained HTML page."""

import html
from collections.abc import Sequence

from .figure import data_uri

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1080px; margin: 2rem auto; padding: 0 1rem;
       color: #222; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
.verdict { background: #eef4ee; border-left: 4px solid #3a9a6c; padding: .6rem 1rem; }
.verdict { margin: .5rem 0; }
.none { background: #fbf1ee; border-color: #d1495b; }
table { border-collapse: collapse; font-size: 13px; }
th, td { padding: .25rem .6rem; text-align: right; }
th { border-bottom: 2px solid #999; } td { border-bottom: 1px solid #ddd; }
img { max-width: 100%; } figure { margin: .8rem 0; } figcaption { color: #555; font-size: 13px; }
pre { background: #f5f5f5; padding: .8rem; overflow-x: auto; font-size: 12px; }
"""


def page(title: str, parts: Sequence[str]) -> str:
    """The page with its title above its parts."""
    title = html.escape(title)
    body = "\n".join([f"<h1>{title}</h1>", *parts])
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f"<title>{title}</title><style>{STYLE}</style></head><body>{body}</body></html>\n"
    )


def html_table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Table of text cells under their titles."""
    head = "".join(f"<th>{html.escape(title)}</th>" for title in titles)
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    return f"<table><tr>{head}</tr>{body}</table>"


def paragraph(text: str) -> str:
    """A paragraph of plain text."""
    return f"<p>{html.escape(text)}</p>"


def image(picture: bytes, alternative: str) -> str:
    """A PNG or WebP with its alternative text."""
    return f'<img alt="{html.escape(alternative)}" src="{data_uri(picture)}">'


def figure(picture: bytes, caption: str) -> str:
    """A PNG or WebP with its caption."""
    text = html.escape(caption)
    return f"<figure>{image(picture, caption)}<figcaption>{text}</figcaption></figure>"
