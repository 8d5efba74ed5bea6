"""Builds the channel graph from a finished flow: tied channels become units, and units are grouped into spaces."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from secateur.errors import UserError
from secateur.pruning.graph.channels import ChannelGraph, Frozen, FrozenChannels, Space
from secateur.pruning.graph.flow import Cause, Flow, Ids, Number
from secateur.pruning.graph.inputs import Call, image_sides, mapped
from secateur.pruning.graph.operations import in_units
from secateur.pruning.graph.pricing import Axis, Pricing, Work
from secateur.pruning.graph.trial import Trial
from secateur.pruning.latency import TracedOperation

Follow = Callable[..., tuple[Flow, list[TracedOperation]]]
"""Sends ids through the network. Takes the names of attention modules whose heads are narrowed instead of removed."""


def assembled(network: nn.Module, follow: Follow, work: list[Work], call: Call) -> ChannelGraph:
    """Resolves ties, numbers the units in order of execution and groups them into spaces."""
    flow, operations = _tried(network, follow, call)
    unit, roots, causes = _numbered(flow)
    emitted = {layer: unit[ids] for layer, ids in flow.emitted.items()}
    axes = _axes(flow, unit)
    parameters = {name for name, _ in network.named_parameters()}
    buffers = {name for name, _ in network.named_buffers()}
    unknown = {axis.tensor for axis in axes} - parameters - buffers
    if unknown:
        raise UserError(
            f"{sorted(unknown)[0]} is shared under another name. Networks with such shared weights cannot be pruned."
        )
    filters = {
        layer: Axis(f"{layer}.weight", dim, unit[flow.axes[f"{layer}.weight", dim]])
        for layer, dim in flow.filters.items()
    }
    units = int(unit.max(initial=-1)) + 1
    return ChannelGraph(
        units=units,
        spaces=spaces_of(emitted, units),
        axes=axes,
        filters=filters,
        emitted=emitted,
        norms={layer: unit[ids] for layer, ids in flow.norms.items()},
        layer_norms={layer: unit[ids] for layer, ids in flow.layer_norms.items()},
        norm_after=flow.after,
        numbers=_numbers(flow, unit),
        frozen=_frozen(flow, roots, causes),
        inputs=mapped(call.inputs, lambda tensor: torch.empty_like(tensor, device="meta")),
        image_size=image_sides(call.inputs),
        pricing=Pricing({name: value.numel() for name, value in network.named_parameters()}, axes, work),
        operations=tuple(in_units(operation, unit) for operation in operations),
    )


def _numbered(flow: Flow) -> tuple[Ids, Ids, dict[int, Cause]]:
    """Unit of each id (-1: none), smallest id of each tied set, and the cause of every frozen id."""
    roots = _components(flow.count, flow.ties)
    causes: dict[int, Cause] = {}
    for number in sorted(flow.frozen):  # the first one in execution order
        causes.setdefault(int(roots[number]), flow.frozen[number])
    emitting = np.unique(np.concatenate([roots[ids] for ids in flow.emitted.values()] or [np.empty(0, np.int64)]))
    alive = emitting[~np.isin(emitting, list(causes))]
    number_of = np.full(flow.count, -1, dtype=np.int64)
    number_of[alive] = np.arange(len(alive))
    return number_of[roots], roots, causes


def _axes(flow: Flow, unit: Ids) -> tuple[Axis, ...]:
    # Entries without a unit are never cut. Leaving out their axes keeps the sums of products short.
    return tuple(Axis(tensor, dim, unit[ids]) for (tensor, dim), ids in flow.axes.items() if (unit[ids] >= 0).any())


def _numbers(flow: Flow, unit: Ids) -> tuple[Number, ...]:
    numbers = [Number(number.module, number.attribute, unit[number.ids]) for number in flow.numbers]
    return tuple(number for number in numbers if (number.ids >= 0).any())


def _tried(network: nn.Module, follow: Follow, call: Call) -> tuple[Flow, list[TracedOperation]]:
    """The flow through the network, after freezing the spaces that the trial rejects.

    If the trial rejects removing whole heads of an attention, removing an equal part of each head is tried.
    """
    flow, operations = follow()
    refused = _refused(network, flow, call)
    gone = np.concatenate(refused or [np.empty(0, np.int64)])
    inside_heads = frozenset(module for module, ids in flow.heads if np.isin(ids, gone).any())
    if inside_heads:
        other, its_operations = follow(inside_heads)
        its_refused = _refused(network, other, call)
        if _free(other, its_refused) > _free(flow, refused):
            flow, operations, refused = other, its_operations, its_refused
    for ids in refused:
        doubts = (cause for doubted, cause in flow.doubts if np.isin(doubted, ids).any())
        flow.freeze(ids, next(doubts, Cause("a size in the network's code")))
    return flow, operations


def _free(flow: Flow, refused: list[Ids]) -> int:
    """Number of removable channels."""
    unit, _, _ = _numbered(flow)
    gone = np.concatenate(refused or [np.empty(0, np.int64)])
    return sum(int(((unit[ids] >= 0) & ~np.isin(ids, gone)).sum()) for ids in flow.emitted.values())


def _refused(network: nn.Module, flow: Flow, call: Call) -> list[Ids]:
    """Ids of each space that the trial rejects; empty if the code holds no numbers."""
    unit, _, _ = _numbered(flow)
    known = np.unique(np.concatenate([unit[ids] for ids, _ in flow.doubts] or [np.empty(0, np.int64)]))
    if not (known >= 0).any():
        return []
    emitted = {layer: unit[ids] for layer, ids in flow.emitted.items()}
    units = int(unit.max(initial=-1)) + 1
    spaces = [space.units for space in spaces_of(emitted, units)]
    norms = {layer: unit[ids] for layer, ids in flow.layer_norms.items()}
    trial = Trial(network, call, _axes(flow, unit), _numbers(flow, unit), list(flow.norms), norms)
    refused = trial.refused(spaces, [bool(np.isin(space, known).any()) for space in spaces], units)
    return [np.flatnonzero(np.isin(unit, space)) for space in refused]


def _frozen(flow: Flow, roots: Ids, causes: dict[int, Cause]) -> FrozenChannels:
    """The frozen channels of each layer, and the causes."""
    entries = []
    for layer, ids in flow.emitted.items():
        found = [causes[root] for root in roots[ids].tolist() if root in causes]
        entries += [Frozen(layer, found.count(by), len(ids), by.what, by.place) for by in dict.fromkeys(found)]
    lost = {layer: entry for layer, entry in flow.lost.items() if layer not in flow.emitted}
    entries += [Frozen(layer, channels, channels, by.what, by.place) for layer, (channels, by) in lost.items()]
    return FrozenChannels(tuple(entries))


def _components(count: int, ties: list[tuple[Ids, Ids]]) -> Ids:
    """Smallest id in the tied set of each id."""
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


def spaces_of(emitted: dict[str, Ids], units: int) -> tuple[Space, ...]:
    """Groups units by the layers that emit them and by the number of channels per unit in each of these layers.

    Args:
        emitted: by layer, the unit of each channel: int64 [channels], -1 for none.
        units: number of units.
    """
    producers: list[list[tuple[str, int]]] = [[] for _ in range(units)]
    for layer, ids in emitted.items():
        for unit, width in zip(*(x.tolist() for x in np.unique(ids[ids >= 0], return_counts=True)), strict=True):
            producers[unit].append((layer, width))
    members: dict[tuple[tuple[str, int], ...], list[int]] = defaultdict(list)
    for unit, layers in enumerate(producers):
        members[tuple(layers)].append(unit)
    frozen = {layer: int((ids < 0).sum()) for layer, ids in emitted.items()}
    return tuple(
        Space(
            layers=tuple(layer for layer, _ in layers),
            units=np.array(inside, dtype=np.int64),
            widths=tuple(width for _, width in layers),
            frozen=tuple(frozen.pop(layer, 0) for layer, _ in layers),
        )
        for layers, inside in members.items()
    )
