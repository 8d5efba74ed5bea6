"""Layers with weights: convolutions and linear layers read channels and emit new ones; norms pass channels through."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import nn
from torch.fx import Node
from torch.nn.modules.conv import _ConvNd

from secateur.pruning.graph.flow import (
    UNKNOWN,
    Channels,
    Fixed,
    Flow,
    Ids,
    Operation,
    Unknown,
    Value,
    arguments,
    cause_of,
    layer_of,
    operator,
    operator_name,
    shape,
)


@operator("conv1d", "conv2d", "conv3d", "convolution", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
def convolution(flow: Flow, node: Node) -> Value | Unknown:
    """Reads the ids of its input and emits new ones. If grouped, inputs and outputs of a group are kept or removed
    as one."""
    call = arguments(node)
    transposed = call.get("transposed", operator_name(node.target).startswith("conv_transpose"))
    if call["weight"] in flow.sources:
        size = shape(call["input"])[2:] if transposed else shape(node)[2:]
        elements = int(np.prod(shape(call["weight"])))
        flow.operations.append(Operation(flow.sources[call["weight"]], elements, size, transposed))
    read = flow.values.get(call["input"])
    known = isinstance(read, Fixed) or (isinstance(read, Channels) and read.dim == 1)
    weight, bias = _tensors(flow, call, _ConvNd)
    groups, output = call["groups"], flow.fresh(shape(node)[1])
    if not known or weight is None or (groups > 1 and not isinstance(read, Channels)):
        return _lost(flow, node, call, "whose weights are computed" if known and weight is None else "")
    rows, columns = (1, 0) if transposed else (0, 1)
    if groups == 1:
        flow.carry(weight, rows, output)
        if isinstance(read, Channels):
            flow.carry(weight, columns, read.ids)
    else:
        assert isinstance(read, Channels)
        # Dimension 1 of a grouped weight counts channels within a group, so only dimension 0 shrinks, by whole groups.
        for vector in (read.ids.reshape(groups, -1), output.reshape(groups, -1)):
            flow.tie(vector, np.broadcast_to(output.reshape(groups, -1)[:, :1], vector.shape))
        flow.carry(weight, 0, read.ids if transposed else output)
        if _called_elsewhere(node, weight):  # the number of groups may be written in the code
            flow.doubt(node, output)
    if bias:
        flow.carry(bias, 0, output)
    _emit(flow, weight, output, rows if groups == 1 else 0)
    return Channels(1, output)


@operator("linear")
def linear(flow: Flow, node: Node) -> Value | Unknown:
    """Reads the ids of the last dimension and emits new ones along it."""
    call = arguments(node)
    if call["weight"] in flow.sources:
        _count_linear(flow, node, call["weight"])
    read = flow.values.get(call["input"])
    along_last = isinstance(read, Channels) and read.dim == len(shape(call["input"])) - 1
    weight, bias = _tensors(flow, call, nn.Linear)
    if not (along_last or isinstance(read, Fixed)) or weight is None:
        return _lost(flow, node, call, "whose weights are computed" if weight is None else "which mixes no channels")
    output = flow.fresh(shape(node)[-1])
    flow.carry(weight, 0, output)
    if isinstance(read, Channels):
        flow.carry(weight, 1, read.ids)
    if bias:
        flow.carry(bias, 0, output)
    _emit(flow, weight, output, 0)
    return Channels(len(shape(node)) - 1, output)


def _count_linear(flow: Flow, node: Node, weight: Node) -> None:
    rows = int(np.prod(shape(node)[:-1]))
    flow.operations.append(Operation(flow.sources[weight], int(np.prod(shape(weight))), (rows,)))


def _tensors(flow: Flow, call: dict[str, Any], kind: type[nn.Module]) -> tuple[str | None, str]:
    """Names of weight and bias if both belong to a layer of this kind; otherwise the weight is None."""
    weight, bias = flow.names.get(call["weight"]), flow.names.get(call["bias"], "")
    if weight is None or (call["bias"] is not None and not bias):
        return None, ""
    # Scoring observes the outputs of layers, so the weight must belong to a layer.
    return (weight, bias) if isinstance(flow.modules.get(layer_of(weight)), kind) else (None, "")


def _lost(flow: Flow, node: Node, call: dict[str, Any], why: str) -> Unknown:
    if call["weight"] in flow.sources:
        channels = shape(node)[-1 if "linear" in operator_name(node.target) else 1]
        flow.lost[layer_of(flow.sources[call["weight"]])] = (channels, cause_of(node, why))
    return Unknown(why)


def _called_elsewhere(node: Node, tensor: str) -> bool:
    """Whether an operator with the tensors of a module is called outside of that module."""
    return cause_of(node).place != layer_of(tensor)


def _emit(flow: Flow, weight: str, output: Ids, dim: int) -> None:
    layer = layer_of(weight)
    if layer in flow.emitted:
        flow.tie(flow.emitted[layer], output)
    flow.emitted[layer] = output
    flow.filters[layer] = dim


@operator(
    "batch_norm", "_native_batch_norm_legit_no_training", "native_batch_norm", "cudnn_batch_norm", "instance_norm"
)
def batch_norm(flow: Flow, node: Node) -> Value | Unknown:
    """Passes ids through; its vectors are indexed by them."""
    call = arguments(node)
    read = flow.channels(call["input"])
    given = [call[key] for key in ("weight", "bias", "running_mean", "running_var") if call[key] is not None]
    names = [flow.names.get(tensor) for tensor in given]
    if read is None or read.dim != 1 or any(name is None for name in names):
        return UNKNOWN
    if operator_name(node.target) != "instance_norm" and len(names) < 4:
        return UNKNOWN
    for name in names:
        flow.carry(str(name), 0, read.ids)
    if len(names) == 4:
        layer = layer_of(str(names[0]))
        flow.norms[layer] = read.ids
        producer = call["input"]
        if operator_name(producer.target).startswith(("conv", "linear")) and len(producer.users) == 1:
            flow.after[layer_of(flow.sources.get(arguments(producer)["weight"], ""))] = layer
    return (read, None, None) if isinstance(node.meta["val"], (tuple, list)) else read


@operator("prelu")
def prelu(flow: Flow, node: Node) -> Value | Unknown:
    """Passes ids through; if there are several slopes, each belongs to one channel."""
    call = arguments(node)
    read, slopes = flow.channels(call["self"]), shape(call["weight"])[0]
    if read is None or read.dim != 1 or call["weight"] not in flow.names:
        return UNKNOWN
    if slopes > 1:
        flow.carry(flow.names[call["weight"]], 0, read.ids)
    return read


@operator("group_norm")
def group_norm(flow: Flow, node: Node) -> Value | Unknown:
    """Passes ids through; a group is normalised as a whole, so it is kept or removed as a whole."""
    call = arguments(node)
    read, groups = flow.channels(call["input"]), int(call["num_groups"])
    names = [flow.names.get(call[key]) for key in ("weight", "bias")]
    if read is None or read.dim != 1 or any(name is None for name in names):
        return UNKNOWN
    if not isinstance(flow.modules.get(layer_of(str(names[0]))), nn.GroupNorm):
        return Unknown("whose number of groups belongs to no GroupNorm")
    flow.tie_columns(read.ids.reshape(groups, -1).T)
    for name in names:
        flow.carry(str(name), 0, read.ids)
    if _called_elsewhere(node, str(names[0])):
        flow.doubt(node, read.ids)
    return read


@operator("layer_norm")
def layer_norm(flow: Flow, node: Node) -> Value | Unknown:
    """Passes ids through. If it normalises only over channels, the norm of a narrower network uses the kept
    channels."""
    call = arguments(node)
    read, rank = flow.channels(call["input"]), len(shape(node))
    first = rank - len(call["normalized_shape"])
    if read is None or read.dim < first:
        return UNKNOWN if read is None else read
    names = [flow.names.get(call[key]) for key in ("weight", "bias") if call[key] is not None]
    layer = layer_of(str(names[0])) if names else ""
    if first != rank - 1 or not names or None in names or not isinstance(flow.modules.get(layer), nn.LayerNorm):
        return Unknown("which does not normalise only over channels")
    for name in names:
        flow.carry(str(name), 0, read.ids)
    flow.layer_norms[layer] = read.ids
    if _called_elsewhere(node, str(names[0])):  # a mask is active while the module is called
        flow.doubt(node, read.ids)
    return read
