"""Cuts the channels that a plan removes, or silences them in a copy of the same size; both give the same outputs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from torch import Tensor, nn

from secateur.errors import UserError
from secateur.pruning.graph import ChannelGraph
from secateur.pruning.graph.narrowing import kept_indices, narrowed, selected, silenced
from secateur.pruning.plan import Plan

Network = TypeVar("Network", bound=nn.Module)


def cut(network: Network, graph: ChannelGraph, plan: Plan) -> Network:
    """A new network without the channels that the plan removes; the given network is not changed.

    `graph` is the graph of `network`. Unaffected tensors are copied bit for bit.

    Raises:
        UserError: the plan is for another network, or leaves a layer without channels.
    """
    return narrowed(network, graph.axes, graph.numbers, plan.keep(graph))


def cut_masks(masks: Mapping[str, Tensor], graph: ChannelGraph, plan: Plan) -> dict[str, Tensor]:
    """Weight masks for the network that `cut` returns, by tensor name; each has the shape of its tensor after the cut.

    Raises:
        UserError: see `cut`, or a mask has a different shape than its tensor.
    """
    indices = kept_indices(graph.axes, plan.keep(graph))
    widths = {(axis.tensor, axis.dim): len(axis.units) for axis in graph.axes}
    for name, old in masks.items():
        for dim, _ in indices.get(name, []):
            if old.ndim <= dim or old.shape[dim] != widths[name, dim]:
                raise UserError(f"The mask of {name} has the shape {list(old.shape)}, which differs from its tensor.")
    return {name: selected(old, indices.get(name, [])) for name, old in masks.items()}


def mask(network: Network, graph: ChannelGraph, plan: Plan) -> Network:
    """A copy of the same size with silenced channels; it computes the same outputs as the cut network.

    Filters, biases and norms of removed channels are zero. So are all weights that read a removed channel, because an
    activation can map zero to another value. A layer norm over channels uses only the kept channels.
    """
    return silenced(network, graph.axes, graph.norms, graph.layer_norms, plan.keep(graph))
