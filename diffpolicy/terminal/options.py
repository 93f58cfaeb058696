"""Options of a command as tyro shows them: help texts that wrap, and short names of values.

The help text of an option is the string below its field. tyro keeps the line breaks of that
string; here they are joined, so that only the width of the terminal breaks lines. Options stand in
groups, one for each base of their dataclass.
"""

import ast
import inspect
import re
from collections.abc import Sequence
from dataclasses import field, fields, make_dataclass
from inspect import get_annotations
from itertools import pairwise
from pathlib import Path
from textwrap import dedent
from types import NoneType, UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

import tyro

from diffpolicy.checked import hints

QUIET, QUIET_HELP = "quiet", "Print only results and warnings, no progress."
PLAIN = (str, int, float, Path)  # types of one value, named in the help in capitals
Options = TypeVar("Options")


def parse(kind: type[Options], arguments: Sequence[str], prog: str) -> tuple[Options, bool]:
    """The options that the arguments give, and --quiet, which every command has.

    Prints the help, or an error of tyro's, and raises SystemExit.
    """
    found = tyro.cli(with_help(kind), args=arguments, prog=prog)
    given = dict(vars(found))
    for title in groups(kind):
        given |= vars(given.pop(title))
    quiet = given.pop(QUIET)
    return kind(**given), quiet


def with_help(kind: type) -> type:
    """A dataclass with the fields of `kind`, annotated with their help for tyro, and --quiet.

    The fields of each base are a group of the help; its options have no prefix.
    """
    grouped = groups(kind)
    inner = {name for _, names in grouped.values() for name in names}
    made = _fields(kind, [f.name for f in fields(kind) if f.name not in inner])
    made.append((QUIET, Annotated[bool, tyro.conf.arg(help=QUIET_HELP)], field(default=False)))
    for title, (base, names) in grouped.items():
        group = _made(title, _fields(kind, names), base.__doc__)
        made.append((title, tyro.conf.OmitArgPrefixes[group], field()))
    return _made(kind.__name__, made, kind.__doc__)


def groups(kind: type) -> dict[str, tuple[type, list[str]]]:
    """Each base of a dataclass by its title in the help, with the names of its fields."""
    found: dict[str, tuple[type, list[str]]] = {}
    owner = {name: base for base in kind.__mro__[::-1] for name in get_annotations(base)}
    for f in fields(kind):
        if (base := owner[f.name]) is not kind:
            words = re.findall("[A-Z][a-z]*", base.__name__.removesuffix("Config"))
            found.setdefault("_".join(words).lower(), (base, []))[1].append(f.name)
    return found


def _fields(kind: type, names: Sequence[str]) -> list[tuple[str, Any, Any]]:
    """Fields of a dataclass as `make_dataclass` takes them, with their help."""
    types, texts = hints(kind), help_texts(kind)
    known = {f.name: f for f in fields(kind)}
    return [(n, _annotated(known[n], types[n], texts[n]), _copy(known[n])) for n in names]


def _made(name: str, made: Sequence[tuple[str, Any, Any]], about: str | None) -> type:
    return make_dataclass(name, made, namespace={"__doc__": about}, frozen=True, kw_only=True)


def help_texts(kind: type) -> dict[str, str]:
    """The strings below the fields of a dataclass and its bases, each in one line, by field."""
    found = {}
    for each in reversed([c for c in kind.__mro__ if c is not object]):
        [tree] = ast.parse(dedent(inspect.getsource(each))).body
        for statement, below in pairwise(getattr(tree, "body", ())):
            match statement, below:
                case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(ast.Constant(str(text))):
                    found[name] = " ".join(text.split())
    return found


def _annotated(given: Any, kind: Any, text: str) -> Any:
    hint = "" if given.default in (None, ()) else None  # its text says what holds by default
    about = tyro.conf.arg(help=text, metavar=_metavar(kind), help_behavior_hint=hint)
    return Annotated[kind, about]


def _metavar(kind: Any) -> str | None:
    """The name of an optional value's type, such as PATH; None leaves it to tyro."""
    kind = get_args(kind)[0] if get_origin(kind) is Annotated else kind
    parts = [part for part in get_args(kind) if part is not NoneType]
    optional = get_origin(kind) in (Union, UnionType) and len(parts) == 1
    return parts[0].__name__.upper() if optional and parts[0] in PLAIN else None


def _copy(given: Any) -> Any:
    known = ("default", "default_factory")
    return field(**{name: getattr(given, name) for name in known})
