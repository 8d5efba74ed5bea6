"""State of one pass over a traced graph: the channels of every value, ties between channels, and frozen channels.

Every channel of a tensor has an id, along one dimension of the tensor. Rules (`rules/`, one function per operator) read
the channels of the inputs of a node, tie or freeze ids, and return the channels of its output. An operator without a
rule freezes all ids that reach it. This can only lose prunable channels, never correctness, and the cause is recorded
as text.
"""

from __future__ import annotations

import operator as python_operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.fx import Node

from secateur.registry import Registry

Ids = NDArray[np.int64]


@dataclass(frozen=True)
class Cause:
    """Cause of a frozen channel: an operator and the class of the module that calls it, or an output; and the module
    name."""

    what: str
    place: str = ""


@dataclass(frozen=True, eq=False)
class Channels:
    """A tensor whose dimension `dim` is indexed by channels: `ids` int64 [size of that dimension]."""

    dim: int
    ids: Ids


@dataclass(frozen=True)
class Fixed:
    """A tensor without a removable channel, and the cause."""

    by: Cause


Value = Channels | Fixed | tuple["Value", ...] | None
"""Channels of a tensor or of a tuple of tensors; None for values that are not tensors."""


@dataclass(frozen=True)
class Unknown:
    """Returned by a rule if it does not support this form of the operator; `why` is the reason as text."""

    why: str = ""


UNKNOWN = Unknown()


@dataclass(frozen=True)
class Operation:
    """A convolution or linear layer for the cost model: `elements` multiply-adds per position, with the dense weight.

    `positions` is (height, width) at the traced size for convolutions and (rows,) for linear layers. If `transposed`,
    positions are those of the input.
    """

    weight: str
    elements: int
    positions: tuple[int, ...]
    transposed: bool = False


@dataclass(frozen=True, eq=False)
class Number:
    """An integer that a module stores and its code reads: the size of a dimension that these ids index."""

    module: str
    attribute: str
    ids: Ids


