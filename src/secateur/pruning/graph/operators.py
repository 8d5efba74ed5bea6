"""What each ATen operator does to channel ids: one entry of a dictionary and a few lines per operator.

Every channel of every tensor (dimension 1 of a [B, C, ...] tensor) carries an id. Rules read the ids of a node's
inputs from a `Flow`, tie or freeze ids, and return the ids of its output. An operator without a rule freezes all
ids that touch it: it costs prunability where it stands, never correctness; what froze them is remembered in words.
"""

from __future__ import annotations

import operator as python_operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.fx import Node

Ids = NDArray[np.int64]
Value = Ids | tuple["Value", ...] | None
"""Ids of one tensor, of a tuple of tensors, or None for what has no channels (numbers, vectors, parameters)."""


@dataclass(frozen=True)
class Unknown:
    """What a rule returns instead of ids when the operator, in the form met, is not in the table; `why` in words."""

    why: str = ""


UNKNOWN = Unknown()


@dataclass(frozen=True)
class Cause:
    """What froze a channel: an operator with the class of the module that calls it, or an output; and that module."""

    what: str
    place: str = ""


@dataclass(frozen=True)
class Operation:
    """A convolution or linear layer as the cost sees it: `elements` multiply-adds per position of the dense weight.

    `positions` is (height, width) at the traced size for convolutions and (rows,) for linear layers.
    `transposed` says that positions are those of the input.
    """

    weight: str
    elements: int
    positions: tuple[int, ...]
    transposed: bool = False


class Flow:
    """State of one pass over a traced graph: ids of every value, ties, and which tensor axis carries which ids.

    Attributes:
        ties: pairs of id vectors that are equal, element by element.
        frozen: ids that can never go, each with what froze it; whatever is tied to one is frozen too.
        lost: convolutions that a rule could not read: layer -> (channels that it emits, what froze them).
    """

    def __init__(self, parameters: dict[Node, str]) -> None:
        self.values: dict[Node, Value] = {}
        self.sources: dict[Node, str] = dict(parameters)
        self.names = parameters
        self.axes: dict[tuple[str, int], Ids] = {}
        self.ties: list[tuple[Ids, Ids]] = []
        self.frozen: dict[int, Cause] = {}
        self.emitted: dict[str, Ids] = {}
        self.filters: dict[str, int] = {}
        self.norms: dict[str, Ids] = {}
        self.after: dict[str, str] = {}
        self.operations: list[Operation] = []
        self.touched: dict[str, Cause] = {}
        self.lost: dict[str, tuple[int, Cause]] = {}
        self.count = 0

    def fresh(self, channels: int) -> Ids:
        """New ids for `channels` channels."""
        ids = np.arange(self.count, self.count + channels, dtype=np.int64)
        self.count += channels
        return ids

    def tie(self, first: Ids, second: Ids) -> None:
        """Declares the two id vectors equal, element by element."""
        self.ties.append((first, second))

    def frozen_id(self, by: Cause) -> int:
        """A new id that can never go."""
        number = int(self.fresh(1)[0])
        self.frozen[number] = by
        return number

    def freeze(self, value: Value, by: Cause) -> None:
        """Ties every id of the value to a frozen one."""
        if isinstance(value, tuple):
            for part in value:
                self.freeze(part, by)
        elif value is not None:
            self.tie(value, np.full_like(value, self.frozen_id(by)))

    def ids(self, node: Any) -> Ids | None:
        """Ids of a node that is one tensor with channels, else None."""
        value = self.values.get(node) if isinstance(node, Node) else None
        return value if isinstance(value, np.ndarray) else None

    def carry(self, tensor: str, dim: int, ids: Ids) -> None:
        """Notes that axis `dim` of parameter or buffer `tensor` is indexed by `ids`; a second use ties both."""
        known = self.axes.setdefault((tensor, dim), ids)
        if known is not ids:
            self.tie(known, ids)

    def visit(self, node: Node) -> None:
        """Computes and stores the value of one `call_function` node."""
        rule = OPERATORS.get(operator_name(node.target))
        value = rule(self, node) if rule is not None else UNKNOWN
        self.values[node] = self.give_up(node, value.why) if isinstance(value, Unknown) else value

    def give_up(self, node: Node, why: str = "") -> Value:
        """Freezes everything that a node reads and gives its outputs frozen ids."""
        by = Cause("the network's output") if node.op == "output" else cause_of(node, why)
        for source in node.all_input_nodes:
            self.freeze(self.values.get(source), by)
            if source in self.sources:
                self.touched.setdefault(self.sources[source], by)
        if len(node.all_input_nodes) == 1 and node.all_input_nodes[0] in self.sources:
            self.sources[node] = self.sources[node.all_input_nodes[0]]
        return frozen_like(node.meta.get("val"), self.frozen_id(by))


