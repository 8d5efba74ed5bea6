"""Whether every layer of a YOLOv5 file computes what ours computes: its kind, its parts and what it says of itself.

Tensors do not show a sum that is left out, another stride or another pool. A layer that differs in one of these is
refused by its name, because the outputs would be others without a word.
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
"""Attributes that decide the output of a layer, for the layers that blocks of any kind are made of."""
_ALIKE = {
    "SyncBatchNorm": "BatchNorm2d",
    "NonDynamicallyQuantizableLinear": "Linear",
    "MultiheadAttention": "Attention",
}
"""Classes of PyTorch that a file has where ours have another name."""
_IDLE = ("Identity", "Dropout")
"""Classes of PyTorch that do nothing at inference: a file may have them or not."""
_ABSENT = object()


def refuse_other_attributes(model: Record, network: nn.Module, *, tensors_are_set: bool) -> None:
    """Compares the attributes that decide what a layer computes.

    Args:
        model: of the file.
        network: built from the topology that was read of the file.
        tensors_are_set: whether it has the file's tensors; only then are the groups of grouped convolutions known.

    Raises:
        UserError: naming the first layer and the attribute that differs or is missing.
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
    """Compares which layers there are and of which class; those with tensors are known to be there.

    Raises:
        UserError: naming the first layer that differs, is missing, or is not one of its block's.
    """
    layers = dict(network.named_modules())
    for name, record in _parts(model.modules()["model"], "model."):
        parent, _, own = name.rpartition(".")
        label = record.kind.rpartition(".")[2]
        if name not in layers:
            if parent in layers and label not in _IDLE:
                block = type(layers[parent]).__name__
                raise UserError(
                    f"its layer {parent} has the part {told(own, 40)} ({told(label, 60)}), which a {block} of YOLOv5 "
                    "does not have."
                )
            continue
        layer = layers[name]
        if _ALIKE.get(label, label) not in [kind.__name__ for kind in type(layer).__mro__]:
            raise UserError(f"its layer {name} is {told(label, 60)}, but {type(layer).__name__} is expected there.")
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
    """All submodules with their dotted names, a block before what is inside it."""
    for name, child in record.modules().items():
        yield f"{prefix}{name}", child
        yield from _parts(child, f"{prefix}{name}.")


def _compare(name: str, key: str, expected: Any, record: Record) -> None:
    found = record.get(key, _ABSENT)
    if found is _ABSENT:
        if record.kind.startswith("torch."):
            return  # an older PyTorch, which knew nothing but today's default
        raise UserError(f"its layer {name} does not have the attribute {key}, which decides what it computes.")
    if _pair(expected) != _pair(found):
        raise UserError(f"its layer {name} has {key} {shown(found)}, but its model.yaml gives {expected}.")


def _pair(value: Any) -> Any:
    """3 and (3, 3) alike."""
    return tuple(value) if isinstance(value, list | tuple) else (value, value)
