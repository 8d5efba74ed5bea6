"""The signature of each operation, and the channels that it reads and emits, for latency tables."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from torch.fx import Node

from secateur.pruning.graph.flow import Channels, Fixed, Flow, Ids, Value, arguments, callers, operator_name, shape
from secateur.pruning.latency import Pair, Signature, TracedOperation

ACTIVATIONS = (
    "elu", "gelu", "hardsigmoid", "hardswish", "hardtanh", "leaky_relu", "mish", "relu", "relu6", "selu", "sigmoid",
    "silu", "softplus", "tanh",
)  # fmt: skip
"""ATen operators that runtimes fuse with the convolution before them, or run directly after it."""

_POOLS = ("max_pool2d", "avg_pool2d", "max_pool2d_with_indices")
_SUMS = ("add", "sub", "mul", "maximum", "minimum")


def operation_of(flow: Flow, node: Node) -> TracedOperation | None:
    """The operation of a visited node on two-dimensional maps, with the ids of its channels; None for all other
    nodes."""
    name, value = operator_name(node.target), flow.values.get(node)
    value = value[0] if isinstance(value, tuple) and value else value
    if len(shape(node)) != 4:
        return None
    emits = _ids(flow, value, node)
    if emits is None:
        return None
    if name.startswith("conv"):
        return _convolution(flow, node, emits)
    if name in _POOLS:
        call = arguments(node)
        kernel = _pair(call["kernel_size"])
        signature = Signature(
            "pool", _map(call["self"]), kernel, _pair(call["stride"] or kernel), _pair(call["padding"])
        )
    elif name.startswith(("upsample", "_upsample")):
        source = _map(node.all_input_nodes[0])
        factors = tuple(max(1, after // before) for after, before in zip(_map(node), source, strict=True))
        signature = Signature("upsample", source, stride=_pair(factors))
    elif name in ("cat", "concat") and arguments(node)["dim"] % 4 == 1:
        signature = Signature("concat", _map(node))
    elif name in _SUMS and len(node.all_input_nodes) == 2:
        signature = Signature("add", _map(node))
    else:
        return None
    return TracedOperation(signature, "", _place(node), emits[:0], emits)


def _ids(flow: Flow, value: Value, node: Node) -> Ids | None:
    """Ids of the channels of a map [B, C, H, W]: -1 for fixed channels; None if channels are along another
    dimension."""
    if isinstance(value, Fixed):
        return np.full(shape(node)[1], -1, dtype=np.int64)
    return value.ids if isinstance(value, Channels) and value.dim == 1 else None


def in_units(operation: TracedOperation, unit: Ids) -> TracedOperation:
    """The operation with units instead of ids; `unit`, int64 [ids], maps every id to its unit."""
    known = np.append(unit, -1)
    return replace(operation, reads=known[operation.reads], emits=known[operation.emits])


def _convolution(flow: Flow, node: Node, emits: Ids) -> TracedOperation | None:
    call = arguments(node)
    reads, weight = _ids(flow, flow.values.get(call["input"]), call["input"]), flow.sources.get(call["weight"])
    if reads is None or weight is None or len(shape(call["input"])) != 4:
        return None
    transposed = call.get("transposed", operator_name(node.target).startswith("conv_transpose"))
    groups = call["groups"]
    signature = Signature(
        "transposed" if transposed else "conv",
        _map(call["input"]),
        shape(call["weight"])[2:],  # type: ignore[arg-type]
        _pair(call["stride"]),
        _padding(call["padding"]),
        _pair(call["dilation"]),
        (0, 0) if groups == 1 else (len(reads) // groups, len(emits) // groups),
        _activation_after(node),
    )
    return TracedOperation(signature, weight, _place(node), reads, emits)


def _activation_after(node: Node) -> str:
    """The activation that is the only reader of a convolution, or of the batch norm after it; "" for none."""
    while len(node.users) == 1:
        node = next(iter(node.users))
        name = operator_name(node.target)
        if name in ACTIVATIONS:
            return name
        if "batch_norm" not in name and name != "getitem":
            break
    return ""


def _map(node: Any) -> Pair:
    height, width = shape(node)[2:]
    return height, width


def _pair(value: Any) -> Pair:
    """A size for both sides, or one per side."""
    numbers = tuple(value) if isinstance(value, (tuple, list)) else (value,)
    return int(numbers[0]), int(numbers[-1])


def _padding(value: Any) -> Pair:
    return (0, 0) if isinstance(value, str) else _pair(value)


def _place(node: Node) -> str:
    calling = callers(node)
    return calling[-1][0] if calling else ""