Rule = Callable[[Flow, Node], Value | Unknown]
OPERATORS: dict[str, Rule] = {}


def operator(*names: str) -> Callable[[Rule], Rule]:
    """Registers a rule under the names of ATen operators (without overload; in-place forms are the same operator)."""

    def register(rule: Rule) -> Rule:
        OPERATORS.update(dict.fromkeys(names, rule))
        return rule

    return register


def operator_name(target: Any) -> str:
    """`aten.add_.Tensor` -> "add"; Python's getitem -> "getitem"; anything else -> ""."""
    if isinstance(target, torch._ops.OpOverload):
        name = target._schema.name.split("::")[-1]
        return name[:-1] if name.endswith("_") else name
    return "getitem" if target is python_operator.getitem else ""


def arguments(node: Node) -> dict[str, Any]:
    """Arguments of an ATen node by the names of its schema, defaults filled in."""
    given: dict[str, Any] = {}
    for position, argument in enumerate(node.target._schema.arguments):  # type: ignore[union-attr]
        default = argument.default_value if argument.has_default_value() else None
        given[argument.name] = (
            node.args[position] if position < len(node.args) else node.kwargs.get(argument.name, default)
        )
    return given


def shape(node: Node) -> tuple[int, ...]:
    """Shape of the (first) tensor that the node gives, () when it gives none."""
    value = node.meta.get("val")
    if isinstance(value, (tuple, list)):
        value = value[0]
    return tuple(int(size) for size in value.shape) if isinstance(value, torch.Tensor) else ()


def frozen_like(value: Any, frozen_id: int) -> Value:
    """Frozen ids for a traced value of any form."""
    if isinstance(value, (tuple, list)):
        return tuple(frozen_like(part, frozen_id) for part in value)
    if isinstance(value, torch.Tensor) and value.ndim >= 2:
        return np.full(int(value.shape[1]), frozen_id, dtype=np.int64)
    return None


def cause_of(node: Node, why: str = "") -> Cause:
    """An operator in words, and what is wrong with it: "softmax in Attention"."""
    words, path = operator_name(node.target) or str(node.target), ""
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    if stack:
        path, kind = stack[-1]
        words += f" in {kind.__name__ if isinstance(kind, type) else str(kind).rpartition('.')[2]}"
    return Cause(f"{words}, {why}" if why else words, path)


def layer_of(tensor: str) -> str:
    """ "model.0.conv.weight" -> "model.0.conv"."""
    return tensor.rpartition(".")[0]


