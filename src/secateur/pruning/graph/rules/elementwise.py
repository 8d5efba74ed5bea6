"""Element-wise operators: channels keep their positions, and operands are tied."""

from __future__ import annotations

import math
from typing import Any

from torch.fx import Node

from secateur.pruning.graph.flow import (
    UNKNOWN,
    Channels,
    Fixed,
    Flow,
    Ids,
    Unknown,
    Value,
    arguments,
    cause_of,
    operator,
    shape,
)

PASSING = """
    alias abs bitwise_not ceil celu clamp clamp_max clamp_min clone contiguous cos detach detach_copy dropout elu erf
    exp expm1 feature_dropout floor gelu hardshrink hardsigmoid hardswish hardtanh leaky_relu lift_fresh_copy log log1p
    log_sigmoid logical_not mish neg pow reciprocal relu relu6 round rsqrt selu sigmoid sign silu sin softplus
    softshrink sqrt square tanh to trunc _to_copy
"""
SPATIAL = """
    adaptive_avg_pool1d adaptive_avg_pool2d adaptive_max_pool2d avg_pool1d avg_pool2d max_pool1d max_pool2d
    max_pool2d_with_indices upsample_bicubic2d upsample_bilinear2d upsample_nearest2d _upsample_nearest_exact2d
"""


@operator(*PASSING.split())
def passing(flow: Flow, node: Node) -> Value | Unknown:
    """Activations and copies."""
    read = flow.channels(node.all_input_nodes[0])
    if len(node.all_input_nodes) > 1 or read is None or shape(node) != shape(node.all_input_nodes[0]):
        return UNKNOWN
    _doubt_numbers(flow, node, read.ids)
    return read


@operator(*SPATIAL.split())
def spatial(flow: Flow, node: Node) -> Value | Unknown:
    """Pooling and resampling of maps [B, C, ...]."""
    source = node.all_input_nodes[0]
    read = flow.channels(source)
    if len(node.all_input_nodes) > 1 or read is None or read.dim != 1 or shape(node)[:2] != shape(source)[:2]:
        return UNKNOWN
    return (read, read) if isinstance(node.meta["val"], (tuple, list)) else read


@operator("constant_pad_nd", "pad", "reflection_pad2d", "replication_pad2d")
def pad(flow: Flow, node: Node) -> Value | Unknown:
    """Padding of dimensions other than the channels."""
    read, rank = flow.channels(node.all_input_nodes[0]), len(shape(node))
    call = arguments(node)
    amounts = call["pad"] if "pad" in call else call["padding"]
    if read is None or any(rank - 1 - place // 2 == read.dim and amount for place, amount in enumerate(amounts)):
        return UNKNOWN
    return read


REDUCTIONS = "mean sum amax amin std var softmax _softmax log_softmax norm linalg_vector_norm cumsum"


@operator(*REDUCTIONS.split())
def along_others(flow: Flow, node: Node) -> Value | Unknown:
    """Reductions and normalisations along dimensions other than the channels."""
    call = arguments(node)
    source = call["input"] if "input" in call else call["self"]
    read, rank = flow.channels(source), len(shape(source))
    dims = call.get("dim")
    if read is None or dims is None or dims == []:
        return UNKNOWN
    reduced = {dim % rank for dim in ([dims] if isinstance(dims, int) else dims)}
    if read.dim in reduced:
        return UNKNOWN
    if len(shape(node)) == rank:
        return read
    return Channels(read.dim - sum(dim < read.dim for dim in reduced), read.ids)


OPERANDS = """
    add sub mul div maximum minimum rsub where addcmul lerp masked_fill eq ne lt le gt ge logical_and logical_or
    bitwise_and bitwise_or __and_ __or_
"""


@operator(*OPERANDS.split())
def elementwise(flow: Flow, node: Node) -> Value | Unknown:
    """Ties all operands element by element.

    Numbers, and tensors with one entry for all channels, have no effect. A parameter with one entry per channel is
    indexed by the channels.
    """
    operands, rank = node.all_input_nodes, len(shape(node))
    placed = {x: Channels(c.dim + rank - len(shape(x)), c.ids) for x in operands if (c := flow.channels(x)) is not None}
    result = max(placed.values(), key=lambda value: len(value.ids), default=None)
    if result is None or shape(node)[result.dim] != len(result.ids):
        return UNKNOWN
    if any(value.dim != result.dim for value in placed.values()):
        return UNKNOWN
    for x in operands:
        axis = result.dim - (rank - len(shape(x)))
        if axis < 0 or shape(x)[axis] == 1 != len(result.ids):
            flow.freeze(placed.get(x), cause_of(node))  # one channel that is combined with all others cannot be removed
        elif x in placed:
            flow.tie(result.ids, placed[x].ids)
        elif x in flow.names:
            flow.carry(flow.names[x], axis, result.ids)
        else:
            by = flow.cause(x)
            flow.freeze_all(operands, by)
            return Fixed(by)
    _doubt_numbers(flow, node, result.ids)
    return result


def _doubt_numbers(flow: Flow, node: Node, ids: Ids) -> None:
    """Records numbers that the code may have derived from the number of channels: the number, its root, or their
    reciprocals."""
    given = [abs(value) for value in (*node.args, *node.kwargs.values()) if isinstance(value, int | float) and value]
    powers = [2 * math.log(value) / math.log(len(ids)) for value in given] if len(ids) > 1 else []
    if any(math.isclose(power, exact) for power in powers for exact in (-2, -1, 1, 2)):
        flow.doubt(node, ids)


@operator("zeros_like", "ones_like", "full_like", "empty_like", "rand_like", "randn_like", "type_as")
def like(flow: Flow, node: Node) -> Value | Unknown:
    """A tensor with the shape of another: it has the same channels. Of a second argument only the dtype is read."""
    first: Any = node.args[0]
    return flow.values.get(first, UNKNOWN)


@operator("new_zeros", "new_ones", "new_full", "new_empty")
def new(flow: Flow, node: Node) -> Value | Unknown:
    """A tensor with a size from the code: only the dtype and device of its argument are read."""
    return Fixed(cause_of(node, "whose size is a number in the network's code"))


@operator("_assert_tensor_metadata", "_assert_async", "sym_size", "_assert_scalar")
def remark(flow: Flow, node: Node) -> Value | Unknown:
    """Does not compute anything from channels."""
    return None
