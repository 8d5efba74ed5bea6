"""The one collector: everything that a criterion may want to know of a network, gathered once."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from secateur.errors import UserError
from secateur.pruning.graph import ChannelGraph, Floats, Ids
from secateur.pruning.settings import Tie

Network = TypeVar("Network", bound=nn.Module)


@dataclass(frozen=True, eq=False)
class Statistics:
    """What criteria read.

    Attributes:
        tensors: parameters and buffers by name, on the CPU in fp32 (gammas and weights among them).
        taylor: mean over batches of |s_u|, [units], where s_u is the sum over unit u of parameter x gradient: of
            scale and shift of its batch norms or, for a unit without one, of its filters and biases. To first order
            |s_u| is the change of the loss when the unit is silenced (https://arxiv.org/abs/1906.10771). None
            without gradients.
        fisher: mean over batches of s_u squared, [units]; None without gradients.
        batches: number of batches whose gradients were taken.
        tie: how the members of a unit make one score.
        seed: of the random criterion.
    """

    tensors: dict[str, Tensor]
    taylor: Floats | None = None
    fisher: Floats | None = None
    batches: int = 0
    tie: Tie = "mean"
    seed: int = 0


def collect(
    network: Network,
    graph: ChannelGraph,
    batches: Iterable[Any] | None = None,
    loss: Callable[[Network, Any], Tensor] | None = None,
    *,
    limit: int | None = None,
) -> Statistics:
    """Reads the tensors and, given labelled batches and a loss, first-order statistics of every unit.

    Args:
        loss: takes the network (in eval mode, so with running statistics) and a batch, gives a scalar.
        limit: batches at most. Batches of one image give the figures image by image.

    Raises:
        UserError: a gradient is not finite, or there is no batch.
    """
    named = [*network.named_parameters(), *network.named_buffers()]
    tensors = {name: tensor.detach().float().cpu() for name, tensor in named}
    if batches is None or loss is None:
        return Statistics(tensors)
    modes = {module: module.training for module in network.modules()}
    wanted = dict(network.named_parameters())
    frozen = [parameter for parameter in wanted.values() if not parameter.requires_grad]
    groups = _groups(graph, wanted)
    taylor, fisher, count = np.zeros(graph.units), np.zeros(graph.units), 0
    try:
        network.eval()
        network.requires_grad_(True)
        for batch in islice(batches, limit):
            with torch.enable_grad():
                value = loss(network, batch)
            gradients = torch.autograd.grad(value, [wanted[name] for name in groups], allow_unused=True)
            products = {
                name: (wanted[name].detach() * gradient).cpu().double()
                for name, gradient in zip(groups, gradients, strict=True)
                if gradient is not None
            }
            sums = _sum_over_units(graph, groups, products)
            if not np.isfinite(sums).all():
                raise UserError("A gradient is not finite; the checkpoint or a label is broken, or the loss overflows.")
            taylor += np.abs(sums)
            fisher += sums**2
            count += 1
    finally:
        for parameter in frozen:
            parameter.requires_grad_(False)
        for module, mode in modes.items():
            module.training = mode
    if count == 0:
        raise UserError("There is no image to take gradients from; give labelled images or another criterion.")
    return Statistics(tensors, taylor / count, fisher / count, count)


Groups = dict[str, list[tuple[int, Ids]]]


def _groups(graph: ChannelGraph, parameters: dict[str, nn.Parameter]) -> Groups:
    """Parameters that scale a unit, with the axis and units of each (-1 where they do not count)."""
    groups: Groups = {}
    normed = np.zeros(graph.units + 1, dtype=bool)
    for layer, units in graph.norms.items():
        normed[units[units >= 0]] = True
        for name in (f"{layer}.weight", f"{layer}.bias"):
            groups[name] = [(0, units)]
    for layer, axis in graph.filters.items():
        units = np.where(normed[axis.units], -1, axis.units)
        if (units >= 0).any():
            groups[axis.tensor] = [(axis.dim, units)]
            if f"{layer}.bias" in parameters:
                groups[f"{layer}.bias"] = [(0, np.where(normed[graph.emitted[layer]], -1, graph.emitted[layer]))]
    return groups


def _sum_over_units(graph: ChannelGraph, groups: Groups, products: dict[str, Tensor]) -> Floats:
    sums = np.zeros(graph.units)
    for name, product in products.items():
        for dim, units in groups[name]:
            rows = product.movedim(dim, 0).flatten(1).sum(1) if product.ndim > 1 else product
            used = units >= 0
            np.add.at(sums, units[used], rows.numpy()[used])
    return sums
