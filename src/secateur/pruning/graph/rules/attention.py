"""Products of two computed tensors: attention heads, or an equal part of each head, with their queries, keys and
values."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch.fx import Node

from secateur.pruning.graph.flow import (
    UNKNOWN,
    Channels,
    Fixed,
    Flow,
    Operation,
    Unknown,
    Value,
    arguments,
    cause_of,
    operator,
    shape,
)


@operator("matmul", "bmm", "mm", "baddbmm", "addmm")
def product(flow: Flow, node: Node) -> Value | Unknown:
    """Dimensions that are not summed pass through, and are tied if both tensors have them.

    A sum over channels of both tensors ties them, if a trial shows that a silent channel contributes nothing. A sum
    over channels of only one tensor freezes them.
    """
    call = arguments(node)
    second: Any = next(call[key] for key in ("mat2", "other", "batch2") if key in call)
    first: Any = call.get("mat1", call.get("batch1", call.get("self")))
    if second in flow.sources and len(shape(second)) == 2:
        rows = int(np.prod(shape(node)[:-1]))
        flow.operations.append(Operation(flow.sources[second], int(np.prod(shape(second))), (rows,)))
    left, right, rank = flow.channels(first), flow.channels(second), len(shape(node))
    if min(len(shape(first)), len(shape(second))) < 2 or len(node.all_input_nodes) > 2:
        return UNKNOWN
    if (
        left is not None
        and right is not None
        and (left.dim, right.dim) == (len(shape(first)) - 1, len(shape(second)) - 2)
    ):
        flow.tie(left.ids, right.ids)
        flow.doubt(node, left.ids, "which sums over channels")
        return Fixed(cause_of(node))
    placed = []
    for value, x, summed in ((left, first, -1), (right, second, -2)):
        if value is not None:
            if value.dim == len(shape(x)) + summed:
                return Unknown("which sums over channels")
            placed.append(Channels(value.dim + rank - len(shape(x)), value.ids))
    if not placed or any(value.dim != placed[0].dim for value in placed):
        return UNKNOWN
    if len(placed) == 2:
        flow.tie(placed[0].ids, placed[1].ids)
    elif placed[0].dim < rank - 2:
        other = second if left is not None else first
        axis = placed[0].dim - (rank - len(shape(other)))
        if axis >= 0 and shape(other)[axis] != 1:
            return UNKNOWN  # each channel has its own entry in a tensor without channels
    return placed[0]


@operator("scaled_dot_product_attention")
def attention(flow: Flow, node: Node) -> Value | Unknown:
    """Heads along one dimension of queries, keys and values are kept or removed together; values of a single head
    pass through."""
    call = arguments(node)
    mask = call.get("attn_mask")
    read = [flow.channels(call[key]) for key in ("query", "key", "value")]
    rank, value = len(shape(node)), read[2]
    if value is None or call.get("enable_gqa"):
        return UNKNOWN
    if value.dim == rank - 1 and read[0] is None and read[1] is None:
        return value
    if any(entry is None or entry.dim != value.dim for entry in read) or value.dim >= rank - 2:
        return UNKNOWN
    if mask is not None:
        axis = value.dim - (rank - len(shape(mask)))
        if flow.channels(mask) is not None or (axis >= 0 and shape(mask)[axis] != 1):
            return Unknown("whose mask has one entry per head")
    for entry in read[:2]:
        assert entry is not None
        flow.tie(value.ids, entry.ids)
    return value
