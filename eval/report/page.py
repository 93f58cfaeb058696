"""Self-contained HTML pages: templates of the folder `templates`, filled with autoescape."""

import os
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from ..measure.computer import Provenance
from ..measure.result_files import json_of
from .figure import data_uri, picture_in

Links = Sequence[tuple[str, str]]  # names and addresses of files beside a page
TEMPLATES = Path(__file__).parent / "templates"


class Cell(NamedTuple):
    """A cell of a table: its text, and the number to sort by, if it is one."""

    text: str
    value: float | None = None


class Head(NamedTuple):
    """The title of a column; more: hidden until asked for."""

    title: str
    more: bool = False


class Table(NamedTuple):
    """A table that sorts by its heads. The first cell of each row is its head."""

    caption: str
    heads: list[Head]
    rows: list[list[Cell]]


class Illustration(NamedTuple):
    """A picture with its caption; uri: None with the reason as caption."""

    uri: str | None
    caption: str
    identifier: str = ""


class Origin(NamedTuple):
    """Provenance on a page: the command and date, the facts, and (name, address) of files."""

    provenance: Provenance | None
    facts: dict[str, Any]
    links: list[tuple[str, str]]


def render(template: str, **parts: Any) -> str:
    """The page of a template."""
    return _environment().get_template(template).render(**parts)


@cache
def _environment() -> Environment:
    return Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def text_table(caption: str, titles: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """A table of texts; it sorts by the number that a text begins with."""
    cells = [[Cell(text, leading_number(text)) for text in row] for row in rows]
    return Table(caption, [Head(title) for title in titles], cells)


def leading_number(text: str) -> float | None:
    """The number at the beginning of a text: 0.5 of "0.5 [0.4, 0.6]", 19100 of "19,100"."""
    try:
        return float(text.split(" ")[0].lstrip("<").replace("−", "-").replace(",", ""))
    except ValueError:
        return None


def illustration_in(folder: Path, file: str, caption: str, identifier: str = "") -> Illustration:
    """The picture of a name in a folder, or a line that says why there is none."""
    found = picture_in(folder, file)
    if found is None:
        reason = f"{caption}; {file} is absent or no PNG or WebP in the folder of the result"
        return Illustration(None, reason, identifier)
    return Illustration(data_uri(found), caption, identifier)


def link_to(path: Path, folder: Path) -> tuple[str, str]:
    """The name of a file, and its address relative to the folder of a page."""
    return path.name, quote(Path(os.path.relpath(path, folder)).as_posix())


def origin_of(provenance: Provenance, links: Links) -> Origin:
    """The footer of a page."""
    return Origin(provenance, json_of(provenance), [*links])
