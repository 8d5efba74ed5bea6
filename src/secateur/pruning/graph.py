"""The channel graph: which channels live or die together, and which tensors they index."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from secateur.detector.attention import Attention
from secateur.detector.model import Detector
from secateur.errors import UserError
from secateur.pruning.operators import FROZEN, Flow, Ids, Operation, frozen_like
from secateur.pruning.pricing import Axis, Bools, Floats, Price, Pricing, Work

__all__ = ["Axis", "Bools", "ChannelGraph", "Floats", "Price", "Space", "trace"]


@dataclass(frozen=True, eq=False)
class Space:
    """Units that are emitted by exactly the same layers.

    `width` is how many channels of the first layer one unit stands for (more than 1 in grouped convolutions),
    `frozen` how many channels of that layer belong to no unit.
    """

    layers: tuple[str, ...]
    units: Ids
    width: int
    frozen: int

    def matches(self, patterns: tuple[str, ...]) -> bool:
        """Whether a pattern names one of its layers or a module around it ("model.24", "model.*.cv1.conv")."""
        names = {".".join(parts[: n + 1]) for parts in (x.split(".") for x in self.layers) for n in range(len(parts))}
        return any(fnmatchcase(name, pattern) for name in names for pattern in patterns)


@dataclass(frozen=True, eq=False)
class ChannelGraph:
    """Units, spaces, and for every tensor axis the unit of each entry. Made by `trace`; holds no weights.

    `filters` gives for each prunable convolution the axis of its weight that is indexed by the channels it emits,
    `emitted` the unit of each channel it emits, `norms` the unit of each channel of each batch norm, `norm_after`
    the batch norm that alone reads a convolution.
    """

    units: int
    spaces: tuple[Space, ...]
    axes: tuple[Axis, ...]
    filters: dict[str, Axis]
    emitted: dict[str, Ids]
    norms: dict[str, Ids]
    norm_after: dict[str, str]
    pricing: Pricing = field(repr=False)

    def price(self, keep: Bools | Tensor | None = None, image_size: int | tuple[int, int] = 640) -> Price:
        """Exact cost of the network that keeps these units (None: all), without building it.

        Raises:
            UserError: the image size is not a multiple of the network's largest stride.
        """
        mask = np.ones(self.units, dtype=bool) if keep is None else np.asarray(keep, dtype=bool)
        return self.pricing.price(mask, image_size)

    @cached_property
    def space_of(self) -> Ids:
        """Index of the space of each unit."""
        index = np.empty(self.units, dtype=np.int64)
        for number, space in enumerate(self.spaces):
            index[space.units] = number
        return index

    @cached_property
    def consumers(self) -> tuple[Axis, ...]:
        """Axes along which ungrouped convolutions read units: one a convolution."""
        return tuple(
            axis
            for axis in self.axes
            if axis.layer in self.filters
            and axis.tensor.endswith("weight")
            and axis.dim != self.filters[axis.layer].dim
        )


def trace(network: nn.Module, image_size: int | None = None, channels: int | None = None) -> ChannelGraph:
    """Traces a network that takes [1, channels, H, W] and finds its units by letting channel ids flow through it.

    The network is left as it was. `image_size` (pixels) defaults to twice the largest stride for a detector, else 64;
    `channels` to the detector's, else 3.

    Raises:
        UserError: the network cannot be traced.
    """
    stride = 32
    if isinstance(network, Detector):
        stride = int(max(network.strides))
        channels = channels or network.topology.channels
    small = image_size or 2 * stride
    large = small + stride if small % stride == 0 else 2 * small
    reference = next(network.parameters())
    image = torch.zeros(1, channels or 3, small, small, device=reference.device, dtype=reference.dtype)
    modes = {module: module.training for module in network.modules()}
    network.eval()
    try:
        flow = _flow(network, image)
        shapes = _shapes(network, image.new_empty((1, image.shape[1], large, large), device="meta"))
    finally:
        for module, mode in modes.items():
            module.training = mode
    work = []
    uncounted = {
        f"{name}.{tensor}"
        for name, module in network.named_modules()
        if isinstance(module, (Attention, nn.MultiheadAttention))
        for tensor, _ in module.named_parameters()
    }
    for operation in flow.operations:
        if operation.weight in uncounted:
            continue
        first, second = operation.positions, _second_positions(operation, shapes, (small, large))
        if len(first) != 2:
            first, second = _sides(first, second)
        work.append(Work(operation, (small, large), first, second))
    return _assemble(network, flow, work)


def _flow(network: nn.Module, image: Tensor) -> Flow:
    """Exports the network and sends ids through the graph."""
    try:
        program = torch.export.export(network, (image,), strict=False)
    except Exception as error:  # whatever torch.export cannot express, in its own many exception types
        first_line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(
            f"The network cannot be traced ({first_line}); "
            "only networks whose path does not depend on the data can be pruned."
        ) from error
    signature = program.graph_signature
    names = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    nodes = list(program.graph.nodes)
    flow = Flow({node: names[node.name] for node in nodes if node.op == "placeholder" and node.name in names})
    for node in nodes:
        if node.op == "placeholder" and node.name in signature.user_inputs:
            flow.values[node] = frozen_like(node.meta["val"])
        elif node.op == "call_function":
            flow.visit(node)
        elif node.op == "output":
            flow.give_up(node)
    for (tensor, _), ids in flow.axes.items():
        if tensor in flow.touched:
            flow.freeze(ids)
    return flow


Shapes = dict[str, list[tuple[tuple[int, ...], tuple[int, ...]]]]


def _shapes(network: nn.Module, image: Tensor) -> Shapes:
    """Input and output shape of every call of every module in a forward pass, if possible without arithmetic."""
    shapes: Shapes = defaultdict(list)

    def watch(name: str) -> Any:
        def note(module: nn.Module, inputs: Any, output: Any) -> None:
            output = output[0] if isinstance(output, (tuple, list)) else output
            if inputs and isinstance(inputs[0], Tensor) and isinstance(output, Tensor):
                shapes[name].append((tuple(inputs[0].shape), tuple(output.shape)))

        return note

    tensors = {
        name: torch.empty_like(tensor, device="meta")
        for name, tensor in [*network.named_parameters(), *network.named_buffers()]
    }
    handles = [module.register_forward_hook(watch(name)) for name, module in network.named_modules()]
    try:
        with torch.no_grad():
            try:
                functional_call(network, tensors, (image,))
            except RuntimeError:  # a tensor that is neither parameter nor buffer is not on the meta device
                shapes.clear()
                network(torch.zeros_like(image, device=next(network.parameters()).device))
    finally:
        for handle in handles:
            handle.remove()
    return shapes


def _second_positions(operation: Operation, shapes: Shapes, sizes: tuple[int, int]) -> tuple[int, ...]:
    """Positions of an operation at the second image size, read from the module that owns its weight."""
    owner = operation.weight.rpartition(".")[0]
    if len(operation.positions) > 1:
        if not shapes.get(owner):
            return tuple(side * sizes[1] // sizes[0] for side in operation.positions)
        # A module that is called more than once is visited in the same order here and in the trace.
        before, after = shapes[owner].pop(0)
        return before[2:] if operation.transposed else after[2:]
    # A linear layer that is called as a function has the rows of the nearest module around it that was called.
    while owner and owner not in shapes:
        owner = owner.rpartition(".")[0]
    output = shapes[owner][0][1] if shapes.get(owner) else (operation.positions[0] * sizes[1] ** 2 // sizes[0] ** 2, 1)
    return (int(np.prod(output[:-1])),)


def _sides(rows: tuple[int, ...], second: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Rows that are a flattened square map at both (square) sizes, as the sides of that map."""
    sides = tuple(math.isqrt(int(np.prod(count))) for count in (rows, second))
    if all(side**2 == int(np.prod(count)) for side, count in zip(sides, (rows, second), strict=True)):
        return (sides[0],) * 2, (sides[1],) * 2
    return rows, second


