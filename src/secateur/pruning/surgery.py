"""Cutting a plan's channels out of a network, and silencing them in place of cutting: two ways to the same outputs."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from secateur.errors import UserError
from secateur.layers import group_width, match_numbers_
from secateur.pruning.graph import ChannelGraph
from secateur.pruning.plan import Plan

Network = TypeVar("Network", bound=nn.Module)


def cut(network: Network, graph: ChannelGraph, plan: Plan) -> Network:
    """A new network without the channels that the plan removes; the old one is left alone.

    `graph` is the trace of `network`. Everything that the plan does not touch is copied bit for bit.

    Raises:
        UserError: the plan is for another network, or leaves a layer without channels.
    """
    indices = _indices(graph, plan)
    # deepcopy takes what the memo holds instead of copying: the large tensors are copied once, at their new size.
    memo: dict[int, object] = {}
    for name, tensor in [*network.named_parameters(), *network.named_buffers()]:
        if name in indices:
            small = _selected(tensor.detach(), indices[name])
            is_parameter = isinstance(tensor, nn.Parameter)
            memo[id(tensor)] = nn.Parameter(small, requires_grad=tensor.requires_grad) if is_parameter else small
    smaller = copy.deepcopy(network, memo)
    for old, new in zip(network.modules(), smaller.modules(), strict=True):
        match_numbers_(new, group_width(old))
    return smaller


def cut_masks(masks: Mapping[str, Tensor], graph: ChannelGraph, plan: Plan) -> dict[str, Tensor]:
    """Weight masks, by tensor name, of the network that `cut` gives: each loses what its tensor loses.

    Raises:
        UserError: as `cut`, or a mask has another shape than its tensor.
    """
    indices = _indices(graph, plan)
    widths = {(axis.tensor, axis.dim): len(axis.units) for axis in graph.axes}
    for name, old in masks.items():
        for dim, _ in indices.get(name, []):
            if old.ndim <= dim or old.shape[dim] != widths[name, dim]:
                raise UserError(f"The mask of {name} has the shape {list(old.shape)}, which is not that of its tensor.")
    return {name: _selected(old, indices.get(name, [])) for name, old in masks.items()}


Indices = dict[str, list[tuple[int, Tensor]]]


def _indices(graph: ChannelGraph, plan: Plan) -> Indices:
    """What each tensor that shrinks keeps: pairs of a dimension and indices along it."""
    keep = np.append(plan.keep(graph), True)
    indices: Indices = {}
    for axis in graph.axes:
        kept = np.flatnonzero(keep[axis.units])
        if len(kept) == 0:
            raise UserError(f"The plan leaves no channel in {axis.layer}; every layer has to keep at least one.")
        if len(kept) < len(axis.units):
            indices.setdefault(axis.tensor, []).append((axis.dim, torch.from_numpy(kept)))
    return indices


def _selected(tensor: Tensor, indices: list[tuple[int, Tensor]]) -> Tensor:
    for dim, index in indices:
        tensor = tensor.index_select(dim, index.to(tensor.device))
    return tensor


def mask(network: Network, graph: ChannelGraph, plan: Plan) -> Network:
    """A copy of the same size whose removed channels are silent: what it computes is what the cut network computes.

    Filters, biases and norms of removed channels are zero, and so is every weight that reads one, because an
    activation may turn zero into something else.
    """
    silenced = copy.deepcopy(network)
    tensors: dict[str, Tensor] = {**dict(silenced.named_parameters()), **dict(silenced.named_buffers())}
    statistics = {f"{layer}.{name}" for layer in graph.norms for name in ("running_mean", "running_var")}
    keep = np.append(plan.keep(graph), True)
    with torch.no_grad():
        for axis in graph.axes:
            gone = torch.from_numpy(np.flatnonzero(~keep[axis.units]))
            if len(gone) and axis.tensor not in statistics:
                tensors[axis.tensor].index_fill_(axis.dim, gone.to(tensors[axis.tensor].device), 0.0)
    return silenced
