"""Reads foreign `.pt` files as data: every class in them becomes an inert record, and nothing in them is executed.

`torch.load(weights_only=True)` builds tensors and plain containers only. The class names that YOLOv5 checkpoints carry
are mapped to records of ours, which keep attributes and do nothing; any other name is refused.
"""

from __future__ import annotations

import re
import warnings
import zipfile
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from secateur.errors import UserError

EXPECTED = "expected is a YOLOv5 checkpoint (.pt of v5.0 to v7.0) or a Secateur checkpoint (.safetensors)"


class Record:
    """What is left of an object of a foreign class: its class name, constructor arguments and attributes.

    The attributes lie in a dict of their own, so that no name in a file can hide a method.
    """

    __slots__ = ("args", "attributes", "kind")
    origin = ""
    args: tuple[Any, ...]
    attributes: dict[str, Any]
    kind: str

    def __new__(cls, *args: Any) -> Record:
        record = super().__new__(cls)
        record.args, record.attributes, record.kind = args, {}, cls.origin
        return record

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, dict):
            self.attributes.update(state)

    def members(self, group: str) -> dict[str, Any]:
        """Parameters, buffers or submodules of a module: `group` is the name of torch's dict of them."""
        members = self.attributes.get(group)
        return members if isinstance(members, dict) else {}

    def get(self, name: str, default: Any = None) -> Any:
        """An attribute, or a parameter, buffer or submodule of that name."""
        for members in (self.attributes, *map(self.members, ("_parameters", "_buffers", "_modules"))):
            if name in members:
                return members[name]
        return default

    def rename(self, kind: str, names: Mapping[str, str]) -> None:
        """From here on this is a module of another class, whose submodules have other names."""
        self.kind = kind
        members = self.members("_modules")
        renamed = {names.get(name, name): member for name, member in members.items()}
        members.clear()
        members.update(renamed)

    def modules(self) -> dict[str, Record]:
        """Submodules by name."""
        return {k: v for k, v in self.members("_modules").items() if isinstance(v, Record)}


_BLOCK_MODULES = ("models.common", "models.experimental", "models.yolo")
_NAMES = {
    "models.yolo": "Model DetectionModel BaseModel",
    "torch.nn.modules.activation": "SiLU ReLU ReLU6 LeakyReLU Hardswish Hardsigmoid Hardtanh Mish GELU SELU ELU CELU "
    "Sigmoid Tanh Softplus MultiheadAttention",
    "torch.nn.modules.batchnorm": "BatchNorm2d SyncBatchNorm",
    "torch.nn.modules.container": "ModuleList Sequential ModuleDict",
    "torch.nn.modules.conv": "Conv2d ConvTranspose2d",
    "torch.nn.modules.dropout": "Dropout",
    "torch.nn.modules.linear": "Linear Identity NonDynamicallyQuantizableLinear",
    "torch.nn.modules.padding": "ZeroPad2d",
    "torch.nn.modules.pooling": "MaxPool2d",
    "torch.nn.modules.upsampling": "Upsample",
    "numpy": "dtype ndarray",
    "numpy.core.multiarray": "_reconstruct scalar",
    "numpy._core.multiarray": "_reconstruct scalar",
    "numpy.dtypes": "Float64DType Float32DType Float16DType Int64DType Int32DType UInt8DType BoolDType",
    "pathlib": "Path PurePath PosixPath WindowsPath PurePosixPath PureWindowsPath",
    "pathlib._local": "PosixPath WindowsPath PurePosixPath PureWindowsPath",
    "argparse": "Namespace",
    "builtins": "dict list slice range frozenset getattr",  # folded models carry a bound method: kept inert
}


def _plain_dict(*_: Any) -> dict[Any, Any]:
    """Stands for `collections.defaultdict`, whose factory is not wanted."""
    return {}


def known_names(blocks: Iterable[str]) -> list[str]:
    """Full names of the classes of stock YOLOv5 and of libraries that may occur in a file."""
    named = [f"{module}.{name}" for module, names in _NAMES.items() for name in names.split()]
    return named + [f"{module}.{name}" for module in _BLOCK_MODULES for name in blocks]


