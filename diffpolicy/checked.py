"""Values from outside: options and files, held against the dataclasses that they should fill.

A field says its range: `threads: Annotated[int | None, Range(1, 1024)] = None`. For a tuple it is
the range of each item, and NOT_EMPTY asks for at least one.
"""

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from diffpolicy.errors import DiffpolicyError

NOT_EMPTY = "at least one value"
LARGEST = 1e308  # a whole number beyond it is no float
DEEPEST = 50  # levels of a JSON document
KINDS = {
    **{bool: "true or false", int: "a whole number", float: "a number", str: "a text"},
    **{dict: "an object", list: "a list", tuple: "a list"},
}


@dataclass(frozen=True)
class Range:
    """The least and the largest number that a field takes."""

    low: float
    high: float


class Checked:
    """Every number of a configuration is finite and in its range, or DiffpolicyError."""

    def __post_init__(self):
        for name, kind in hints(type(self)).items():
            value = getattr(self, name)
            if isinstance(value, Path) and value.parts[:1] == ("~",):  # a shell leaves --out=~/run
                object.__setattr__(self, name, value.expanduser())
            _check_rules("--" + name.replace("_", "-"), value, rules_of(kind))


@cache
def hints(kind: type) -> dict[str, Any]:
    """The types of a dataclass's fields, with their ranges."""
    found = get_type_hints(kind, include_extras=True)
    return {field.name: found[field.name] for field in fields(kind)}


def rules_of(kind: Any) -> Sequence[Any]:
    """The ranges in a type's annotation."""
    return get_args(kind)[1:] if get_origin(kind) is Annotated else ()


def _check_rules(name: str, value: Any, rules: Iterable[Any]) -> None:
    if NOT_EMPTY in rules and not value:
        raise DiffpolicyError(f"{name} needs {NOT_EMPTY}")
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
    """JSON data as an instance of a type, a dataclass above all; DiffpolicyError says where not.

    Every field is there, of its type and in its range, and no other is. With `others`, other fields
    are ignored and a field with a default may be absent. where names the file, and then the field.
    """
    if get_origin(kind) is Annotated:
        value = validate(get_args(kind)[0], data, where, others)
        _check_rules(where, value, rules_of(kind))
        return value
    if is_dataclass(kind):
        return _record(kind, data, where, others)
    origin, parts = get_origin(kind) or kind, get_args(kind)
    if origin is Any or (origin in (Union, UnionType) and data is None and NoneType in parts):
        return data
    if origin in (Union, UnionType):
        [rest] = (part for part in parts if part is not NoneType)
        return validate(rest, data, where, others)
    if origin is Literal:
        return _typed(data, data in parts, where, f"one of {', '.join(map(str, parts))}")
    wanted = {tuple: (list, tuple), float: (int, float)}.get(origin, origin)
    fits = isinstance(data, wanted) and (origin is bool or not isinstance(data, bool))
    fits = fits and not (origin is float and isinstance(data, int) and abs(data) > LARGEST)
    data = _typed(data, fits, where, KINDS[origin])
    if origin is tuple and Ellipsis not in parts:
        _typed(data, len(data) == len(parts), where, f"a list of {len(parts)}")
    if origin in (tuple, list):
        items = (validate(parts[0], item, f"{where}[{i}]", others) for i, item in enumerate(data))
        return origin(items)
    if origin is dict:
        return {n: validate(parts[1], item, f"{where}.{n}", others) for n, item in data.items()}
    _check_rules(where, data, ())
    return data


def _record(kind: Any, data: Any, where: str, others: bool) -> Any:
    _typed(data, isinstance(data, dict), where, "an object")
    types = hints(kind)
    if others:
        types = {f.name: types[f.name] for f in fields(kind) if f.name in data or _required(f)}
    if missing := [name for name in types if name not in data]:
        raise DiffpolicyError(f"{where} lacks {', '.join(missing)}")
    if not others and (unknown := sorted(data.keys() - types)):
        raise DiffpolicyError(f"{where} has {shown(', '.join(unknown))}, which is not known here")
    found = {n: validate(t, data[n], f"{where}.{n}", others) for n, t in types.items()}
    try:
        return kind(**found)
    except DiffpolicyError as error:
        raise DiffpolicyError(f"{where}: {error}") from error


def _required(field: Field) -> bool:
    return field.default is MISSING and field.default_factory is MISSING


def _typed(data: Any, fits: bool, where: str, expected: str) -> Any:
    if not fits:
        raise DiffpolicyError(f"{where} must be {expected}; got {shown(data)}")
    return data


def shown(data: Any) -> str:
    """A value for a message, cut short."""
    text = repr(data)
    return text if len(text) <= 80 else f"{text[:77]}..."


def read_json(path: Path) -> Any:
    """The document in a regular file: a pipe would never end."""
    if path.exists() and not path.is_file():
        raise DiffpolicyError(f"{path} is not a file; expected a JSON document")
    return parse_json(path.read_bytes(), str(path))


def parse_json(text: str | bytes, where: str) -> Any:
    """A JSON document: UTF-8, of finite numbers, no name twice in an object, not deeply nested."""
    try:
        text = text if isinstance(text, str) else text.decode("utf-8")
        found = json.loads(
            text, parse_constant=_finite, parse_float=_finite, object_pairs_hook=_object
        )
        _walk(found, DEEPEST)
        return found
    except RecursionError:
        raise DiffpolicyError(f"{where} is nested too deeply to be read") from None
    except ValueError as error:
        raise DiffpolicyError(f"{where} is no JSON document: {error}") from error


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is not a finite number")
    return number


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("an object has one name twice")
    return found


def _walk(data: Any, left: int) -> None:
    """RecursionError beyond `left` levels, ValueError at half a character (a lone surrogate)."""
    if left < 0:
        raise RecursionError
    if isinstance(data, str):
        data.encode()
    elif isinstance(data, dict | list):
        for item in (*data, *(data.values() if isinstance(data, dict) else ())):
            _walk(item, left - 1)
