"""Checks that every layer of a YOLOv5 file computes the same as ours: its class, its parts and its attributes.

Tensors do not show a missing sum, another stride or another pool. A layer that differs in one of these is rejected by
name, because the outputs would silently differ.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import nn

from secateur.errors import UserError, shown, told
from secateur.families.yolov5.blocks import BLOCKS
from secateur.networks.formats.records import Record

_COMPARED: dict[type[nn.Module], tuple[str, ...]] = {
    nn.Module: ("add",),
    nn.Conv2d: ("kernel_size", "stride", "padding", "dilation", "groups", "padding_mode"),
    nn.ConvTranspose2d: ("kernel_size", "stride", "padding", "dilation", "groups", "output_padding"),
    nn.MaxPool2d: ("kernel_size", "stride", "padding", "dilation", "ceil_mode"),
    nn.LeakyReLU: ("negative_slope",),
    nn.ELU: ("alpha",),
    nn.CELU: ("alpha",),
    nn.GELU: ("approximate",),
    nn.Hardtanh: ("min_val", "max_val"),
    nn.Softplus: ("beta", "threshold"),
}
"""Attributes that determine the output of a layer, for layers used in all kinds of blocks."""
_ALIKE = {
    "SyncBatchNorm": "BatchNorm2d",
    "NonDynamicallyQuantizableLinear": "Linear",
    "MultiheadAttention": "Attention",
}
"""Classes of PyTorch in files, and the names of our equivalents."""
_IDLE = ("Identity", "Dropout")
"""Classes of PyTorch without effect at inference; a file may contain or omit them."""
_ABSENT = object()


def refuse_other_attributes(model: Record, network: nn.Module, *, tensors_are_set: bool) -> None:
    """Compares the attributes that determine what a layer computes.

    Args:
        model: record of the model in the file.
        network: the network built from the topology of the file.
        tensors_are_set: whether it has the tensors of the file; only then the groups of grouped convolutions are known.

    Raises:
        UserError: an attribute differs or is missing; the message names the first such layer.
    """
    compared = dict(_COMPARED)
    for kind in BLOCKS.values():
        for module, keys in kind.compared.items():
            compared[module] = (*compared.get(module, ()), *keys)
    for name, layer in network.named_modules():
        record = record_at(model, name)
        for key in (key for kind in type(layer).__mro__ for key in compared.get(kind, ())):
            expected = getattr(layer, key, _ABSENT)
            known = tensors_are_set or key != "groups" or expected == 1
            if record is not None and known and expected is not _ABSENT:
                _compare(name, key, expected, record)


def refuse_other_layers(model: Record, network: nn.Module) -> None:
    """Compares the layers and their classes; layers with tensors are known to exist.

    Raises:
        UserError: a layer differs, is missing, or is not part of its block; the message names the first one.
    """
    layers = dict(network.named_modules())
    for name, record in _parts(model.modules()["model"], "model."):
        parent, _, own = name.rpartition(".")
        label = record.kind.rpartition(".")[2]
        if name not in layers:
            if parent in layers and label not in _IDLE:
                block = type(layers[parent]).__name__
                raise UserError(
                    f"its layer {parent} has the part {told(own, 40)} ({told(label, 60)}), which is not part of "
                    f"{block} in YOLOv5."
                )
            continue
        layer = layers[name]
        if _ALIKE.get(label, label) not in [kind.__name__ for kind in type(layer).__mro__]:
            raise UserError(f"its layer {name} is {told(label, 60)}, but must be {type(layer).__name__}.")
    for name, layer in layers.items():
        idle = any(layer.children()) or type(layer).__name__ in (*_IDLE, "Sequential")
        if not idle and record_at(model, name) is None:
            raise UserError(f"its layer {name} ({type(layer).__name__}) is missing.")


def record_at(record: Record, name: str) -> Record | None:
    """The record of a submodule by its dotted name."""
    for part in filter(None, name.split(".")):
        child = record.modules().get(part)
        if child is None:
            return None
        record = child
    return record


def _parts(record: Record, prefix: str) -> Iterator[tuple[str, Record]]:
    """All submodules with their dotted names, parents first."""
    for name, child in record.modules().items():
        yield f"{prefix}{name}", child
        yield from _parts(child, f"{prefix}{name}.")


def _compare(name: str, key: str, expected: Any, record: Record) -> None:
    found = record.get(key, _ABSENT)
    if found is _ABSENT:
        if record.kind.startswith("torch."):
            return  # an older PyTorch without this attribute, which then has the default value
        raise UserError(f"its layer {name} lacks the attribute {key}, which determines what it computes.")
    if _pair(expected) != _pair(found):
        raise UserError(f"its layer {name} has {key} {shown(found)}, but its model.yaml gives {expected}.")


def _pair(value: Any) -> Any:
    """Treats 3 and (3, 3) as equal."""
    return tuple(value) if isinstance(value, list | tuple) else (value, value)
