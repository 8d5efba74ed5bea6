"""Collects all statistics that criteria use, in one pass over the images."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from secateur.errors import UserError
from secateur.layers import evaluating, hooked, without_gradients
from secateur.pruning.graph import ChannelGraph, Floats, Ids
from secateur.pruning.settings import Tie
from secateur.terminal import bar

Network = TypeVar("Network", bound=nn.Module)


@dataclass(frozen=True, eq=False)
class Statistics:
    """Input of the criteria.

    Attributes:
        tensors: parameters and buffers by name, float32 on the CPU.
        taylor: mean over images of |s_u|, float64 [units], where s_u is the sum over unit u of parameter x gradient,
            for the scale and shift of its batch norms or, for a unit without one, its filters and biases. To first
            order, |s_u| is the change of the loss of the image if the unit is silenced
            (https://arxiv.org/abs/1906.10771). None without gradients.
        fisher: mean over images of s_u squared, float64 [units]; None without gradients.
        images: number of images with gradients.
        blocks: for each requested block, the mean over images of the squared first-order change of the loss if the
            input of the block replaces its output: the equivalent of `fisher` for a block.
        tie: how to combine the scores of the members of a unit.
        seed: seed of the criterion `random`.
    """

    tensors: dict[str, Tensor]
    taylor: Floats | None = None
    fisher: Floats | None = None
    images: int = 0
    blocks: dict[str, float] = field(default_factory=dict)
    tie: Tie = "mean"
    seed: int = 0


def collect(
    network: Network,
    graph: ChannelGraph,
    batches: Iterable[Any] | None = None,
    loss: Callable[[Network, Any], Tensor] | None = None,
    *,
    limit: int | None = None,
    blocks: Sequence[str] = (),
    places: Callable[[Any], Tensor] | None = None,
) -> Statistics:
    """Reads the tensors and, given batches and a loss, first-order statistics of every unit per image.

    One backward pass covers a whole batch. The output of each unit is multiplied by a gate of one per image and
    channel. The gradient of the gate is the sum over the map of gradient x value; for the output of a batch norm it
    equals scale x its gradient + shift x its gradient. Weights get no gradients, which saves a third of the pass.

    Args:
        loss: takes the network (in eval mode, so with running statistics) and a batch; returns the sum of the losses of
            its images, a scalar. (A mean over the batch would reduce the weight of images in large batches.)
        limit: number of images after which no further batch is read.
        blocks: names of blocks to score, with inputs and outputs of the same shape.
        places: takes a batch; returns the weight of each pixel of its images, float [B, 1, H, W]; None: equal weights.
            A position of a smaller map has the largest weight of the pixels that it covers.

    Raises:
        UserError: a gradient is not finite, or there are no images.
    """
    named = [*network.named_parameters(), *network.named_buffers()]
    tensors = {name: tensor.detach().float().cpu() for name, tensor in named}
    if batches is None or loss is None:
        return Statistics(tensors)
    if graph.units == 0 and not blocks:
        raise UserError(graph.frozen.sentence)
    taylor, fisher, count = np.zeros(graph.units), np.zeros(graph.units), 0
    removal = np.zeros(len(blocks))
    with evaluating(network), without_gradients(network), bar("scoring on images") as progress:
        task = progress.add_task("", total=limit)
        for batch in batches:
            weights = None if places is None else places(batch)
            sums, changes = _image_sums(network, graph, batch, loss, blocks, weights)
            if not (np.isfinite(sums).all() and np.isfinite(changes).all()):
                raise UserError(
                    "A gradient is not finite. Check the checkpoint, the labels and the loss for NaN and overflow."
                )
            taylor += np.abs(sums).sum(0)
            fisher += np.square(sums).sum(0)
            removal += np.square(changes).sum(0)
            count += len(sums)
            progress.advance(task, len(sums))
            if limit is not None and count >= limit:
                break
    if count == 0:
        raise UserError("There are no images for gradients. Provide labelled images, or use another criterion.")
    scored = dict(zip(blocks, (removal / count).tolist(), strict=True))
    return Statistics(tensors, taylor / count, fisher / count, count, scored)


def _image_sums(
    network: Network,
    graph: ChannelGraph,
    batch: Any,
    loss: Callable[[Network, Any], Tensor],
    blocks: Sequence[str],
    weights: Tensor | None = None,
) -> tuple[Floats, Floats]:
    """s_u of every image of the batch, [images, units], and the same for whole blocks, [images, blocks]."""
    places = _places(graph)
    gates: list[Tensor] = []
    owners: list[Ids | int] = []

    modules = dict(network.named_modules())

    def gate_of(output: Tensor, dim: int, owner: Ids | int) -> Tensor:
        sides = [1] * output.ndim
        sides[0] = len(output)
        sides[dim] = output.shape[dim] if isinstance(owner, np.ndarray) else 1
        gate = torch.ones(sides, dtype=output.dtype, device=output.device)
        gates.append(gate.requires_grad_())
        owners.append(owner)
        return gate

    def weighted(values: Tensor) -> Tensor:
        """The values, weighted by position."""
        if weights is None or values.ndim != 4 or len(values) != len(weights):
            return values
        return values * functional.adaptive_max_pool2d(weights, values.shape[2:]).to(values)

    def by_channel(name: str) -> Callable[[nn.Module, Any, Tensor], Tensor]:
        dim = -1 if isinstance(modules[name], nn.Linear) else 1
        if weights is None:
            return lambda module, inputs, output: output * gate_of(output, dim, places[name])
        # The output does not change, and neither do any gradients except that of the gate.
        return lambda module, inputs, output: (
            output + (gate_of(output, dim, places[name]) - 1) * weighted(output.detach())
        )

    def by_image(index: int) -> Callable[[nn.Module, Any, Tensor], Tensor]:
        # With a gate of one the output does not change; the gradient is taken along what the block adds.
        return lambda module, inputs, output: (
            output + (gate_of(output, 1, index) - 1) * weighted((output - inputs[0]).detach())
        )

    handles = [modules[name].register_forward_hook(by_channel(name)) for name in places]
    handles += [modules[name].register_forward_hook(by_image(index)) for index, name in enumerate(blocks)]
    with hooked(handles), torch.enable_grad():
        value = loss(network, batch)
    # Layers inside attention windows or positions have several consecutive rows per image.
    images = min((len(gate) for gate in gates), default=0)
    sums, changes = np.zeros((images, graph.units)), np.zeros((images, len(blocks)))
    for owner, gradient in zip(owners, torch.autograd.grad(value, gates, allow_unused=True), strict=True):
        if gradient is None:
            continue
        products = gradient.flatten(1).cpu().double().numpy()  # some devices have no double precision
        products = products.reshape(images, -1, products.shape[1]).sum(1)
        if isinstance(owner, int):
            changes[:, owner] += products[:, 0]
        else:
            used = owner >= 0
            for row, values in zip(sums, products, strict=True):
                np.add.at(row, owner[used], values[used])
    return sums, changes


def _places(graph: ChannelGraph) -> dict[str, Ids]:
    """Modules whose outputs belong to units, and the unit of each output channel (-1: not counted there).

    These are the batch norms and, for units without one, the convolutions and linear layers.
    """
    normed = np.zeros(graph.units + 1, dtype=bool)
    for units in graph.norms.values():
        normed[units[units >= 0]] = True
    places = {layer: units for layer, units in graph.norms.items() if (units >= 0).any()}
    for layer in graph.filters:
        units = graph.emitted[layer]
        bare = np.where(normed[units], -1, units)
        if (bare >= 0).any():
            places[layer] = bare
    return places