def _allow_list(kinds: Mapping[str, str]) -> list[tuple[Callable[..., Any], str]]:
    """(stand-in, full name) of every foreign name that may occur; each name has a record class of its own."""
    pairs: list[tuple[Callable[..., Any], str]] = [(_plain_dict, "collections.defaultdict")]
    for name, kind in kinds.items():
        pairs.append((type(name.rpartition(".")[2], (Record,), {"__slots__": (), "origin": kind}), name))
    return pairs


def read_records(path: Path, blocks: Collection[str], others: Mapping[str, str] | None = None) -> Any:
    """The content of a `.pt` file: containers, numbers, strings, tensors on the CPU, and records.

    Args:
        path: the file.
        blocks: class names of the blocks of YOLOv5 that are known.
        others: further classes by full name, and the kind that their records get.

    Raises:
        UserError: one sentence that says what the file is instead.
    """
    _refuse_by_content(path)
    try:
        # torch knows the tuple form; its annotation does not say so in every release.
        allowed: list[Any] = list(_allow_list({name: name for name in known_names(blocks)} | dict(others or {})))
        with warnings.catch_warnings(), torch.serialization.safe_globals(allowed):
            warnings.simplefilter("ignore")  # old tensor layouts make torch warn about itself
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a hostile or broken file can fail anywhere in the unpickler
        raise UserError(_reason(path, error)) from error


def _refuse_by_content(path: Path) -> None:
    """Says what a file is that can be told by its first bytes or its table of contents."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(64)
    except OSError as error:
        raise UserError(f"Cannot read {path}: {error.strerror or error}.") from error
    if size == 0:
        raise UserError(f"{path} is empty; {EXPECTED}.")
    if start.startswith(b"version https://git-lfs"):
        raise UserError(f"{path} is a git-LFS pointer, not the file itself (run `git lfs pull`); {EXPECTED}.")
    if start.startswith(b"PK"):
        if not zipfile.is_zipfile(path):
            raise UserError(f"{path} is cut off after {size:,} bytes (an incomplete download); {EXPECTED}.")
        try:
            with zipfile.ZipFile(path) as archive:
                names = archive.namelist()
        except Exception as error:  # a broken table of contents fails in many ways: a bad name, an unknown version, ...
            raise UserError(f"{path} is a damaged zip archive; {EXPECTED}.") from error
        if any("/code/" in name for name in names):
            raise UserError(
                f"{path} is a TorchScript archive, which holds a program and no network to change; {EXPECTED}."
            )
        if not any(name.endswith("data.pkl") for name in names):
            raise UserError(f"{path} is a zip archive but not one of PyTorch; {EXPECTED}.")
    elif not start.startswith(b"\x80"):
        what = "a text file" if _is_text(start) else "not a PyTorch file"
        raise UserError(f"{path} is {what}; {EXPECTED}.")


def _is_text(start: bytes) -> bool:
    return all(byte in b"\t\n\r" or 32 <= byte < 127 for byte in start)


def _reason(path: Path, error: Exception) -> str:
    """The sentence for a file that the restricted reader refused."""
    match = re.search(r"GLOBAL (\S+) (?:was not an allowed|whose module)", str(error))
    if not match:
        return f"{path} is damaged or not a PyTorch checkpoint; {EXPECTED}."
    name = match.group(1)
    if name.startswith(("models.", "utils.", "ultralytics.")):
        return f"{path} holds a {name}, which is no block that Secateur knows; {EXPECTED}."
    return f"{path} carries the foreign code {name}, which was not run, and is refused; {EXPECTED}."


def tensors_of(record: Record, prefix: str = "") -> Iterator[tuple[str, torch.Tensor]]:
    """What the `state_dict` of the recorded module would hold."""
    hidden = record.get("_non_persistent_buffers_set") or ()
    for group in ("_parameters", "_buffers"):
        for name, value in record.members(group).items():
            if isinstance(value, torch.Tensor) and name not in hidden:
                yield prefix + name, value.detach()
    for name, module in record.modules().items():
        yield from tensors_of(module, f"{prefix}{name}.")


def plain(value: Any) -> Any:
    """Numbers, strings and containers as JSON data; paths as text, anything else left out as None."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple | set):
        return [plain(v) for v in value]
    if isinstance(value, Record) and value.kind.startswith("pathlib"):
        return ("\\" if "Windows" in value.kind else "/").join(str(part) for part in value.args)
    return None
