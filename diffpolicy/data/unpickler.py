"""Unpickle numbers, texts, lists, dicts and NumPy arrays; everything else is refused by its name.

A pickle is a program. Its opcodes are read before any runs: those outside a list, lengths beyond
the file and far entries of the memo are refused, so memory is bounded by the size of the file; and
tuples of tuples without end, whose hash would end the process or never end. The functions that it
names are replaced by ones that check their arguments; none of NumPy's own is called with them.
"""

import io
import pickle
import pickletools
from collections.abc import Callable, Mapping
from typing import Any, cast

import numpy as np

from diffpolicy.errors import DiffpolicyError

OPCODES = frozenset(
    (
        *("PROTO", "FRAME", "STOP", "MARK", "POP", "POP_MARK", "DUP", "NONE", "NEWTRUE"),
        *("NEWFALSE", "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT"),
        *("BINFLOAT", "STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES"),
        *("BINBYTES8", "BYTEARRAY8", "UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"),
        *("EMPTY_LIST", "APPEND", "APPENDS", "LIST", "EMPTY_TUPLE", "TUPLE", "TUPLE1"),
        *("TUPLE2", "TUPLE3", "EMPTY_DICT", "DICT", "SETITEM", "SETITEMS", "GET", "BINGET"),
        *("LONG_BINGET", "PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE", "GLOBAL", "STACK_GLOBAL"),
        *("REDUCE", "BUILD", "NEWOBJ", "NEWOBJ_EX", "OBJ", "INST"),
    )
)
MEMO = {"PUT", "BINPUT", "LONG_BINPUT"}
RECALL = {"GET", "BINGET", "LONG_BINGET"}
TUPLES = {"EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"}
LARGEST_TUPLE = 10_000  # values, with those of the tuples in it, each time that they are in it
CALLS = {"REDUCE", "BUILD", "NEWOBJ", "NEWOBJ_EX", "OBJ", "INST", "BINPERSID"}  # may give arguments
ORDERS = ("<", "=", "|")  # of the bytes of a number

Admitted = Mapping[tuple[str, str], Callable[..., Any]]


class Sealed:
    """An admitted function, which a pickle can call but not change."""

    __slots__ = ("call",)

    def __init__(self, call: Callable[..., Any]):
        self.call = call

    def __call__(self, *arguments: Any) -> Any:
        """Call the function."""
        return self.call(*arguments)

    def __setstate__(self, state: Any) -> None:
        raise DiffpolicyError("the pickle changes a function")


class _Type:
    """Type of numbers of an array: np.dtype(name, align, copy), then its byte order."""

    __slots__ = ("dtype",)

    def __init__(self, name: Any, align: Any = False, copy: Any = False):
        if not isinstance(name, str) or len(name) > 3 or not _is_number(np.dtype(name)):
            raise DiffpolicyError(
                f"the pickle holds an array of {str(name)[:20]!r}, not of numbers"
            )
        self.dtype = np.dtype(name)

    def __setstate__(self, state: Any) -> None:
        if state[1] not in ORDERS or any(state[2:5]):
            raise DiffpolicyError("the pickle holds an array of an unusual type of numbers")


class _Array(np.ndarray):
    """Array whose content follows: shape, type, order and bytes that belong together."""

    def __setstate__(self, state: Any, /) -> None:
        _, shape, kind, fortran, content = state
        if type(kind) is not _Type or type(content) is not bytes or type(shape) is not tuple:
            raise DiffpolicyError("the pickle holds a damaged array")
        values = np.frombuffer(content, kind.dtype).reshape(shape, order="F" if fortran else "C")
        state = 1, values.shape, kind.dtype, bool(fortran), content
        super().__setstate__(cast(Any, state))


def _is_number(dtype: np.dtype) -> bool:
    return dtype.kind in "fiub" and dtype.itemsize <= 8


def _reconstruct(subtype: Any, shape: Any, code: Any) -> _Array:
    """An empty array, which a state fills afterwards."""
    if getattr(subtype, "call", None) is not _ndarray or shape != (0,):
        raise DiffpolicyError("the pickle makes an array in an unusual way")
    return np.empty(0, np.int8).view(_Array)


def _ndarray(*arguments: Any) -> Any:
    """Name of the class of arrays; calling it would allocate memory."""
    raise DiffpolicyError("the pickle makes an array in an unusual way")


