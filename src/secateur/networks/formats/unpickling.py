"""Reads the pickle of a `.pt` file as data: no name in the file is looked up, imported or called.

The restricted loader of PyTorch does not run foreign code either, but it calls functions that no checkpoint needs
(`bytearray(8e9)` is one instruction of a pickle), and lets a tensor resize its storage. Here a name is mapped to a
`Record`, or to one of the few `Maker`s below, which are the only callables.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from secateur.networks.formats.records import Record

# The C unpickler stores its memo in a list as long as the largest index in the file; this one uses a dict.
_PurePython: Any = vars(pickle)["_Unpickler"]

_OPCODES = (
    *("PROTO", "STOP", "MARK", "GLOBAL", "REDUCE", "NEWOBJ", "BUILD", "BINPERSID"),
    *("NONE", "NEWTRUE", "NEWFALSE", "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"),
    *("BINUNICODE", "SHORT_BINSTRING", "EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"),
    *("EMPTY_LIST", "APPEND", "APPENDS", "EMPTY_DICT", "SETITEM", "SETITEMS", "EMPTY_SET"),
    *("BINGET", "LONG_BINGET", "BINPUT", "LONG_BINPUT"),
)
"""Opcodes that PyTorch writes, the same as its restricted loader reads."""

_KEYS = (str, int, float, bytes, type(None), Record, Tensor)
"""Types of dict keys and set members: their hash is computed in constant time, unlike that of nested tuples."""


class ForeignError(Exception):
    """A name in a file that is not supported.

    Attributes:
        name: module and class.
    """

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


class BrokenError(Exception):
    """A pickle that no program wrote, or that declares more than it contains."""


class Maker:
    """A callable for pickles: one of our functions, which nothing in the pickle can change."""

    __slots__ = ("make",)

    def __init__(self, make: Callable[..., Any]) -> None:
        self.make = make


class StorageKind:
    """The class of a storage: its dtype."""

    __slots__ = ("dtype",)

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype


class Unpickler(_PurePython):  # type: ignore[misc]
    """Reads one pickle.

    Args:
        data: the pickle; bytes after it are not read.
        known: maps a name ("models.common.Conv") to a record class, a maker, or a kind of storage; None for unsupported
            names.
        storage: (kind, key, number of values) -> its values, [n].
    """

    def __init__(
        self,
        data: io.BytesIO,
        known: Callable[[str], Any],
        storage: Callable[[StorageKind, str, int], Tensor],
    ) -> None:
        super().__init__(data, encoding="utf-8")
        self._known, self._storage = known, storage

    def find_class(self, module: str, name: str) -> Any:
        """Maps a name.

        Raises:
            ForeignError: the name is not supported.
        """
        full = f"{module.replace('__builtin__', 'builtins')}.{name}"
        found = self._known("builtins.range" if full == "builtins.xrange" else full)
        if found is None:
            raise ForeignError(full)
        return found

    def persistent_load(self, pid: Any) -> Any:
        """A storage, in the notation of PyTorch."""
        if isinstance(pid, tuple) and len(pid) > 1 and pid[0] == "module":
            return pid[1]  # the class of a module with its source, in older files
        if not isinstance(pid, tuple) or not 5 <= len(pid) <= 6 or pid[0] != "storage":
            raise BrokenError("an invalid storage")
        kind, key, count = pid[1], pid[2], pid[4]
        if not isinstance(kind, StorageKind) or not isinstance(key, str) or not _is_size(count):
            raise BrokenError("an invalid storage")
        if len(pid) == 6 and pid[5] is not None:
            raise BrokenError("a view of a storage, as PyTorch wrote them before 0.4")
        return self._storage(kind, key, count)

    def load_reduce(self) -> None:
        """Calls a maker or creates a record; nothing else can be called."""
        args = self.stack.pop()
        called = self.stack[-1]
        if not isinstance(args, tuple):
            raise BrokenError("missing arguments")
        if isinstance(called, Maker):
            self.stack[-1] = called.make(*args)
        elif isinstance(called, type) and issubclass(called, Record):
            self.stack[-1] = called(*args)
        else:
            raise BrokenError("a call of something other than a class")

    def load_build(self) -> None:
        """Sets the attributes of a record; for other objects they are ignored."""
        state = self.stack.pop()
        made = self.stack[-1]
        if isinstance(made, Record):
            made.__setstate__(state)
        elif not isinstance(made, dict | set | Tensor):
            raise BrokenError("attributes of an object without attributes")

    def load_setitem(self) -> None:
        """One item of a dict."""
        value, key = self.stack.pop(), self.stack.pop()
        _put(self.stack[-1], [(key, value)])

    def load_setitems(self) -> None:
        """Items of a dict."""
        items = self.pop_mark()
        _put(self.stack[-1], zip(items[::2], items[1::2], strict=True))

    def load_append(self) -> None:
        """One item of a list."""
        value = self.stack.pop()
        _extend(self.stack[-1], [value])

    def load_appends(self) -> None:
        """Items of a list."""
        items = self.pop_mark()
        _extend(self.stack[-1], items)

    def load_empty_set(self) -> None:
        """A set without members."""
        self.append(set())


_OVERRIDDEN = {
    "REDUCE": Unpickler.load_reduce,
    "NEWOBJ": Unpickler.load_reduce,
    "BUILD": Unpickler.load_build,
    "SETITEM": Unpickler.load_setitem,
    "SETITEMS": Unpickler.load_setitems,
    "APPEND": Unpickler.load_append,
    "APPENDS": Unpickler.load_appends,
    "EMPTY_SET": Unpickler.load_empty_set,
}
_CODES = {name: getattr(pickle, name)[0] for name in _OPCODES}
Unpickler.dispatch = {code: _OVERRIDDEN.get(name, _PurePython.dispatch.get(code)) for name, code in _CODES.items()}


def _put(target: Any, items: Iterable[tuple[Any, Any]]) -> None:
    if type(target) is not dict:
        raise BrokenError("items of something other than a dict")
    for key, value in items:
        if not isinstance(key, _KEYS):
            raise BrokenError("a key of an unsupported type")
        target[key] = value


def _extend(target: Any, items: list[Any]) -> None:
    if type(target) is not list:
        raise BrokenError("items of something other than a list")
    target.extend(items)


def _is_size(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**48


def _dict(pairs: Any = (), *_: Any) -> dict[Any, Any]:
    """An ordered dict; in the old format with its pairs."""
    made: dict[Any, Any] = {}
    if isinstance(pairs, list | tuple) and all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in pairs):
        _put(made, [(pair[0], pair[1]) for pair in pairs])
    return made


def _default_dict(*_: Any) -> dict[Any, Any]:
    """A `collections.defaultdict`, without its factory."""
    return {}


def _set(members: Any = ()) -> set[Any]:
    if not isinstance(members, list | tuple) or not all(isinstance(member, _KEYS) for member in members):
        raise BrokenError("a set with members of an unsupported type")
    return set(members)


def _size(sizes: Any = ()) -> tuple[int, ...]:
    if not isinstance(sizes, list | tuple) or not all(_is_size(size) for size in sizes):
        raise BrokenError("an invalid shape")
    return tuple(sizes)


def _encoded(text: Any, encoding: Any = "latin1") -> bytes:
    """Bytes, as written by old pickles."""
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise BrokenError("bytes in an unsupported encoding")
    return text.encode("latin1")


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> Tensor:
    """A view of a storage, which must contain all of it."""
    if not isinstance(storage, Tensor) or storage.ndim != 1 or not _is_size(offset):
        raise BrokenError("a tensor without a storage")
    size, stride = _size(size), _size(stride)
    if len(size) != len(stride) or len(size) > 64:
        raise BrokenError("a tensor without a shape")
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if 0 not in size and last >= storage.numel():
        raise BrokenError("a tensor larger than its storage")
    count = 1
    for n in size:
        count *= n
    if count >= 2**48:
        raise BrokenError("a tensor that repeats a value too often")
    return storage.as_strided(size, stride, 0 if 0 in size else offset)


def _parameter(data: Any, *_: Any) -> Tensor:
    if not isinstance(data, Tensor):
        raise BrokenError("a parameter without values")
    return data


def _of_type(maker: Any, _: Any, args: Any, *__: Any) -> Any:
    """A tensor with attributes."""
    if not isinstance(maker, Maker) or maker.make not in (_tensor, _parameter) or not isinstance(args, tuple):
        raise BrokenError("a tensor of an unsupported type")
    return maker.make(*args)


MAKERS = {
    "collections.OrderedDict": Maker(_dict),
    "collections.defaultdict": Maker(_default_dict),
    "builtins.set": Maker(_set),
    "_codecs.encode": Maker(_encoded),
    "torch.Size": Maker(_size),
    "torch._utils._rebuild_tensor": Maker(_tensor),
    "torch._utils._rebuild_tensor_v2": Maker(_tensor),
    "torch._utils._rebuild_parameter": Maker(_parameter),
    "torch._utils._rebuild_parameter_with_state": Maker(_parameter),
    "torch.nn.parameter.Parameter": Maker(_parameter),
    "torch._tensor._rebuild_from_type_v2": Maker(_of_type),
}
_STORAGES = {
    **{"Double": torch.float64, "Float": torch.float32, "Half": torch.float16, "BFloat16": torch.bfloat16},
    **{"Long": torch.int64, "Int": torch.int32, "Short": torch.int16, "Char": torch.int8, "Byte": torch.uint8},
    **{"Bool": torch.bool, "ComplexFloat": torch.complex64, "ComplexDouble": torch.complex128},
}
STORAGES = {
    f"torch.{device}{name}Storage": StorageKind(dtype) for name, dtype in _STORAGES.items() for device in ("", "cuda.")
}
INERT = (
    *("torch.Tensor", "torch.device", "torch.serialization._get_layout"),
    *("builtins.bytearray", "builtins.complex", "collections.Counter"),
    *(f"torch.{name}" for name in ("float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8")),
    *("torch.uint8", "torch.bool", "torch.double", "torch.float", "torch.half", "torch.long", "torch.int"),
)
"""Names that the restricted loader of PyTorch also accepts and that no detector consists of; kept as records."""
