"""Derives the channel graph of a cut network from the graph of the whole network, without tracing again."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from secateur.pruning.graph.assembly import spaces_of
from secateur.pruning.graph.channels import ChannelGraph, FrozenChannels
from secateur.pruning.graph.flow import Ids
from secateur.pruning.graph.pricing import Axis, Bools

_GONE = -2


def remaining(graph: ChannelGraph, keep: Bools) -> ChannelGraph:
    """The graph of the network that `graph` describes after a cut to these units, equal to what a trace would find.

    A trace takes seconds, this takes milliseconds. Channels that were frozen because of a size in the code stay frozen,
    even if a trace of the smaller network would find them removable.

    Args:
        keep: bool [units], at least one channel in each layer.
    """
    if keep.all():
        return graph
    number = np.append(np.where(keep, np.cumsum(keep) - 1, _GONE), -1)  # index -1 (frozen) reads the last entry

    def left(units: Ids) -> Ids:
        renumbered: Ids = number[units]
        return renumbered[renumbered != _GONE]

    emitted = {layer: left(units) for layer, units in graph.emitted.items()}
    axes = tuple(Axis(axis.tensor, axis.dim, left(axis.units)) for axis in graph.axes)
    axes = tuple(axis for axis in axes if (axis.units >= 0).any())
    units = int(keep.sum())
    return replace(
        graph,
        units=units,
        spaces=spaces_of(emitted, units),
        axes=axes,
        filters={layer: Axis(axis.tensor, axis.dim, left(axis.units)) for layer, axis in graph.filters.items()},
        emitted=emitted,
        norms={layer: left(units) for layer, units in graph.norms.items()},
        layer_norms={layer: left(units) for layer, units in graph.layer_norms.items()},
        numbers=tuple(replace(entry, ids=left(entry.ids)) for entry in graph.numbers),
        frozen=FrozenChannels(
            tuple(
                replace(entry, total=len(emitted[entry.layer])) if entry.layer in emitted else entry
                for entry in graph.frozen
            )
        ),
        pricing=graph.pricing.remaining(keep, axes),
        operations=tuple(
            replace(operation, reads=left(operation.reads), emits=left(operation.emits))
            for operation in graph.operations
        ),
    )
