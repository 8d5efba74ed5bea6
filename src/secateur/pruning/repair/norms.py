"""Repair without labels: moves constants of removed channels into their readers, and re-estimates batch-norm
statistics."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from itertools import chain, islice
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from secateur.layers import evaluating, hooked
from secateur.pruning.depth.means import move_
from secateur.pruning.graph import Bools, ChannelGraph
from secateur.pruning.graph.inputs import grey
from secateur.pruning.plan import Plan
from secateur.pruning.settings import RepairSettings

Network = TypeVar("Network", bound=nn.Module)


def absorb_offsets(network: Network, graph: ChannelGraph, plan: Plan) -> Network:
    """A copy, not yet cut, in which the readers of removed channels include the constants of these channels.

    A channel with gamma near 0 outputs the constant act(beta) everywhere, and a layer that reads it adds its weights
    times that constant. This sum is subtracted from the running mean of the reader, or added to its bias. This is exact
    for gamma = 0 in the interior of the image. At the border, zero padding hides part of the constant from kernels
    larger than 1x1, and the sum is too large. Only kept readers are changed. Grouped readers lose whole groups and need
    no change. A reader without a batch norm and a bias keeps its error.

    The constants are measured at the centre of the input of each reader, with a grey image, so that all sums,
    concatenations, pooling and upsampling in between are included. The gammas of removed channels are set to zero for
    the measurement.
    """
    keep = plan.keep(graph)
    repaired = copy.deepcopy(network)
    if keep.all():
        return repaired
    probe = copy.deepcopy(network).eval()
    _flatten_(probe, graph, keep)
    constants = _constants(probe, graph)
    modules = dict(repaired.named_modules())
    gone = np.append(~keep, False)
    with torch.no_grad():
        for axis in graph.consumers:
            removed = torch.from_numpy(np.flatnonzero(gone[axis.units]))
            if len(removed) == 0 or axis.layer not in constants:
                continue
            convolution = modules[axis.layer]
            weight = convolution.get_parameter("weight").detach().movedim(axis.dim, 1)
            weight = weight.flatten(2).sum(2).cpu().double() if weight.ndim > 2 else weight.cpu().double()
            offset = weight[:, removed] @ constants[axis.layer][removed]
            norm = modules.get(graph.norm_after.get(axis.layer, ""))
            if isinstance(norm, _BatchNorm) and norm.running_mean is not None:
                move_(norm.running_mean, -offset)
            elif isinstance(convolution.bias, Tensor):
                move_(convolution.bias, offset)
    return repaired


def reestimate_batchnorm_(
    network: nn.Module,
    images: Iterable[Tensor],
    limit: int | None = None,
    *,
    share: float = RepairSettings.correction_share,
) -> int:
    """Moves the running statistics of all batch norms by `share` towards the average over the given batches.

    With `share` 1 the old statistics are replaced, as in EagleEye (https://arxiv.org/abs/2007.02491). For a detector
    this can overshoot: false positives rise, and accuracy can fall below that without repair. Half way was better on
    the measured detector (docs/results.md). The images should be augmented as in training, because the running
    statistics describe such images.

    All other layers run in eval mode, and nothing is trained. Use shuffled batches of equal size, because all batches
    have equal weight. Modes, momenta and counters are restored. Without batches the statistics do not change.

    Args:
        images: batches, float [B, C, H, W] in 0..1, on the device of the network.
        limit: maximum number of batches.
        share: 0 to 1.

    Returns:
        The number of batches used.
    """
    iterator = iter(islice(images, limit))
    first = next(iterator, None)
    if first is None:
        return 0
    norms = [module for module in network.modules() if isinstance(module, _BatchNorm)]
    norms = [norm for norm in norms if norm.track_running_stats]
    running = [
        statistic for norm in norms for statistic in (norm.running_mean, norm.running_var) if statistic is not None
    ]
    trained = [statistic.clone() for statistic in running]
    before = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    used = 0
    with evaluating(network), torch.no_grad():
        try:
            for norm in norms:
                norm.train()
                # Momentum None means a cumulative average over the batches counted by num_batches_tracked.
                norm.momentum, norm.num_batches_tracked = None, torch.tensor(0, device=first.device)
            for batch in chain([first], iterator):
                network(batch)
                used += 1
            for statistic, old in zip(running, trained, strict=True):
                statistic.lerp_(old, 1 - share)
        finally:
            for norm, (momentum, counter) in zip(norms, before, strict=True):
                norm.momentum, norm.num_batches_tracked = momentum, counter
    return used


def _flatten_(probe: nn.Module, graph: ChannelGraph, keep: Bools) -> None:
    """Makes removed channels constant: sets gamma to zero or, if no batch norm follows, the filter to zero."""
    gone = np.append(~keep, False)
    tensors = dict(probe.named_parameters())
    zeroed = [(f"{layer}.weight", 0, units) for layer, units in graph.norms.items()]
    zeroed += [
        (axis.tensor, axis.dim, axis.units) for layer, axis in graph.filters.items() if layer not in graph.norm_after
    ]
    with torch.no_grad():
        for name, dim, units in zeroed:
            index = torch.from_numpy(np.flatnonzero(gone[units])).to(tensors[name].device)
            tensors[name].index_fill_(dim, index, 0.0)


def _constants(probe: nn.Module, graph: ChannelGraph) -> dict[str, Tensor]:
    """Value of each input channel of each reader at the centre of its map, double [C] on the CPU; for a linear layer,
    the mean over all rows.

    The network reads a grey image of twice the traced size, so that every map has a centre far from its borders. A
    network that accepts no other size reads the traced size.
    """
    sums: dict[str, Tensor] = {}
    calls: dict[str, int] = {}
    consumers = {axis.layer for axis in graph.consumers}

    def watch(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def note(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            value = inputs[0].flatten(0, -2) if isinstance(module, nn.Linear) else inputs[0]
            for side in value.shape[2:]:
                value = value.select(2, side // 2)
            value = value.cpu().double()
            sums[name] = sums.get(name, torch.zeros_like(value[0])) + value.sum(0)
            calls[name] = calls.get(name, 0) + len(value)

        return note

    watched = ((name, module) for name, module in probe.named_modules() if name in consumers)
    with hooked(module.register_forward_pre_hook(watch(name)) for name, module in watched), torch.no_grad():
        try:
            probe(*grey(graph.inputs, probe, factor=2))
        except RuntimeError:  # incompatible shapes
            sums.clear()
            calls.clear()
            probe(*grey(graph.inputs, probe))
    return {name: value / calls[name] for name, value in sums.items()}
