"""Docstrings of this project as Sphinx pages.

Most are plain text: paragraphs with `code`, and indented or aligned lines that stay as they are.
Those of environments are Markdown, as Gymnasium's are: the directive `docstring` renders them.
"""

import inspect
import re
from itertools import groupby
from pkgutil import resolve_name

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.util.docutils import SphinxDirective

KEPT = re.compile(r"^ {4}|\S {2,}\S")  # an indented line, or columns
CODE = re.compile(r"(`[^`\n]+`)")
MARKUP = re.compile(r"([\\*|]|_\b)")


def as_restructured_text(lines: list[str]) -> list[str]:
    """Paragraphs with their markup escaped, other lines as literal blocks."""
    found: list[str] = []
    for kept, group in groupby(lines, lambda line: bool(KEPT.search(line))):
        if kept:
            found += ["", "::", "", *(f"    {line}" for line in group), ""]
        else:
            found += map(escape, group)
    return found


def escape(line: str) -> str:
    """A line of prose: `code` becomes literal, and nothing else is markup."""
    parts = CODE.split(line)
    return "".join(f"`{p}`" if CODE.fullmatch(p) else MARKUP.sub(r"\\\1", p) for p in parts)


def process(app, what, name, obj, options, lines) -> None:
    """Rewrite the lines of one docstring in place (the event autodoc-process-docstring)."""
    lines[:] = as_restructured_text(lines)


class Docstring(SphinxDirective):
    """The Markdown docstring of an object: `module:name`."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Parse it in place of the directive."""
        text = inspect.getdoc(resolve_name(self.arguments[0])) or ""
        found = nodes.container()
        self.state.nested_parse(StringList(text.splitlines(), self.arguments[0]), 0, found)
        return [found]
