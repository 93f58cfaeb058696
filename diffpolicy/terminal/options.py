"""Options of a command as tyro shows them: help texts that wrap, and short names of values.

The help text of an option is the string below its field. tyro keeps the line breaks of that
string; here they are joined, so that only the width of the terminal breaks lines.
"""

import ast
import inspect
from collections.abc import Sequence
from dataclasses import field, fields, make_dataclass
from itertools import pairwise
from pathlib import Path
from textwrap import dedent
from types import NoneType, UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

import tyro

from diffpolicy.checked import hints

PLAIN = (str, int, float, Path)  # types of one value, named in the help in capitals
Options = TypeVar("Options")


def parse(kind: type[Options], arguments: Sequence[str], prog: str) -> Options:
    """The options that the arguments give.

    Prints the help, or an error of tyro's, and raises SystemExit.
    """
    found = tyro.cli(with_help(kind), args=arguments, prog=prog)
    return kind(**{name: getattr(found, name) for name in hints(kind)})


def with_help(kind: type) -> type:
    """A dataclass with the fields of `kind`, annotated with their help for tyro."""
    types, texts = hints(kind), help_texts(kind)
    made = [(f.name, _annotated(f, types[f.name], texts[f.name]), _copy(f)) for f in fields(kind)]
    return make_dataclass(kind.__name__, made, namespace={"__doc__": kind.__doc__}, frozen=True)


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
    known = ("default", "default_factory", "kw_only")
    return field(**{name: getattr(given, name) for name in known})