@operator("conv1d", "conv2d", "conv3d", "convolution", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
def convolution(flow: Flow, node: Node) -> Value | Unknown:
    """Reads its input's ids and emits fresh ones; grouped: the inputs and outputs of a group live or die as one."""
    call = arguments(node)
    ids, weight = flow.ids(call["input"]), flow.names.get(call["weight"])
    bias = flow.names.get(call["bias"]) if call["bias"] is not None else None
    transposed = call.get("transposed", operator_name(node.target).startswith("conv_transpose"))
    if call["weight"] in flow.sources:
        size = shape(call["input"])[2:] if transposed else shape(node)[2:]
        elements = int(np.prod(shape(call["weight"])))
        flow.operations.append(Operation(flow.sources[call["weight"]], elements, size, transposed))
    if ids is None or weight is None or (call["bias"] is not None and bias is None):
        why = "whose weights are computed" if ids is not None else ""
        if call["weight"] in flow.sources:
            flow.lost[layer_of(flow.sources[call["weight"]])] = (shape(node)[1], cause_of(node, why))
        return Unknown(why)
    groups, output = call["groups"], flow.fresh(shape(node)[1])
    rows, columns = (1, 0) if transposed else (0, 1)
    if groups == 1:
        flow.carry(weight, rows, output)
        flow.carry(weight, columns, ids)
    else:
        # Dimension 1 of a grouped weight counts inside the group, so only dimension 0 shrinks, with whole groups.
        for vector in (ids.reshape(groups, -1), output.reshape(groups, -1)):
            flow.tie(vector, np.broadcast_to(output.reshape(groups, -1)[:, :1], vector.shape))
        flow.carry(weight, 0, ids if transposed else output)
    if bias is not None:
        flow.carry(bias, 0, output)
    layer = layer_of(weight)
    if layer in flow.emitted:
        flow.tie(flow.emitted[layer], output)
    flow.emitted[layer] = output
    flow.filters[layer] = rows if groups == 1 else 0
    return output


@operator("linear", "addmm", "mm", "matmul")
def linear(flow: Flow, node: Node) -> Value | Unknown:
    """Counted in the cost; its channels are not prunable (flattened maps and attention mix positions with channels)."""
    call = arguments(node)
    weight = call.get("weight") or call.get("mat2") or call.get("other")
    if weight in flow.sources:
        rows = int(np.prod(shape(node)[:-1]))
        flow.operations.append(Operation(flow.sources[weight], int(np.prod(shape(weight))), (rows,)))
    return UNKNOWN


@operator("batch_norm", "_native_batch_norm_legit_no_training", "native_batch_norm", "cudnn_batch_norm")
def batch_norm(flow: Flow, node: Node) -> Value | Unknown:
    """Passes ids through; its four vectors are indexed by them."""
    call = arguments(node)
    ids = flow.ids(call["input"])
    names = [flow.names.get(call[key]) for key in ("weight", "bias", "running_mean", "running_var") if call[key]]
    if ids is None or len(names) < 4 or any(name is None for name in names):
        return UNKNOWN
    for name in names:
        flow.carry(str(name), 0, ids)
    layer = layer_of(str(names[0]))
    flow.norms[layer] = ids
    producer = call["input"]
    if operator_name(producer.target).startswith("conv") and len(producer.users) == 1:
        flow.after[layer_of(flow.sources.get(arguments(producer)["weight"], ""))] = layer
    return (ids, None, None) if isinstance(node.meta["val"], (tuple, list)) else ids


PASSING = """
    alias abs adaptive_avg_pool2d adaptive_max_pool2d avg_pool2d celu clamp clone constant_pad_nd contiguous detach
    detach_copy dropout elu exp feature_dropout gelu hardsigmoid hardswish hardtanh leaky_relu lift_fresh_copy
    log_sigmoid max_pool2d max_pool2d_with_indices mish neg pad pow reflection_pad2d relu relu6 replication_pad2d
    selu sigmoid silu softplus square tanh to _to_copy upsample_bicubic2d upsample_bilinear2d upsample_nearest2d
    _upsample_nearest_exact2d
"""


@operator(*PASSING.split())
def passing(flow: Flow, node: Node) -> Value | Unknown:
    """Activations, pooling, padding, resampling, copies: every channel stays where it is."""
    source = node.all_input_nodes[0]
    ids = flow.ids(source)
    if len(node.all_input_nodes) > 1 or ids is None or len(shape(node)) < 3 or shape(node)[1] != len(ids):
        return UNKNOWN
    padding = arguments(node).get("pad")
    if padding is not None and len(padding) > 2 * (len(shape(node)) - 2):
        return UNKNOWN
    return (ids, ids) if isinstance(node.meta["val"], (tuple, list)) else ids


@operator("mean", "sum", "amax")
def spatial_reduction(flow: Flow, node: Node) -> Value | Unknown:
    """Passes when only dimensions behind the channels are reduced and kept as 1."""
    call = arguments(node)
    rank, dims = len(shape(call["self"])), call.get("dim")
    ids = flow.ids(call["self"])
    if ids is None or rank < 3 or not dims or not call.get("keepdim") or any(dim % rank < 2 for dim in dims):
        return UNKNOWN
    return ids


@operator("add", "sub", "mul", "div", "maximum", "minimum", "rsub")
def elementwise(flow: Flow, node: Node) -> Value | Unknown:
    """Ties both operands element by element; a number or a one-element constant changes nothing."""
    call = arguments(node)
    nodes = [x for x in (call["self"], call["other"]) if isinstance(x, Node)]
    operands = [x for x in nodes if flow.ids(x) is not None]
    vectors = [ids for x in operands if (ids := flow.ids(x)) is not None]
    if not vectors or any(x not in operands and int(np.prod(shape(x))) != 1 for x in nodes):
        return UNKNOWN
    if any(len(shape(x)) != len(shape(node)) or shape(x)[1] != shape(node)[1] for x in operands):
        return UNKNOWN
    for other in vectors[1:]:
        flow.tie(vectors[0], other)
    return vectors[0]


@operator("cat", "concat")
def concatenate(flow: Flow, node: Node) -> Value | Unknown:
    """Along the channels: id vectors one after the other. Along another dimension: tied."""
    call = arguments(node)
    vectors = [ids for x in call["tensors"] if (ids := flow.ids(x)) is not None]
    if len(vectors) < len(call["tensors"]):
        return UNKNOWN
    if call["dim"] % len(shape(node)) == 1:
        return np.concatenate(vectors)
    for other in vectors[1:]:
        flow.tie(vectors[0], other)
    return vectors[0]


@operator("chunk")
def chunk(flow: Flow, node: Node) -> Value | Unknown:
    """Cuts the id vector; the pieces are tied, so that the network's own `chunk` finds their borders after a cut."""
    call = arguments(node)
    ids, pieces = flow.ids(call["self"]), len(node.meta["val"])
    if ids is None:
        return UNKNOWN
    if call["dim"] % len(shape(call["self"])) != 1:
        return (ids,) * pieces
    if len(ids) % pieces:
        return Unknown("whose pieces differ in width")
    parts = ids.reshape(pieces, -1)
    for part in parts[1:]:
        flow.tie(parts[0], part)
    return tuple(parts)


@operator("split", "split_with_sizes", "slice", "narrow")
def section(flow: Flow, node: Node) -> Value | Unknown:
    """Passes along other dimensions. Along the channels the network's code holds the border as a number, which no cut
    can move: those channels are frozen."""
    call = arguments(node)
    source, ids = call["self"], flow.ids(call["self"])
    if ids is None:
        return UNKNOWN
    along_channels = call["dim"] % len(shape(source)) == 1
    if along_channels and shape(node) != shape(source):
        return Unknown("whose borders along the channels are numbers in the network's code")
    return (ids,) * len(node.meta["val"]) if isinstance(node.meta["val"], (tuple, list)) else ids


@operator("getitem")
def item(flow: Flow, node: Node) -> Value | Unknown:
    """One tensor of a tuple."""
    source, index = node.args
    value = flow.values.get(source)  # type: ignore[arg-type]
    if source in flow.sources:
        flow.sources[node] = flow.sources[source]  # type: ignore[index]
    return value[index] if isinstance(value, tuple) and value else None  # type: ignore[index]


@operator("_assert_tensor_metadata", "_assert_async", "sym_size")
def remark(flow: Flow, node: Node) -> Value | Unknown:
    """Computes nothing from channels."""
    return None
