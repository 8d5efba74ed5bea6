"""Cutting a plan's channels out of a network, and silencing them in place of cutting: two ways to the same outputs."""

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
    """A new network without the channels that the plan removes; the old one is left alone.

    `graph` is the trace of `network`. Everything that the plan does not touch is copied bit for bit.

    Raises:
        UserError: the plan is for another network, or leaves a layer without channels.
    """
    return narrowed(network, graph.axes, graph.numbers, plan.keep(graph))


def cut_masks(masks: Mapping[str, Tensor], graph: ChannelGraph, plan: Plan) -> dict[str, Tensor]:
    """Weight masks, by tensor name, of the network that `cut` gives: each loses what its tensor loses.

    Raises:
        UserError: as `cut`, or a mask has another shape than its tensor.
    """
    indices = kept_indices(graph.axes, plan.keep(graph))
    widths = {(axis.tensor, axis.dim): len(axis.units) for axis in graph.axes}
    for name, old in masks.items():
        for dim, _ in indices.get(name, []):
            if old.ndim <= dim or old.shape[dim] != widths[name, dim]:
                raise UserError(f"The mask of {name} has the shape {list(old.shape)}, which is not that of its tensor.")
    return {name: selected(old, indices.get(name, [])) for name, old in masks.items()}


def mask(network: Network, graph: ChannelGraph, plan: Plan) -> Network:
    """A copy of the same size whose removed channels are silent: what it computes is what the cut network computes.

    Filters, biases and norms of removed channels are zero, and so is every weight that reads one, because an
    activation may turn zero into something else. A layer norm over channels is taken over those that stay.
    """
    return silenced(network, graph.axes, graph.norms, graph.layer_norms, plan.keep(graph))
