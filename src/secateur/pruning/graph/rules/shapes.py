"""Operators that move, join, cut and merge dimensions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
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
    operator_name,
    shape,
)

Group = tuple[list[int], list[int]]


@operator("permute", "transpose", "swapaxes", "swapdims", "t", "numpy_T")
def permute(flow: Flow, node: Node) -> Value | Unknown:
    """Permutes dimensions."""
    source: Any = node.all_input_nodes[0]
    read, rank, call = flow.channels(source), len(shape(source)), arguments(node)
    if read is None:
        return UNKNOWN
    order = list(range(rank))
    if "dims" in call:
        order = [dim % rank for dim in call["dims"]]
    elif len(call) == 3:
        first, second = list(call.values())[1:]
        order[first], order[second] = order[second], order[first]
    else:
        order.reverse()
    return Channels(order.index(read.dim), read.ids)


@operator("movedim", "moveaxis")
def moved(flow: Flow, node: Node) -> Value | Unknown:
    """Moves some dimensions to other positions; the others keep their order."""
    call = arguments(node)
    read, rank = flow.channels(call["self"]), len(shape(node))
    if read is None:
        return UNKNOWN
    old, new = ([call[key]] if isinstance(call[key], int) else call[key] for key in ("source", "destination"))
    place = {target % rank: dim % rank for dim, target in zip(old, new, strict=True)}
    others = iter(dim for dim in range(rank) if dim not in place.values())
    order = [place[dim] if dim in place else next(others) for dim in range(rank)]
    return Channels(order.index(read.dim), read.ids)


@operator("view", "reshape", "_unsafe_view", "unflatten", "_reshape_alias", "flatten", "squeeze", "unsqueeze")
def reshape(flow: Flow, node: Node) -> Value | Unknown:
    """Merges, splits, drops or adds dimensions.

    After a merge, a channel is a run of entries, or every n-th entry. After a split, whole parts are kept or removed:
    parts of the dimension that counts heads, otherwise of the last dimension, which is within a head.
    """
    source: Any = node.all_input_nodes[0]
    read = flow.channels(source)
    if read is None:
        return UNKNOWN
    before, after = shape(source), shape(node)
    group = next((pair for pair in _aligned(before, after) if read.dim in pair[0]), None)
    if group is None or 0 in before:
        return UNKNOWN
    old, new = group
    sizes = [after[dim] for dim in new]
    along = [-1 if dim == read.dim else 1 for dim in old]
    table = np.broadcast_to(read.ids.reshape(along), [before[dim] for dim in old]).reshape(sizes)
    wide = [n for n, size in enumerate(sizes) if size > 1] or [0]
    if not new:
        return UNKNOWN
    place = wide[0] if len(wide) == 1 else _counted_dimension(flow, node, sizes, wide)
    ids = flow.tie_columns(np.moveaxis(table, place, -1).reshape(-1, sizes[place]))
    module = cause_of(node).place
    if module not in flow.inside_heads:
        flow.heads.append((module, ids))
    elif len(wide) == 1 < len(old) and (given := flow.entering(node, sizes[place])) is not None:
        flow.tie(ids, given)  # the joined heads have the width of the module's input
    if operator_name(node.target) not in ("flatten", "squeeze", "unsqueeze"):  # these take sizes from the tensor
        flow.follow(node, {sizes[place]: ids, before[read.dim]: read.ids})
    return Channels(new[place], ids)


def _counted_dimension(flow: Flow, node: Node, sizes: Sequence[int], wide: Sequence[int]) -> int:
    """Index of the dimension, among those that a channel dimension is split into, whose parts can be removed."""
    cause = cause_of(node)
    if cause.place in flow.inside_heads:
        return wide[-1]
    module = flow.modules.get(cause.place)
    heads = {value for name, value in vars(module).items() if "head" in name and "dim" not in name} if module else set()
    counted = [n for n in wide if sizes[n] in {value for value in heads if type(value) is int}]
    before_last = [n for n in counted if n != wide[-1]]  # the last one is within a head
    return (before_last or counted or wide)[-1]


def _aligned(before: Sequence[int], after: Sequence[int]) -> list[Group]:
    """Smallest runs of dimensions before and after with the same entries; dimensions of size 1 join the run before
    them."""
    groups: list[Group] = []
    i = j = 0
    while i < len(before) or j < len(after):
        old, new = [], []
        left = right = 1
        while True:
            if i < len(before) and (left <= right or j >= len(after)):
                left *= before[i]
                old.append(i)
                i += 1
            elif j < len(after):
                right *= after[j]
                new.append(j)
                j += 1
            if left == right and (old and new):
                break
            if i >= len(before) and j >= len(after):
                break
        while i < len(before) and before[i] == 1 and (j >= len(after) or after[j] != 1):
            old.append(i)
            i += 1
        while j < len(after) and after[j] == 1 and (i >= len(before) or before[i] != 1):
            new.append(j)
            j += 1
        groups.append((old, new))
    return groups


@operator("expand", "expand_as", "repeat")
def expand(flow: Flow, node: Node) -> Value | Unknown:
    """Grows other dimensions; of a second tensor only the shape is read, and it has the same channels."""
    source: Any = node.args[0]
    read = flow.channels(source)
    other: Any = node.args[1] if len(node.args) > 1 and isinstance(node.args[1], Node) else None
    like = flow.channels(other)
    added = len(shape(node)) - len(shape(source))
    if read is None:
        one = like is not None and (like.dim < added or shape(source)[like.dim - added] == 1)
        return like if one and like is not None else UNKNOWN  # one entry for all channels of the other tensor
    if shape(node)[read.dim + added] != len(read.ids):
        return UNKNOWN
    if like is not None and like.dim == read.dim + added:
        flow.tie(read.ids, like.ids)
    elif operator_name(node.target) == "expand" and arguments(node)["size"][read.dim + added] != -1:
        flow.doubt(node, read.ids)
    return Channels(read.dim + added, read.ids)


@operator("cat", "concat", "stack")
def concatenate(flow: Flow, node: Node) -> Value | Unknown:
    """Along the channels: concatenates id vectors. Along another dimension: ties them."""
    call = arguments(node)
    tensors = call["tensors"]
    read = [value for x in tensors if (value := flow.channels(x)) is not None]
    rank = len(shape(node))
    if not read or any(value.dim != read[0].dim for value in read):
        return UNKNOWN
    dim = call["dim"] % rank
    if rank > len(shape(tensors[0])):  # stacked
        if len(read) < len(tensors):
            return UNKNOWN
        return Channels(read[0].dim + (dim <= read[0].dim), _tied(flow, read))
    if dim == read[0].dim:
        return Channels(dim, np.concatenate([_ids_of(flow, x, dim) for x in tensors]))
    if len(read) < len(tensors):
        return UNKNOWN
    return Channels(read[0].dim, _tied(flow, read))


def _tied(flow: Flow, values: Sequence[Channels]) -> Ids:
    for other in values[1:]:
        flow.tie(values[0].ids, other.ids)
    return values[0].ids


def _ids_of(flow: Flow, node: Node, dim: int) -> Ids:
    """Ids of one part of a concatenation; the ids of a part without channels are frozen."""
    read = flow.channels(node)
    return read.ids if read is not None else np.full(shape(node)[dim], flow.frozen_id(flow.cause(node)))


@operator("chunk")
def chunk(flow: Flow, node: Node) -> Value | Unknown:
    """Splits the id vector and ties the pieces, so that `chunk` in the network still splits at the right borders
    after a cut."""
    call = arguments(node)
    read, pieces = flow.channels(call["self"]), len(node.meta["val"])
    if read is None:
        return UNKNOWN
    if call["dim"] % len(shape(call["self"])) != read.dim:
        return (read,) * pieces
    if len(read.ids) % pieces:
        return Unknown("whose pieces differ in width")
    part = flow.tie_columns(read.ids.reshape(pieces, -1))
    flow.follow(node, {len(part): part}, doubtful=False)
    return (Channels(read.dim, part),) * pieces


@operator("glu")
def gated(flow: Flow, node: Node) -> Value | Unknown:
    """Multiplies the two halves of a dimension; along the channels they are tied, as for `chunk`."""
    call = arguments(node)
    read = flow.channels(call["self"])
    if read is None or call["dim"] % len(shape(node)) != read.dim:
        return UNKNOWN if read is None else read
    return Channels(read.dim, flow.tie_columns(read.ids.reshape(2, -1)))


@operator("pixel_shuffle", "pixel_unshuffle")
def pixels(flow: Flow, node: Node) -> Value | Unknown:
    """Exchanges channels and positions: runs of channels become one channel, or the reverse; a run is kept or
    removed as one."""
    source: Any = node.args[0]
    read, factor = flow.channels(source), int(node.args[1]) ** 2  # type: ignore[arg-type]
    if read is None or read.dim != len(shape(source)) - 3:
        return UNKNOWN
    if operator_name(node.target) == "pixel_unshuffle":
        return Channels(read.dim, np.repeat(read.ids, factor))
    return Channels(read.dim, flow.tie_columns(read.ids.reshape(-1, factor).T))


@operator("channel_shuffle", "native_channel_shuffle")
def shuffled(flow: Flow, node: Node) -> Value | Unknown:
    """Interleaves channel groups; channels at the same position in their groups are tied, so that groups stay equal."""
    source: Any = node.args[0]
    read, groups = flow.channels(source), int(node.args[1])  # type: ignore[arg-type]
    if read is None or read.dim != 1:
        return UNKNOWN
    return Channels(1, np.repeat(flow.tie_columns(read.ids.reshape(groups, -1)), groups))


@operator("split", "split_with_sizes")
def split(flow: Flow, node: Node) -> Value | Unknown:
    """Splits the id vector at borders written in the code; pieces of equal width are tied and keep equal widths."""
    call = arguments(node)
    read = flow.channels(call["self"])
    if read is None:
        return UNKNOWN
    given = node.meta["val"]
    if call["dim"] % len(shape(call["self"])) != read.dim:
        return (read,) * len(given)
    widths = [int(part.shape[read.dim]) for part in given]
    parts = np.split(read.ids, np.cumsum(widths)[:-1])
    first = {width: next(p for p in parts if len(p) == width) for width in widths}
    for part in parts:
        flow.tie(first[len(part)], part)
    flow.follow(node, first)
    return tuple(Channels(read.dim, first[len(part)]) for part in parts)


@operator("slice", "narrow")
def section(flow: Flow, node: Node) -> Value | Unknown:
    """A slice of the id vector with borders written in the code; equal parts are tied and keep equal widths."""
    call = arguments(node)
    source = call["self"]
    read = flow.channels(source)
    if read is None:
        return UNKNOWN
    if call["dim"] % len(shape(source)) != read.dim or shape(node) == shape(source):
        return read
    total, width = len(read.ids), shape(node)[read.dim]
    start = int(call["start"] or 0) % total
    if call.get("step", 1) != 1 or total % width or start % width:
        return Unknown("whose sizes are numbers in the network's code")
    part = flow.tie_columns(read.ids.reshape(-1, width))
    flow.follow(node, {width: part})
    return Channels(read.dim, part)


@operator("unbind")
def unbind(flow: Flow, node: Node) -> Value | Unknown:
    """Unbinds a dimension other than the channels."""
    call = arguments(node)
    read = flow.channels(call["self"])
    if read is None:
        return UNKNOWN
    dim = call["dim"] % len(shape(call["self"]))
    if dim == read.dim:
        return UNKNOWN
    return (Channels(read.dim - (dim < read.dim), read.ids),) * len(node.meta["val"])


@operator("select")
def select(flow: Flow, node: Node) -> Value | Unknown:
    """Selects one entry of a dimension other than the channels."""
    call = arguments(node)
    read = flow.channels(call["self"])
    dim = call["dim"] % len(shape(call["self"]))
    if read is None or dim == read.dim:
        return UNKNOWN
    return Channels(read.dim - (dim < read.dim), read.ids)


@operator("roll", "flip")
def rolled(flow: Flow, node: Node) -> Value | Unknown:
    """Permutes entries of dimensions other than the channels."""
    call = arguments(node)
    read, rank = flow.channels(call["self"]), len(shape(node))
    if read is None or not call["dims"] or read.dim in {dim % rank for dim in call["dims"]}:
        return UNKNOWN
    return read


@operator("getitem")
def item(flow: Flow, node: Node) -> Value | Unknown:
    """One tensor of a tuple."""
    source, index = node.args
    value = flow.values.get(source)  # type: ignore[arg-type]
    if source in flow.sources:
        flow.sources[node] = flow.sources[source]  # type: ignore[index]
    if isinstance(value, Fixed):
        return value
    return value[index] if isinstance(value, tuple) and value else None  # type: ignore[index]