class Flow:
    """State of one pass over a traced graph. Ids are int64 [channels].

    Attributes:
        modules: modules of the network by name.
        values: channels of every node.
        sources: the parameter or buffer that a node is, or is computed from exclusively; `names` holds the unchanged
            ones.
        axes: ids of each dimension of each tensor that is indexed by channels.
        ties: pairs of id vectors that are equal element by element.
        frozen: ids that can never be removed, with their causes; ids tied to them are frozen too.
        emitted, filters: for each convolution and linear layer, the ids of its outputs, and the output dimension of its
            weight.
        norms: ids of each batch norm. `layer_norms`: ids of each layer norm over channels.
        lost: layers that no rule could handle: layer -> (number of output channels, cause).
        numbers: integers in modules that depend on channel counts.
        doubts: ids at places whose code holds numbers that may not adapt to a narrower network, and the place; a trial
            decides.
        inside_heads: names of modules with attention heads that are narrowed equally instead of removed.
        heads: ids that modules outside `inside_heads` split into heads or join again, and the names of these modules.
    """

    def __init__(
        self, parameters: dict[Node, str], modules: Mapping[str, nn.Module], inside_heads: frozenset[str] = frozenset()
    ) -> None:
        self.modules = modules
        self.inside_heads = inside_heads
        self.heads: list[tuple[str, Ids]] = []
        self.values: dict[Node, Value] = {}
        self.sources: dict[Node, str] = dict(parameters)
        self.names = parameters
        self.axes: dict[tuple[str, int], Ids] = {}
        self.ties: list[tuple[Ids, Ids]] = []
        self.frozen: dict[int, Cause] = {}
        self.emitted: dict[str, Ids] = {}
        self.filters: dict[str, int] = {}
        self.norms: dict[str, Ids] = {}
        self.layer_norms: dict[str, Ids] = {}
        self.after: dict[str, str] = {}
        self.operations: list[Operation] = []
        self.touched: dict[str, Cause] = {}
        self.lost: dict[str, tuple[int, Cause]] = {}
        self.numbers: list[Number] = []
        self.doubts: list[tuple[Ids, Cause]] = []
        self.count = 0

    def fresh(self, channels: int) -> Ids:
        """New ids for `channels` channels: int64 [channels]."""
        ids = np.arange(self.count, self.count + channels, dtype=np.int64)
        self.count += channels
        return ids

    def tie(self, first: Ids, second: Ids) -> None:
        """Declares two id vectors [channels] equal, element by element."""
        self.ties.append((first, second))

    def tie_columns(self, table: Ids) -> Ids:
        """Ties every row of a table [rows, n] to its first row, and returns that row [n]."""
        if len(table) > 1:
            self.tie(table, np.broadcast_to(table[:1], table.shape))
        return table[0]

    def frozen_id(self, by: Cause) -> int:
        """A new id that can never be removed."""
        number = int(self.fresh(1)[0])
        self.frozen[number] = by
        return number

    def freeze(self, value: Value | Ids, by: Cause) -> None:
        """Ties every id of the value, or of a vector [channels], to a frozen id."""
        if isinstance(value, tuple):
            for part in value:
                self.freeze(part, by)
        elif isinstance(value, Channels):
            self.freeze(value.ids, by)
        elif isinstance(value, np.ndarray):
            self.tie(value, np.full_like(value, self.frozen_id(by)))

    def channels(self, node: Any) -> Channels | None:
        """Channels of a node that is a single tensor with channels, otherwise None.

        A parameter with one non-trivial dimension, in any layout, has one entry for each channel that it is combined
        with.
        """
        if not isinstance(node, Node):
            return None
        if node in self.names and node not in self.values:
            wide = [dim for dim, size in enumerate(shape(node)) if size > 1]
            if len(wide) == 1:
                ids = self.fresh(shape(node)[wide[0]])
                self.carry(self.names[node], wide[0], ids)
                self.values[node] = Channels(wide[0], ids)
        value = self.values.get(node)
        return value if isinstance(value, Channels) else None

    def ids(self, node: Any, dim: int = 1) -> Ids | None:
        """Ids [channels] of a node whose channels are along `dim`, otherwise None."""
        value = self.channels(node)
        return value.ids if value is not None and value.dim == dim else None

    def cause(self, node: Any) -> Cause:
        """Why a tensor has no removable channel."""
        value = self.values.get(node)
        return value.by if isinstance(value, Fixed) else cause_of(node)

    def carry(self, tensor: str, dim: int, ids: Ids) -> None:
        """Records that dimension `dim` of the parameter or buffer `tensor` is indexed by `ids` [channels]; a second
        use ties both."""
        known = self.axes.setdefault((tensor, dim), ids)
        if known is not ids:
            self.tie(known, ids)

    def doubt(self, node: Node, ids: Ids, why: str = "whose sizes are numbers in the network's code") -> None:
        """Records that a trial must show whether these ids [channels] can be removed, for example because the code
        around a node may hold a number that does not adapt."""
        self.doubts.append((ids, cause_of(node, why)))

    def follow(self, node: Node, sizes: Mapping[int, Ids], doubtful: bool = True) -> None:
        """Records that the code around a node holds sizes of channel dimensions; `sizes` maps the size to the ids
        [channels].

        Every integer with that value that the calling module stores is assumed to be this size. A trial verifies the
        assumption. There is no trial if the code derives the sizes itself (not `doubtful`) and no stored integer
        depends on them.
        """
        if doubtful:
            for ids in sizes.values():
                self.doubt(node, ids)
        place = cause_of(node).place
        module = self.modules.get(place)
        kept = vars(module).items() if module is not None else ()
        known = {(number.module, number.attribute) for number in self.numbers}
        for name, value in kept:
            if type(value) is int and value in sizes and (place, name) not in known:
                self.numbers.append(Number(place, name, sizes[value]))
                self.doubt(node, sizes[value])

    def entering(self, node: Node, channels: int) -> Ids | None:
        """Ids [channels] of the first tensor with this number of channels among the inputs of the module that calls
        a node."""
        place = cause_of(node).place
        if not place:
            return None
        for inside in node.graph.nodes:
            for source in inside.all_input_nodes if _within(inside, place) else ():
                read = None if _within(source, place) else self.channels(source)
                if read is not None and len(read.ids) == channels:
                    return read.ids
        return None

    def visit(self, node: Node) -> None:
        """Computes and stores the value of one `call_function` node."""
        name = operator_name(node.target)
        value = OPERATORS[name](self, node) if name in OPERATORS else UNKNOWN
        self.values[node] = self.give_up(node, value.why) if isinstance(value, Unknown) else value

    def give_up(self, node: Node, why: str = "") -> Value:
        """Freezes everything that a node reads; its outputs have no removable channel."""
        by = cause_of(node, why)
        self.freeze_all(node.all_input_nodes, by)
        if len(node.all_input_nodes) == 1 and node.all_input_nodes[0] in self.sources:
            self.sources[node] = self.sources[node.all_input_nodes[0]]
        first = next((self.values[x] for x in node.all_input_nodes if isinstance(self.values.get(x), Fixed)), None)
        moving = any(self.channels(x) is not None for x in node.all_input_nodes)
        return fixed_like(node.meta.get("val"), first.by if isinstance(first, Fixed) and not moving else by)

    def freeze_all(self, nodes: Sequence[Node], by: Cause) -> None:
        """Freezes the channels of these nodes, and every axis of the tensors that they are computed from."""
        for source in nodes:
            self.freeze(self.values.get(source), by)
            if source in self.sources:
                self.touched.setdefault(self.sources[source], by)


