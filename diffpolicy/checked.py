"""Validation of options and JSON files against dataclasses.

The annotation of a field declares its range: `threads: Annotated[int, Range(1, 1024)] = 1`. For a
tuple it is the range of each item; NOT_EMPTY requires at least one item, PRINTABLE a text without
control characters.
"""

import json
import math
from collections.abc import Iterable
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from diffpolicy.errors import DiffpolicyError

NOT_EMPTY = "at least one value"
PRINTABLE = "printable text"
LARGEST = 1e308  # larger integers do not fit in a float
DEEPEST = 50  # greatest nesting of a JSON document
KINDS: dict[Any, tuple[Any, str]] = {  # accepted types of JSON data, name in messages
    **{bool: (bool, "true or false"), int: (int, "a whole number"), str: (str, "a text")},
    **{float: ((int, float), "a number"), dict: (dict, "an object")},
    **{list: (list, "a list"), tuple: ((list, tuple), "a list")},
}


@dataclass(frozen=True)
class Range:
    """Inclusive range of the numbers of a field."""

    low: float
    high: float


class Checked:
    """Base of configurations: check that all numbers are finite and in range.

    Raises DiffpolicyError with the name of the option. A leading ~ of a path is expanded.
    """

    def __post_init__(self):
        for name, kind in hints(type(self)).items():
            value = getattr(self, name)
            if isinstance(value, Path) and value.parts[:1] == ("~",):  # as in --out=~/run
                object.__setattr__(self, name, value.expanduser())
            _check_rules("--" + name.replace("_", "-"), value, getattr(kind, "__metadata__", ()))


@cache
def hints(kind: type) -> dict[str, Any]:
    """Annotated types of a dataclass's fields, by name."""
    found = get_type_hints(kind, include_extras=True)
    return {field.name: found[field.name] for field in fields(kind)}


def _check_rules(name: str, value: Any, rules: Iterable[Any]) -> None:
    if NOT_EMPTY in rules and not value:
        raise DiffpolicyError(f"{name} needs {NOT_EMPTY}")
    if PRINTABLE in rules and isinstance(value, str) and not value.isprintable():
        raise DiffpolicyError(f"{name} must be {PRINTABLE}; got {shown(value)}")
    for number in value if isinstance(value, tuple | list) else (value,):
        if isinstance(number, float) and not math.isfinite(number):
            raise DiffpolicyError(f"{name} must be finite; got {shown(number)}")
        if isinstance(number, int | float) and not isinstance(number, bool):
            for rule in rules:
                if isinstance(rule, Range) and not rule.low <= number <= rule.high:
                    broken = _broken(rule, number)
                    raise DiffpolicyError(f"{name} must be {broken}; got {shown(number)}")


def _broken(rule: Range, number: float) -> str:
    if number > rule.high:
        return f"at most {rule.high:.12g}"
    return "positive" if number <= 0 < rule.low else f"at least {rule.low:.12g}"


def validate(kind: Any, data: Any, where: str, others: bool = False) -> Any:
    """Convert JSON data to a type, usually a dataclass.

    Every field must be present, of its type and in its range. Unknown fields are refused. With
    `others` they are ignored, and fields with a default may be absent. Raises DiffpolicyError with
    the place: `where` (the file), then the field.
    """
    origin, parts = get_origin(kind) or kind, get_args(kind)
    if origin is Annotated:
        value = validate(parts[0], data, where, others)
        _check_rules(where, value, parts[1:])
        return value
    if is_dataclass(kind):
        return _instance(kind, data, where, others)
    if origin is Any or (origin in (Union, UnionType) and data is None and NoneType in parts):
        return data
    if origin in (Union, UnionType):
        [rest] = (part for part in parts if part is not NoneType)
        return validate(rest, data, where, others)
    if origin is Literal:
        return _expect(data in parts, data, where, f"one of {', '.join(map(str, parts))}")
    accepted, noun = KINDS[origin]
    fits = isinstance(data, accepted) and (origin is bool or not isinstance(data, bool))
    fits = fits and not (origin is float and isinstance(data, int) and abs(data) > LARGEST)
    data = _expect(fits, data, where, noun)
    if origin is tuple and Ellipsis not in parts:
        _expect(len(data) == len(parts), data, where, f"a list of {len(parts)}")
    if origin in (tuple, list):
        items = (validate(parts[0], item, f"{where}[{i}]", others) for i, item in enumerate(data))
        return origin(items)
    if origin is dict:
        names = [validate(parts[0], name, f"a name in {where}", others) for name in data]
        return {n: validate(parts[1], data[n], f"{where}.{n}", others) for n in names}
    _check_rules(where, data, ())
    return data


def _instance(kind: Any, data: Any, where: str, others: bool) -> Any:
    _expect(isinstance(data, dict), data, where, "an object")
    types = hints(kind)
    if others:
        types = {f.name: types[f.name] for f in fields(kind) if f.name in data or _required(f)}
    if missing := [name for name in types if name not in data]:
        raise DiffpolicyError(f"{where} lacks {', '.join(missing)}")
    if not others and (unknown := sorted(data.keys() - types)):
        raise DiffpolicyError(f"{where} has unknown fields: {shown(', '.join(unknown))}")
    found = {n: validate(t, data[n], f"{where}.{n}", others) for n, t in types.items()}
    try:
        return kind(**found)
    except DiffpolicyError as error:
        raise DiffpolicyError(f"{where}: {error}") from error


def _required(field: Field) -> bool:
    return field.default is MISSING and field.default_factory is MISSING


def _expect(fits: bool, data: Any, where: str, expected: str) -> Any:
    if not fits:
        raise DiffpolicyError(f"{where} must be {expected}; got {shown(data)}")
    return data


def shown(data: Any) -> str:
    """Format a value for a message, at most 80 characters."""
    text = repr(data)
    return text if len(text) <= 80 else f"{text[:77]}..."


def read_json(path: Path) -> Any:
    """Read a JSON document from a regular file; a pipe might never end."""
    if path.exists() and not path.is_file():
        raise DiffpolicyError(f"{path} is not a file; expected a JSON document")
    return parse_json(path.read_bytes(), str(path))


def parse_json(text: str | bytes, where: str) -> Any:
    """Parse a JSON document; refuse NaN, infinity, duplicate names and deep nesting.

    Raises DiffpolicyError, with `where` as the name of the document.
    """
    try:
        text = text if isinstance(text, str) else text.decode("utf-8")
        found = json.loads(
            text, parse_constant=_finite, parse_float=_finite, object_pairs_hook=_object
        )
        _walk(found, DEEPEST)
        return found
    except RecursionError:
        raise DiffpolicyError(
            f"{where} is nested too deeply; expected at most {DEEPEST} levels"
        ) from None
    except ValueError as error:
        raise DiffpolicyError(f"{where} is not a JSON document: {error}") from error


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is not a finite number")
    return number


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("an object has a duplicate name")
    return found


def _walk(data: Any, left: int) -> None:
    """Raise RecursionError beyond `left` levels, ValueError for an unpaired surrogate."""
    if left < 0:
        raise RecursionError
    if isinstance(data, str):
        data.encode()
    elif isinstance(data, dict | list):
        for item in (*data, *(data.values() if isinstance(data, dict) else ())):
            _walk(item, left - 1)
