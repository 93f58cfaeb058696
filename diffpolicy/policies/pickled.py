"""Checkpoints of PyTorch with a pickle inside, read as plain data; no code of theirs runs.

A file is a zip: ROOT/data.pkl is the pickle, ROOT/data/N the numbers of one storage. The classes
that the pickle names are replaced by inert ones; all others are refused by their name.
"""

import io
import math
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from diffpolicy.data.unpickler import OPCODES, check_opcodes
from diffpolicy.errors import DiffpolicyError

TYPES = {  # of the numbers of a storage
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
DEEPEST = 50  # greatest nesting of a configuration
REPEATED = 8  # sizes of the file that all of its content may take: a pickle can list parts twice
DAMAGE = (KeyError, zipfile.BadZipFile, OSError, EOFError, ValueError, RuntimeError)  # of a zip
VALUE = 100  # bytes that a value of a configuration takes, about


class Sealed(type):
    """Class whose attributes a pickle cannot change."""

    def __setattr__(cls, name: str, value: Any) -> None:
        raise DiffpolicyError(f"the pickle changes the class {cls.__name__}")


class Bag(metaclass=Sealed):
    """Object of a class that is not loaded: nothing but its attributes."""

    def __init__(self, *arguments: Any):
        self.arguments = arguments


class Node(Bag):
    """Node of an OmegaConf configuration: `_content` of a dict or list, `_val` of a value."""


class Numbers(NamedTuple):
    """Reference to a storage: type and count of its numbers, and the name of its file."""

    dtype: torch.dtype
    key: str
    length: int


class Slice(metaclass=Sealed):
    """A tensor whose numbers are not read yet."""

    def __init__(self, storage: Any, offset: Any, size: Any, stride: Any, *others: Any):
        self.storage, self.offset, self.size, self.stride = storage, offset, size, stride


class First(metaclass=Sealed):
    """Call that returns its first argument: the tensor of a parameter, the name of a type."""

    def __new__(cls, first: Any, *others: Any) -> Any:
        """The argument."""
        return first


class Plain(dict, metaclass=Sealed):
    """A dict with or without a default, which is left out."""

    def __init__(self, *others: Any):
        super().__init__()


ADMITTED: dict[str, Any] = {
    **{f"collections.{name}": Plain for name in ("OrderedDict", "defaultdict")},
    "_codecs.encode": Bag,  # of bytes, pickles of their own
    **{f"dill.{module}._load_type": First for module in ("_dill", "dill")},
    "torch._utils._rebuild_tensor_v2": Slice,
    "torch._utils._rebuild_parameter": First,
    **{f"torch.{name}": name for name in TYPES},
    **{f"omegaconf.{name}": Node for name in ("dictconfig.DictConfig", "listconfig.ListConfig")},
    **{
        f"omegaconf.nodes.{kind}Node": Node
        for kind in ("Any", "String", "Integer", "Float", "Boolean", "Bytes", "Path", "Enum")
    },
    **{f"omegaconf.base.{name}": Bag for name in ("Metadata", "ContainerMetadata")},
    **{f"typing.{name}": name for name in ("Any", "Union", "Optional", "Dict", "List")},
    **{
        f"{module}.{name}": name
        for module in ("builtins", "__builtin__")
        for name in ("dict", "list", "tuple", "str", "int", "float", "bool", "bytes", "object")
    },
}


class Restricted(pickle.Unpickler):
    """Unpickler that finds the admitted names alone."""

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        """Return the inert stand-in of a name. Raises DiffpolicyError for any other."""
        name = f"{module_name}.{global_name}"
        if name not in ADMITTED:
            raise DiffpolicyError(
                f"its pickle asks for {name[:80]!r}; only tensors and plain configurations are "
                "read, and nothing is run"
            )
        return ADMITTED[name]

    def persistent_load(self, pid: Any) -> Numbers:
        """Return the reference to a storage: ("storage", type, key, device, count)."""
        match pid:
            case "storage", str(dtype), str(key), _, int(count) if dtype in TYPES:
                return Numbers(TYPES[dtype], key, count)
        raise DiffpolicyError("its pickle refers to a damaged storage")


class TorchFile:
    """A checkpoint that is open: `payload` is its content, tensors as `Slice`.

    Raises DiffpolicyError for a file that is no such zip, or that asks for anything else.
    """

    def __init__(self, path: Path):
        self.path = path
        try:
            self._zip = zipfile.ZipFile(path)
            [pickled] = [n for n in self._zip.namelist() if n.count("/") == 1 and _is_pickle(n)]
        except DAMAGE as error:
            raise DiffpolicyError(
                f"{path} is not a checkpoint of PyTorch; expected a zip with one data.pkl, as "
                "torch.save writes it since 1.6"
            ) from error
        self._root = pickled.rpartition("/")[0]
        self._storages: dict[str, bytearray] = {}
        self._left = REPEATED * path.stat().st_size
        self.payload = self._unpickle(self._read(pickled))

    def _unpickle(self, content: bytes) -> Any:
        try:
            check_opcodes(content, OPCODES | {"NEWOBJ", "BINPERSID"})
            return Restricted(io.BytesIO(content)).load()
        except DiffpolicyError as error:
            raise DiffpolicyError(f"{self.path} is refused: {error}") from error
        except Exception as error:  # a damaged pickle fails in many ways
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            raise DiffpolicyError(f"{self.path}: its pickle cannot be read: {reason}") from error

    def _read(self, name: str) -> bytes:
        """Content of a file of the zip, which is not compressed and so bounded by its size."""
        try:
            if self._zip.getinfo(name).compress_type != zipfile.ZIP_STORED:
                raise DiffpolicyError(f"{self.path}: {name} is compressed; torch.save does not")
            return self._zip.read(name)
        except DAMAGE as error:
            raise DiffpolicyError(f"{self.path}: {name} cannot be read: {error}") from error

    def tensor(self, found: Slice) -> Tensor:
        """The numbers of a tensor of the payload."""
        match vars(found):
            case {"storage": Numbers() as s, "offset": int(offset), "size": size, "stride": stride}:
                content = self._storage(s.key)
                if _fits(s, len(content), offset, size, stride):
                    self._spend(4 * math.prod(size))  # in float32
                    whole = torch.frombuffer(content or bytearray(8), dtype=s.dtype)
                    return whole.as_strided(size, stride, offset).clone()
        raise DiffpolicyError(f"{self.path} holds a damaged tensor")

    def tensors(self, found: Any) -> dict[str, Tensor]:
        """The tensors of a state dict of the payload."""
        if not isinstance(found, Mapping):
            raise DiffpolicyError(f"{self.path} holds a damaged state dict")
        return {str(k): self.tensor(x) for k, x in found.items() if isinstance(x, Slice)}

    def plain(self, node: Any, deeper: int = DEEPEST) -> Any:
        """A configuration of OmegaConf as dicts, lists and values that JSON can hold.

        deeper: levels that it may have. NaN and inf are texts. Raises DiffpolicyError.
        """
        self._spend(VALUE + (len(node) if isinstance(node, str) else 0))
        if deeper < 0:
            raise DiffpolicyError(f"{self.path}: its configuration is nested too deeply")
        if isinstance(node, Node):
            attributes = vars(node)
            return self.plain(attributes.get("_content", attributes.get("_val")), deeper - 1)
        if isinstance(node, dict):
            return {_key(key): self.plain(value, deeper - 1) for key, value in node.items()}
        if isinstance(node, list | tuple):
            return [self.plain(value, deeper - 1) for value in node]
        if isinstance(node, float) and not math.isfinite(node):
            return str(node)
        if node is None or isinstance(node, str | float) or _is_short(node):
            return node
        raise DiffpolicyError(f"{self.path}: its configuration holds more than plain values")

    def _storage(self, key: str) -> bytearray:
        """Numbers of a storage, which is read once."""
        if key not in self._storages:
            self._storages[key] = bytearray(self._read(f"{self._root}/data/{key}"))
            self._spend(len(self._storages[key]))
        return self._storages[key]

    def _spend(self, count: int) -> None:
        """Count bytes of the content. Raises DiffpolicyError for far more than the file has."""
        self._left -= count
        if self._left < 0:
            raise DiffpolicyError(f"{self.path} is refused: its content repeats without end")


def _is_pickle(name: str) -> bool:
    return name.endswith("/data.pkl")


def _fits(storage: Numbers, size_bytes: int, offset: int, size: Any, stride: Any) -> bool:
    """True for a part of the storage that is no larger than it."""
    whole = all(
        isinstance(part, tuple) and all(type(n) is int and n >= 0 for n in part)
        for part in (size, stride)
    )
    if (
        not whole
        or len(size) != len(stride)
        or size_bytes != storage.length * storage.dtype.itemsize
    ):
        return False
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    return (
        offset >= 0 and math.prod(size) <= storage.length and (0 in size or last < storage.length)
    )


def _is_short(node: Any) -> bool:
    """True for an integer that JSON readers can hold."""
    return isinstance(node, int) and abs(node) < 2**63


def _key(key: Any) -> str:
    if not isinstance(key, str) and not _is_short(key):
        raise DiffpolicyError(f"a key of its configuration is a {type(key).__name__}, not a text")
    return str(key)