Rule = Callable[[Flow, Node], Value | Unknown]
OPERATORS: Registry[Rule] = Registry("operator", "secateur.pruning.graph.rules")


def operator(*names: str) -> Callable[[Rule], Rule]:
    """Registers a rule under the names of ATen operators, without overload; in-place variants share the rule."""

    def register(rule: Rule) -> Rule:
        for name in names:
            OPERATORS.register(name)(rule)
        return rule

    return register


def operator_name(target: Any) -> str:
    """`aten.add_.Tensor` -> "add"; Python's getitem -> "getitem"; anything else -> ""."""
    if isinstance(target, torch._ops.OpOverload):
        name = target._schema.name.split("::")[-1]
        return name[:-1] if name.endswith("_") else name
    return "getitem" if target is python_operator.getitem else ""


def arguments(node: Node) -> dict[str, Any]:
    """Arguments of an ATen node by schema name, including defaults."""
    given: dict[str, Any] = {}
    for position, argument in enumerate(node.target._schema.arguments):  # type: ignore[union-attr]
        default = argument.default_value if argument.has_default_value() else None
        given[argument.name] = (
            node.args[position] if position < len(node.args) else node.kwargs.get(argument.name, default)
        )
    return given


def shape(node: Node) -> tuple[int, ...]:
    """Shape of the (first) output tensor of the node; () if it has none."""
    value = node.meta.get("val")
    if isinstance(value, (tuple, list)):
        value = value[0]
    return tuple(int(size) for size in value.shape) if isinstance(value, torch.Tensor) else ()


def fixed_like(value: Any, by: Cause) -> Value:
    """The value, of the same structure as the traced value, without any removable channel."""
    if isinstance(value, (tuple, list)):
        return tuple(fixed_like(part, by) for part in value)
    return Fixed(by) if isinstance(value, torch.Tensor) else None


def cause_of(node: Node, why: str = "") -> Cause:
    """An operator and its problem as text: "softmax in Attention"."""
    words, path = operator_name(node.target) or str(node.target), ""
    calling = callers(node)
    if calling:
        path, kind = calling[-1]
        words += f" in {kind.__name__ if isinstance(kind, type) else str(kind).rpartition('.')[2]}"
    return Cause(f"{words}, {why}" if why else words, path)


def callers(node: Node) -> list[tuple[str, Any]]:
    """Names and classes of the modules that call a node, outermost first."""
    found = (node.meta.get("nn_module_stack") or {}).values()
    return [(_FIRST_PART.sub("", path), kind) for path, kind in found]


_FIRST_PART = re.compile(r"(?:^|(?<=\.))slice\((?:None|0), [^)]*\)\.")
"""`model[:-1]` in the name of a module that is called from the slice; its name is the one it has in `model`."""


def _within(node: Node, place: str) -> bool:
    """Whether the module of this name, or one inside it, calls a node."""
    return any(path == place for path, _ in callers(node))


def layer_of(tensor: str) -> str:
    """ "model.0.conv.weight" -> "model.0.conv"."""
    return tensor.rpartition(".")[0]
