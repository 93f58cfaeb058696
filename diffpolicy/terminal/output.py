"""Output of a command: what --quiet leaves out, what --verbose adds, and `--json -`.

The level of the logger "diffpolicy" decides: INFO in a command, WARNING with --quiet, DEBUG with
--verbose. Code that is called from Python, without a command, says what a command says.
"""

import logging
import os
import re
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from contextvars import ContextVar
from pathlib import Path

WIDTH = 100  # of a terminal
GLUE = "\N{NO-BREAK SPACE}"
STDOUT = Path("-")  # as a file for a result: the standard output
LOGGER = logging.getLogger("diffpolicy")
_HELD: ContextVar[list[str] | None] = ContextVar("texts for the standard output", default=None)


class Printed(logging.Handler):
    """Show messages of the library as plain lines on stdout."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print one message."""
        print(record.getMessage())


def is_quiet() -> bool:
    """True if only results and warnings are shown, without progress."""
    return LOGGER.level > logging.INFO


def wrapped(text: str) -> str:
    """A paragraph within WIDTH columns; no word is broken, and nothing in backquotes."""
    kept = re.sub("`[^`]*`", lambda quoted: quoted[0].replace(" ", GLUE), text)
    found = textwrap.fill(
        kept, WIDTH, subsequent_indent="   ", break_long_words=False, break_on_hyphens=False
    )
    return found.replace(GLUE, " ")


def counted(number: int, noun: str) -> str:
    """A number with its noun, in the plural unless it is one."""
    return f"{number:,} {noun}{'s' * (number != 1)}"


def say(text: str) -> None:
    """Print a line about the progress of a command, unless it is quiet."""
    if not is_quiet():
        print(text)


@contextmanager
def command_output(
    quiet: bool = False, verbose: bool = False, only: bool = False
) -> Iterator[None]:
    """Show what a command says; only: nothing but the texts of `print_alone` reaches stdout."""
    level = logging.WARNING if quiet else logging.DEBUG if verbose else logging.INFO
    before = LOGGER.level, LOGGER.handlers
    LOGGER.setLevel(level)
    LOGGER.handlers = [Printed()]
    try:
        if only:
            with _held_back():
                yield
        else:
            yield
    finally:
        LOGGER.setLevel(before[0])
        LOGGER.handlers = before[1]


def print_alone(text: str) -> None:
    """Print a text to the standard output, where nothing else is if the command says so."""
    held = _HELD.get()
    if held is None:
        print(text)
    else:
        held.append(text)


@contextmanager
def _held_back() -> Iterator[None]:
    """Send what is printed to stderr, that of child processes too; then print the held texts.

    Not after an error; SystemExit is the status of a result, as of compare --fail-on-regression.
    """
    texts: list[str] = []
    token = _HELD.set(texts)
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    ended: SystemExit | None = None
    try:
        with redirect_stdout(sys.stderr):
            yield
    except SystemExit as status:
        ended = status
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)
        _HELD.reset(token)
    for text in texts:
        print(text)
    if ended:
        raise ended