def _from_buffer(content: Any, kind: Any, shape: Any, order: Any) -> np.ndarray:
    """Array of the bytes of protocol 5."""
    if (
        type(kind) is not _Type
        or type(content) not in (bytes, bytearray)
        or order not in ("C", "F")
    ):
        raise DiffpolicyError("the pickle holds a damaged array")
    return np.frombuffer(content, kind.dtype).reshape(shape, order=order).view(_Array)


def _scalar(kind: Any, content: Any = b"") -> Any:
    """One NumPy number."""
    if type(kind) is not _Type or type(content) is not bytes:
        raise DiffpolicyError("the pickle holds a damaged number")
    [value] = np.frombuffer(content, kind.dtype)
    return value


ARRAYS: Admitted = {
    ("numpy", "ndarray"): _ndarray,
    ("numpy", "dtype"): _Type,
    **{(f"numpy.{c}.multiarray", "_reconstruct"): _reconstruct for c in ("core", "_core")},
    **{(f"numpy.{c}.multiarray", "scalar"): _scalar for c in ("core", "_core")},
    **{(f"numpy.{c}.numeric", "_frombuffer"): _from_buffer for c in ("core", "_core")},
}


class Restricted(pickle.Unpickler):
    """Unpickler that finds nothing but the admitted names."""

    def __init__(self, content: bytes, admitted: Admitted):
        super().__init__(io.BytesIO(content))
        self.admitted = admitted

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        """Return what is admitted under a name; raise DiffpolicyError for any other."""
        found = self.admitted.get((module_name, global_name))
        if found is None:
            name = f"{module_name}.{global_name}"[:80]
            raise DiffpolicyError(f"the pickle asks for {name!r}; only arrays are admitted")
        return Sealed(found)


def check_opcodes(content: bytes, opcodes: frozenset[str] = OPCODES) -> None:
    """Raise DiffpolicyError for an opcode, length or memo entry that is not admitted.

    Lengths are those of their bytes in the content, or reading them fails.
    """
    argument: Any
    tuples = _Tuples()
    for count, (opcode, argument, _) in enumerate(pickletools.genops(content)):
        if opcode.name not in opcodes:
            raise DiffpolicyError(f"the pickle has the opcode {opcode.name}, which is not admitted")
        if opcode.name in MEMO and int(argument) > count:
            raise DiffpolicyError(f"the pickle numbers its {count}th opcode {argument}")
        if opcode.name == "FRAME" and argument > len(content):
            raise DiffpolicyError("the pickle is truncated")
        tuples.see(opcode, argument)


class _Tuples:
    """Size of the tuple in each entry of the stack and the memo, else 1; None for a mark."""

    def __init__(self):
        self.stack: list[int | None] = []
        self.memo: dict[int, int | None] = {}

    def see(self, opcode: pickletools.OpcodeInfo, argument: Any) -> None:
        """Follow one opcode. Raises DiffpolicyError at a tuple that is too large."""
        if opcode.name == "MARK":
            self.stack.append(None)
        elif opcode.name in MEMO or opcode.name == "MEMOIZE":
            place = len(self.memo) if opcode.name == "MEMOIZE" else argument
            self.memo[place] = self.stack[-1] if self.stack else 1
        elif opcode.name in RECALL:
            self.stack.append(self.memo.get(argument, 1))
        elif opcode.name == "DUP":
            self.stack += self.stack[-1:]
        else:
            taken = self._taken(opcode)
            size = 1 + sum(taken) if opcode.name in TUPLES | CALLS else 1
            if size > LARGEST_TUPLE:
                raise DiffpolicyError(f"the pickle has a tuple of over {LARGEST_TUPLE} values")
            self.stack += [size] * len(opcode.stack_after)

    def _taken(self, opcode: pickletools.OpcodeInfo) -> list[int]:
        """Sizes of the entries that an opcode takes from the stack."""
        before, taken = opcode.stack_before, []
        if pickletools.markobject in before:
            while self.stack and (size := self.stack.pop()) is not None:
                taken.append(size)
            before = before[: before.index(pickletools.markobject)]
        for _ in before[: len(self.stack)]:
            taken.append(self.stack.pop() or 1)
        return taken


def unpickle(content: bytes, what: object, admitted: Admitted = ARRAYS) -> Any:
    """Object of a pickle; `what` names it in messages. Raises DiffpolicyError for anything else."""
    try:
        check_opcodes(content)
        return Restricted(content, admitted).load()
    except DiffpolicyError as error:
        raise DiffpolicyError(f"{what} is refused: {error}") from error
    except MemoryError as error:
        raise DiffpolicyError(f"{what} cannot be read: there is not enough memory") from error
    except Exception as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise DiffpolicyError(f"{what} is not a pickle that can be read: {reason}") from error
