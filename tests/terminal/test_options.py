"""Help texts of options: whole paragraphs, one for every option of every command."""

from dataclasses import dataclass, fields
from pathlib import Path

import pytest

from diffpolicy.cli import COMMANDS, named
from diffpolicy.config import Sampling
from diffpolicy.terminal.options import help_texts, parse


@dataclass(frozen=True)
class Base:
    """Options of two classes."""

    first: Path | None = None
    """A text of
    two lines (and
    a third)."""


@dataclass(frozen=True)
class Both(Base):
    """Options of a class with a base."""

    second: tuple[int, ...] = ()
    """Another text."""


def test_the_lines_of_a_text_are_joined():
    texts = {"first": "A text of two lines (and a third).", "second": "Another text."}
    assert help_texts(Both) == texts


def test_options_are_those_of_the_class():
    given = ["--first", "a", "--second", "1", "2", "--quiet"]
    assert parse(Both, given, "x") == (Both(Path("a"), (1, 2)), True)
    found, quiet = parse(Both, [], "x")
    assert (type(found), quiet) == (Both, False)


def test_options_of_a_base_are_a_group_of_the_help_under_their_own_names(capsys):
    with pytest.raises(SystemExit):
        parse(Both, ["--help"], "x")
    before, after = capsys.readouterr().out.split("base options")
    assert "--second" in before and "--quiet" in before
    assert "--first PATH" in after and "Options of two classes." in after


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_of_a_command_has_a_help_text(name):
    kind = named(COMMANDS[name][0])
    assert {field.name for field in fields(kind)} <= help_texts(kind).keys()


@pytest.mark.parametrize("columns", [80, 100])
def test_help_fits_the_terminal_and_breaks_no_line_early(call, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    done = call("eval", "--help")
    lines = done.out.splitlines()
    assert done.code == 0 and max(map(len, lines)) == columns
    words = " ".join(line.strip("│ ") for line in lines)
    assert help_texts(Sampling)["late"].split(";")[0] in " ".join(words.split())
    assert "{None}" not in done.out and "default: None" not in done.out
