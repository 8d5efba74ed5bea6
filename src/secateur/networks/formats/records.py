"""Inert records of the objects in a foreign `.pt` file, from which tensors and plain data are extracted."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

import torch

from secateur.errors import UserError
from secateur.limits import MAX_MODULES, MAX_VALUES

EXPECTED = "Expected a YOLOv5 checkpoint (.pt of v5.0 to v7.0) or a Secateur checkpoint (.safetensors)"


class Record:
    """An object of a foreign class as data: its class name, constructor arguments and attributes.

    The attributes are in a separate dict, so that no name in a file can hide a method.
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
        """Parameters, buffers or submodules of a module; `group` is the name of the dict in torch."""
        members = self.attributes.get(group)
        return members if isinstance(members, dict) else {}

    def get(self, name: str, default: Any = None) -> Any:
        """An attribute, or a parameter, buffer or submodule of that name."""
        for members in (self.attributes, *map(self.members, ("_parameters", "_buffers", "_modules"))):
            if name in members:
                return members[name]
        return default

    def rename(self, kind: str, names: Mapping[str, str]) -> None:
        """Changes the class of this module and the names of its submodules."""
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
    "builtins": "dict list slice range frozenset getattr",  # folded models contain a bound method, which stays inert
}


def known_names(blocks: Iterable[str]) -> list[str]:
    """Full names of the classes of upstream YOLOv5 and of libraries that may occur in a file."""
    named = [f"{module}.{name}" for module, names in _NAMES.items() for name in names.split()]
    return named + [f"{module}.{name}" for module in _BLOCK_MODULES for name in blocks]


def refuse_endless(record: Record) -> None:
    """Raises a UserError for modules that are nested in each other without end, or nearly so."""
    count, layer = 0, [record]
    while layer:
        children = (child for parent in layer for child in parent.modules().values())
        layer = list(islice(children, MAX_MODULES + 1))
        count += len(layer)
        if count > MAX_MODULES:
            raise UserError(f"it has more than {MAX_MODULES:,} modules, or modules that contain themselves.")


def refuse_repetition(value: Any) -> None:
    """Raises a UserError for lists that contain the same list repeatedly, and so represent more values than `limits`
    allows."""
    count, layer = 0, [value]
    while layer:
        layer = list(islice((inner for part in layer for inner in _inside(part)), MAX_VALUES + 1))
        count += len(layer)
        if count > MAX_VALUES:
            raise UserError(f"its settings have more than {MAX_VALUES:,} values.")


def _inside(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list | tuple | set) else ()


def tensors_of(record: Record, prefix: str = "") -> Iterator[tuple[str, torch.Tensor]]:
    """Content of the `state_dict` of the recorded module; tensors have any shape."""
    hidden = record.get("_non_persistent_buffers_set")
    hidden = hidden if isinstance(hidden, set) else ()
    for group in ("_parameters", "_buffers"):
        for name, value in record.members(group).items():
            if isinstance(value, torch.Tensor) and name not in hidden:
                yield f"{prefix}{name}", value.detach()
    for name, module in record.modules().items():
        yield from tensors_of(module, f"{prefix}{name}.")


def plain_data(value: Any) -> Any:
    """Numbers, strings and containers as data that JSON can hold; paths as text, everything else as None.

    Raises:
        UserError: lists contain the same list repeatedly, and so represent more values than `limits` allows.
    """
    count = 0

    def walk(value: Any) -> Any:
        nonlocal count
        count += 1 + (len(value) // 8 if isinstance(value, str) else 0)
        if count > MAX_VALUES:
            raise UserError(f"its settings have more than {MAX_VALUES:,} values.")
        if value is None or isinstance(value, bool | int | float | str):
            return value
        if isinstance(value, dict):
            return {str(k): walk(v) for k, v in value.items()}
        if isinstance(value, list | tuple | set):
            return [walk(v) for v in value]
        if isinstance(value, Record) and value.kind.startswith("pathlib"):
            parts = [part for part in value.args if isinstance(part, str)]
            return walk(("\\" if "Windows" in value.kind else "/").join(parts[:100]))
        return None

    return walk(value)
