"""The state of one pass over a traced graph: which channels every value carries, what is tied and what is frozen.

Every channel of a tensor carries an id, along one dimension of the tensor. Rules (`rules/`, one function an operator)
read the channels of a node's inputs, tie or freeze ids, and return the channels of its output. An operator without a
rule freezes all ids that touch it: it costs prunability where it stands, never correctness; what froze them is
remembered in words.
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
    """What froze a channel: an operator with the class of the module that calls it, or an output; and that module."""

    what: str
    place: str = ""


@dataclass(frozen=True, eq=False)
class Channels:
    """A tensor whose dimension `dim` is indexed by channels: `ids` [size of that dimension]."""

    dim: int
    ids: Ids


@dataclass(frozen=True)
class Fixed:
    """A tensor without a channel that can go, and what fixed its shape."""

    by: Cause


Value = Channels | Fixed | tuple["Value", ...] | None
"""Channels of one tensor, of a tuple of tensors, or None for what is no tensor."""


@dataclass(frozen=True)
class Unknown:
    """What a rule returns when the operator, in the form met, is not in the table; `why` in words."""

    why: str = ""


UNKNOWN = Unknown()


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


@dataclass(frozen=True, eq=False)
class Number:
    """An integer that a module keeps and its code reads: the size of a dimension that these ids index."""

    module: str
    attribute: str
    ids: Ids


class Flow:
    """State of one pass over a traced graph.

    Attributes:
        modules: the network's modules by name.
        values: channels of every node.
        sources: parameter or buffer that a node is, or is made of alone; `names` holds those that are one unchanged.
        axes: ids of each dimension of each tensor that is indexed by channels.
        ties: pairs of id vectors that are equal, element by element.
        frozen: ids that can never go, each with what froze it; what is tied to one is frozen too.
        emitted, filters: of each convolution and linear layer the ids that it gives, and the dimension of its weight.
        norms: ids of each batch norm. `layer_norms`: ids of each layer norm over channels.
        lost: layers that a rule could not read: layer -> (channels that it emits, what froze them).
        numbers: integers in modules that follow channels.
        doubts: ids at places whose code holds numbers that may not follow a narrower network, and the place; a trial
            decides.
        inside_heads: names of modules that split channels into heads, of which not heads go but an equal part of each.
        heads: ids of those that modules outside of `inside_heads` split into heads or join again, and their names.
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
        """New ids for `channels` channels."""
        ids = np.arange(self.count, self.count + channels, dtype=np.int64)
        self.count += channels
        return ids

    def tie(self, first: Ids, second: Ids) -> None:
        """Declares the two id vectors equal, element by element."""
        self.ties.append((first, second))

    def tie_columns(self, table: Ids) -> Ids:
        """Ties every row of a table [rows, n] to its first one, which is returned."""
        if len(table) > 1:
            self.tie(table, np.broadcast_to(table[:1], table.shape))
        return table[0]

    def frozen_id(self, by: Cause) -> int:
        """A new id that can never go."""
        number = int(self.fresh(1)[0])
        self.frozen[number] = by
        return number

    def freeze(self, value: Value | Ids, by: Cause) -> None:
        """Ties every id of the value to a frozen one."""
        if isinstance(value, tuple):
            for part in value:
                self.freeze(part, by)
        elif isinstance(value, Channels):
            self.freeze(value.ids, by)
        elif isinstance(value, np.ndarray):
            self.tie(value, np.full_like(value, self.frozen_id(by)))

    def channels(self, node: Any) -> Channels | None:
        """Channels of a node that is one tensor with channels, else None.

        A parameter that is one vector, however it is laid out, has an entry for each channel that it meets.
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
        """Ids of a node whose channels lie along `dim`, else None."""
        value = self.channels(node)
        return value.ids if value is not None and value.dim == dim else None

    def cause(self, node: Any) -> Cause:
        """Why a tensor has no channel that can go."""
        value = self.values.get(node)
        return value.by if isinstance(value, Fixed) else cause_of(node)

    def carry(self, tensor: str, dim: int, ids: Ids) -> None:
        """Notes that axis `dim` of parameter or buffer `tensor` is indexed by `ids`; a second use ties both."""
        known = self.axes.setdefault((tensor, dim), ids)
        if known is not ids:
            self.tie(known, ids)

    def doubt(self, node: Node, ids: Ids, why: str = "whose sizes are numbers in the network's code") -> None:
        """Notes that a trial has to show whether these ids can go: the code around a node may hold a number that does
        not follow, say."""
        self.doubts.append((ids, cause_of(node, why)))

    def follow(self, node: Node, sizes: Mapping[int, Ids], doubtful: bool = True) -> None:
        """Notes that the code around a node holds numbers: sizes of channel dimensions, with the ids that they count.

        Every integer of that size which the calling module keeps is taken for the number. Whether that is right is
        left to a trial. There is none where the code finds the sizes by itself (not `doubtful`) and no integer follows.
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
        """Ids of the first tensor of so many channels that the module which calls a node is given."""
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
        """Freezes everything that a node reads; its outputs have no channel that can go."""
        by = cause_of(node, why)
        self.freeze_all(node.all_input_nodes, by)
        if len(node.all_input_nodes) == 1 and node.all_input_nodes[0] in self.sources:
            self.sources[node] = self.sources[node.all_input_nodes[0]]
        first = next((self.values[x] for x in node.all_input_nodes if isinstance(self.values.get(x), Fixed)), None)
        moving = any(self.channels(x) is not None for x in node.all_input_nodes)
        return fixed_like(node.meta.get("val"), first.by if isinstance(first, Fixed) and not moving else by)

    def freeze_all(self, nodes: Sequence[Node], by: Cause) -> None:
        """Freezes the channels of these nodes, and every axis of the tensors that they are made of."""
        for source in nodes:
            self.freeze(self.values.get(source), by)
            if source in self.sources:
                self.touched.setdefault(self.sources[source], by)


Rule = Callable[[Flow, Node], Value | Unknown]
OPERATORS: Registry[Rule] = Registry("operator", "secateur.pruning.graph.rules")


def operator(*names: str) -> Callable[[Rule], Rule]:
    """Registers a rule under the names of ATen operators (without overload; in-place forms are the same operator)."""

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


def fixed_like(value: Any, by: Cause) -> Value:
    """What a traced value of any form is when none of its channels can go."""
    if isinstance(value, (tuple, list)):
        return tuple(fixed_like(part, by) for part in value)
    return Fixed(by) if isinstance(value, torch.Tensor) else None


def cause_of(node: Node, why: str = "") -> Cause:
    """An operator in words, and what is wrong with it: "softmax in Attention"."""
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
"""`model[:-1]` in the name of a module that is called out of it: it has the name that it has in `model`."""


def _within(node: Node, place: str) -> bool:
    """Whether a module of this name, or one inside of it, calls a node."""
    return any(path == place for path, _ in callers(node))


def layer_of(tensor: str) -> str:
    """ "model.0.conv.weight" -> "model.0.conv"."""
    return tensor.rpartition(".")[0]