def _assemble(network: nn.Module, flow: Flow, work: list[Work]) -> ChannelGraph:
    """Resolves ties, numbers the units in order of execution and groups them into spaces."""
    roots = _components(flow.count, flow.ties)
    alive = (
        np.unique(np.concatenate([roots[ids] for ids in flow.emitted.values()])) if flow.emitted else np.empty(0, int)
    )
    alive = alive[alive != FROZEN]
    number = np.full(flow.count, -1, dtype=np.int64)
    number[alive] = np.arange(len(alive))
    unit = number[roots]
    emitted = {layer: unit[ids] for layer, ids in flow.emitted.items()}
    # An axis without a unit is never cut: leaving it out keeps the price's products short.
    axes = tuple(Axis(tensor, dim, unit[ids]) for (tensor, dim), ids in flow.axes.items() if (unit[ids] >= 0).any())
    parameters = {name for name, _ in network.named_parameters()}
    buffers = {name for name, _ in network.named_buffers()}
    unknown = {axis.tensor for axis in axes} - parameters - buffers
    if unknown:
        raise UserError(f"The network shares {sorted(unknown)[0]} under another name; such weights cannot be pruned.")
    filters = {
        layer: Axis(f"{layer}.weight", dim, unit[flow.axes[f"{layer}.weight", dim]])
        for layer, dim in flow.filters.items()
    }
    return ChannelGraph(
        units=len(alive),
        spaces=_spaces(emitted, len(alive)),
        axes=axes,
        filters=filters,
        emitted=emitted,
        norms={layer: unit[ids] for layer, ids in flow.norms.items()},
        norm_after=flow.after,
        pricing=Pricing(network, axes, work),
    )


def _components(count: int, ties: list[tuple[Ids, Ids]]) -> Ids:
    """Smallest id of each id's tied set."""
    parent = np.arange(count, dtype=np.int64)
    if not ties:
        return parent
    first = np.concatenate([np.ravel(a) for a, _ in ties])
    second = np.concatenate([np.ravel(b) for _, b in ties])
    while True:
        a, b = parent[first], parent[second]
        if (a == b).all():
            return parent
        np.minimum.at(parent, np.maximum(a, b), np.minimum(a, b))
        while (parent[parent] != parent).any():
            parent = parent[parent]


def _spaces(emitted: dict[str, Ids], units: int) -> tuple[Space, ...]:
    layers: list[list[str]] = [[] for _ in range(units)]
    for layer, ids in emitted.items():
        for unit in np.unique(ids[ids >= 0]).tolist():
            layers[unit].append(layer)
    members: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for unit, producers in enumerate(layers):
        members[tuple(producers)].append(unit)
    spaces = []
    for names, inside in members.items():
        first = emitted[names[0]]
        width = int((first == inside[0]).sum())
        spaces.append(Space(names, np.array(inside, dtype=np.int64), width, int((first < 0).sum())))
    return tuple(spaces)
